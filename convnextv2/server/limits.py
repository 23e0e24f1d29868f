"""What the server takes, and how it says no."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from convnextv2.recipe.options import option

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one server: how much it accepts, and how long it waits."""

    max_body_mb: float = option(32.0, "Maximum request body.", metavar="MB", unit="MB", gt=0)
    max_bodies_mb: float = option(
        512.0,
        "Maximum of all bodies that are being read or answered.",
        metavar="MB",
        unit="MB",
        gt=0,
    )
    max_images: int = option(64, "Maximum number of images in a request.", metavar="N", gt=0)
    max_image_pixels: int = option(
        64_000_000,
        "Largest image that is decoded, by its header; twice as many pixels are decoded at once.",
        metavar="N",
        unit="pixels",
        gt=0,
    )
    max_queue: int = option(
        256,
        "Images that may wait, of all requests; beyond that requests are refused.",
        metavar="N",
        gt=0,
    )
    max_batch: int = option(
        32, "Maximum number of images that the model gets at once.", metavar="N", gt=0
    )
    max_delay_ms: float = option(
        2.0,
        "Time that the first image of a batch waits for others while the model is idle.",
        metavar="MS",
        unit="ms",
        ge=0,
    )
    deadline_s: float = option(
        10.0, "Time from a request's last byte to its answer.", metavar="S", unit="s", gt=0
    )
    read_timeout_s: float = option(
        20.0,
        "Time allowed to receive a request's head, and its body, and for the client to take the answer.",
        metavar="S",
        unit="s",
        gt=0,
    )
    drain_s: float = option(
        1.0,
        "Time to go on taking requests after SIGTERM, so that a load balancer can look away.",
        metavar="S",
        unit="s",
        ge=0,
    )


class Refusal(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP's.
        code: Stable, for programs.
        message: For people.
        retry_after_s: When trying again may help; None where it will not.
        more_headers: What the answer has beside.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after_s: int | None = None,
        more_headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after_s = (
            status,
            code,
            message,
            retry_after_s,
        )
        self.more_headers = more_headers

    def body(self) -> dict[str, dict[str, str]]:
        """The same for every error."""
        return {"error": {"code": self.code, "message": self.message}}

    def headers(self) -> dict[str, str]:
        """Retry-After, in whole seconds, and what belongs to this refusal alone."""
        return (
            {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        ) | dict(self.more_headers)


class _Refused(Exception):
    """Ends the application's reading. No error that it knows: it must not answer, nor count, what is answered here."""


class LimitBody:
    """ASGI middleware: refuses bodies that are too long (413), by what they say of their length or by what comes, and those that
    come too slowly (408). Nothing behind it has to look.

    answer: sends a refusal to what was asked for at a path."""

    def __init__(
        self, app: ASGIApp, limits: Limits, answer: Callable[[Refusal, str, Send], Awaitable[None]]
    ) -> None:
        self.app, self.limits, self.answer = app, limits, answer
        self.held = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = int(self.limits.max_body_mb * 1e6)
        too_long = Refusal(
            413, "body_too_large", f"The body is longer than {self.limits.max_body_mb:g} MB."
        )
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            refusal = (
                too_long
                if length.isdigit()
                else Refusal(400, "bad_request", "Content-Length is no number.")
            )
            await self.answer(refusal, scope.get("path", ""), closing(send))
            return
        end = asyncio.get_running_loop().time() + self.limits.read_timeout_s
        seen, complete, began = 0, False, False
        refused: Refusal | None = None

        async def counted() -> Message:
            nonlocal seen, complete, refused
            if (
                refused
            ):  # frameworks turn what is raised here into errors of their own, and may ask again
                raise _Refused
            if complete:  # only the end of the connection can follow
                return await receive()
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                refused = Refusal(
                    408,
                    "too_slow",
                    f"The body did not arrive within {self.limits.read_timeout_s:g} s.",
                )
                raise _Refused from None
            came = len(message.get("body", b""))
            seen, self.held = seen + came, self.held + came
            complete = not message.get("more_body", False)
            if seen > most:
                refused = too_long
            elif self.held > self.limits.max_bodies_mb * 1e6:
                refused = Refusal(
                    429,
                    "too_many_bodies",
                    "Too many requests are being read at once. Try again later.",
                    1,
                )
            if refused:
                raise _Refused
            return message

        async def noted(message: Message) -> None:
            nonlocal began
            if refused and not began:
                return
            began = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except Exception:
            if began or not refused:
                raise
        finally:
            self.held -= seen
        if refused and not began:
            await self.answer(refused, scope.get("path", ""), closing(send))


class Linger:
    """ASGI middleware: where a request is answered before its body has come, reads on for a while and forgets what comes. A
    connection that is closed on a client while it still sends is reset, and the client never learns what the answer was (nginx:
    lingering_close)."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = dict(scope.get("headers", []))
        complete = (
            headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
        )
        if (
            scope["type"] != "http" or complete or b"expect" in headers
        ):  # who asks first whether to send, sends nothing
            await self.app(scope, receive, send)
            return

        async def noted() -> Message:
            nonlocal complete
            message = await receive()
            complete = not message.get(
                "more_body", False
            )  # a client that has left says no more, too
            return message

        async def last(message: Message) -> None:
            if (
                complete
                or message["type"] != "http.response.body"
                or message.get("more_body", False)
            ):
                await send(message)
                return
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(self.seconds):
                    while not complete:
                        await noted()
            await send({"type": "http.response.body", "body": b""})

        await self.app(scope, noted, last)


def closing(send: Send) -> Send:
    """The same, of an answer after which the connection is closed: nobody reads the rest of its body."""

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
        await send(message)

    return marked
