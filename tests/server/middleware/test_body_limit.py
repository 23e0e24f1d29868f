import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from convnextv2.server.limits import Limits
from convnextv2.server.middleware.body_limit import LimitBody
from convnextv2.server.middleware.linger import Linger
from convnextv2.server.refusal import Refusal

pytestmark = pytest.mark.anyio

CHUNK = b"x" * 400


async def read_all(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with the length of its body."""
    length, more = 0, True
    while more:
        message = await receive()
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": str(length).encode()})


class Asked:
    """LimitBody around an application, and what it answers."""

    def __init__(self, app: Any = read_all, **limits: float) -> None:
        async def refuse(refusal: Refusal, path: str, send: Any) -> None:
            self.refusals.append((refusal.status, refusal.code))

        self.refusals: list[tuple[int, str]] = []
        self.sent: list[dict[str, Any]] = []
        self.received = 0
        self.limited = LimitBody(app, Limits(**limits), refuse)  # type: ignore[arg-type]

    async def __call__(
        self, chunks: Iterable[bytes], headers: dict[str, str] | None = None, *, ends: bool = True
    ) -> None:
        """Send one request. If not `ends`, its last chunk never comes."""
        left = list(chunks)

        async def receive() -> dict[str, Any]:
            if not left and not ends:
                await asyncio.sleep(3600)
            self.received += 1
            body = left.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(left) or not ends}

        async def send(message: Any) -> None:
            self.sent.append(message)

        named = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        await self.limited({"type": "http", "headers": named}, receive, send)


async def test_a_body_within_the_limit_passes() -> None:
    asked = Asked(max_body_mb=0.001)
    await asked([CHUNK, CHUNK, CHUNK[:200]], {"content-length": "1000"})
    assert asked.sent[1]["body"] == b"1000" and not asked.refusals


async def test_a_body_that_says_it_is_too_long_is_refused_unread() -> None:
    asked = Asked(max_body_mb=0.001)
    await asked([CHUNK], {"content-length": "1001"})
    assert asked.refusals == [(413, "body_too_large")] and asked.received == 0 and not asked.sent


async def test_a_body_that_does_not_say_its_length_is_refused_where_it_gets_too_long() -> None:
    asked = Asked(max_body_mb=0.001)
    await asked([CHUNK] * 100)
    assert asked.refusals == [(413, "body_too_large")] and asked.received == 3 and not asked.sent


async def test_a_body_that_lies_about_its_length_is_counted() -> None:
    asked = Asked(max_body_mb=0.001)
    await asked([CHUNK] * 100, {"content-length": "10"})
    assert asked.refusals == [(413, "body_too_large")]


@pytest.mark.parametrize("length", ["-1", "1e3", "", "ten"])
async def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    asked = Asked()
    await asked([b""], {"content-length": length})
    assert asked.refusals == [(400, "bad_request")]


async def test_a_body_that_does_not_end_in_time_is_refused() -> None:
    asked = Asked(read_timeout_s=0.05)
    async with asyncio.timeout(5):
        await asked([CHUNK], ends=False)
    assert asked.refusals == [(408, "too_slow")]


async def test_bodies_of_all_requests_together_are_bounded_and_room_is_given_back() -> None:
    asked = Asked(max_body_mb=0.001, max_bodies_mb=0.0015)
    first = asyncio.create_task(asked([CHUNK, CHUNK], ends=False))
    await asyncio.sleep(0)
    assert asked.limited.held == 800
    await asked([CHUNK, CHUNK])
    assert asked.refusals == [(429, "too_many_bodies")]
    assert asked.limited.held == 800
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert asked.limited.held == 0
    await asked([CHUNK, CHUNK])
    assert asked.sent[1]["body"] == b"800"


async def test_room_is_given_back_where_the_application_fails() -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ZeroDivisionError

    asked = Asked(fail)
    with pytest.raises(ZeroDivisionError):
        await asked([CHUNK])
    assert asked.limited.held == 0 and not asked.refusals


async def test_waiting_for_the_connections_end_has_no_time_limit() -> None:
    async def wait_for_the_end(scope: Any, receive: Any, send: Any) -> None:
        assert not (await receive())["more_body"]
        await asyncio.sleep(0.1)
        with pytest.raises(IndexError):  # nothing more is there
            await receive()
        ended.append(True)

    ended: list[bool] = []
    asked = Asked(wait_for_the_end, read_timeout_s=0.05)
    await asked([CHUNK])
    assert ended and not asked.refusals


async def answer_at_once(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 413})
    await send({"type": "http.response.body", "body": b"no"})


@pytest.mark.parametrize("ends", [True, False], ids=["all comes", "it stalls"])
async def test_an_early_answer_is_sent_at_once_and_its_connection_stays_until_the_body_has_come(
    ends: bool,
) -> None:
    asked = Asked()
    asked.limited = Linger(answer_at_once, 0.05)  # type: ignore[assignment]
    async with asyncio.timeout(5):
        await asked([CHUNK] * 100, {"content-length": "40000"}, ends=ends)
    assert asked.received == 100
    assert [
        (message.get("body"), message.get("more_body", False)) for message in asked.sent[1:]
    ] == [(b"no", True), (b"", False)]


@pytest.mark.parametrize(
    "headers", [{}, {"content-length": "0"}, {"content-length": "400", "expect": "100-continue"}]
)
async def test_there_is_nothing_to_wait_for_where_no_body_comes(headers: dict[str, str]) -> None:
    asked = Asked()
    asked.limited = Linger(answer_at_once, 60)  # type: ignore[assignment]
    async with asyncio.timeout(5):
        await asked([CHUNK], headers, ends=False)
    assert asked.received == 0 and len(asked.sent) == 2


async def test_a_refusal_after_the_answer_began_is_an_error() -> None:
    async def too_late(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        raise Refusal(503, "late", "too late")

    asked = Asked(too_late)
    with pytest.raises(Refusal):
        await asked([CHUNK])
    assert not asked.refusals


def test_a_refusal_says_code_and_message_and_when_to_come_again() -> None:
    refusal = Refusal(429, "queue_full", "Too many.", 3)
    assert refusal.body() == {"error": {"code": "queue_full", "message": "Too many."}}
    assert refusal.headers() == {"Retry-After": "3"} and Refusal(404, "a", "b").headers() == {}
