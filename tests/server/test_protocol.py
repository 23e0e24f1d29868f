"""Clients that are slow, leave, do not read or ask ahead: what only sockets can show."""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest
import uvicorn
from server_process import Process, close, head, read_answer

from convnextv2.errors import DataError, ServerError
from convnextv2.server.client import predict_remotely
from convnextv2.server.process import DrainingServer, bind
from convnextv2.server.protocol import TimedProtocol, _Flow

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "begin, drip", [(b"", b""), (b"GET / HTTP/1.1\r\nX: ", b"x")], ids=["silent", "slow"]
)
async def test_a_head_that_does_not_come_is_cut_off(
    hasty: Process, images: list[bytes], begin: bytes, drip: bytes
) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    began = time.monotonic()
    writer.write(begin)
    with suppress(ConnectionError):
        while not reader.at_eof() and time.monotonic() < began + 10:
            writer.write(drip)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    assert not await reader.read(1)
    assert 0.3 < time.monotonic() - began < 5
    await close(writer)
    assert (await hasty.ask(images[0]))[0] == 200


async def test_a_slow_body_is_refused(hasty: Process) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    writer.write(head(1000))
    answer = asyncio.create_task(read_answer(reader))
    began = time.monotonic()
    while not answer.done():
        writer.write(b"x")
        await asyncio.wait([answer], timeout=0.1)
    assert time.monotonic() - began < 5
    status, _, found = answer.result()
    assert status == 408 and found["error"]["code"] == "too_slow"
    await close(writer)


async def test_a_connection_that_stays_open_is_not_cut_off_while_it_is_used(
    hasty: Process, images: list[bytes]
) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    for _ in range(4):
        await asyncio.sleep(0.4)  # together longer than a head may take
        writer.write(head(len(images[0])) + images[0])
        assert (await read_answer(reader))[0] == 200
    await close(writer)


async def test_clients_that_leave_in_the_middle_leave_nothing_behind(
    hasty: Process, images: list[bytes]
) -> None:
    await hasty.ready()
    image = images[0]
    for sent in (head(len(image)), head(len(image)) + image[:100], head(len(image)) + image):
        for half in (False, True):
            reader, writer = await hasty.connect()
            writer.write(sent)
            await writer.drain()
            if half:
                writer.write_eof()
                answer = await asyncio.wait_for(
                    reader.read(), 5
                )  # the server does not keep it open
                assert answer[:12] == (b"HTTP/1.1 200" if sent.endswith(image) else b"")
            await close(writer)
    async with asyncio.timeout(10):
        while not {"convnextv2_requests_in_flight 1.0", "convnextv2_queue_images 0.0"} <= set(
            (await hasty.get("/metrics"))[2]["text"].splitlines()
        ):
            await asyncio.sleep(0.02)
    assert (await hasty.ask(image))[0] == 200


async def test_a_client_that_leaves_is_no_error_of_the_server(
    hasty: Process, images: list[bytes]
) -> None:
    await hasty.ready()
    _, writer = await hasty.connect()
    writer.write(head(len(images[0])) + images[0][:100])
    await writer.drain()
    await close(writer)
    async with asyncio.timeout(10):
        while "convnextv2_requests_in_flight 1.0" not in (await hasty.get("/metrics"))[2]["text"]:
            await asyncio.sleep(0.02)
    assert (
        'code="500"' not in (await hasty.get("/metrics"))[2]["text"]
        and not hasty.errors.read_text()
    )


async def test_a_client_that_does_not_read_is_cut_off(hasty: Process, images: list[bytes]) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    some = (
        b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n" * 10
    )  # fewer than it would refuse at once
    began = time.monotonic()
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(60):
            while True:
                writer.write(some)
                await writer.drain()
                await asyncio.sleep(0.05)
    assert time.monotonic() - began > 0.5  # read_timeout_s
    assert time.monotonic() - began < 30
    await close(writer)
    async with asyncio.timeout(10):
        while "convnextv2_requests_in_flight 1.0" not in (await hasty.get("/metrics"))[2]["text"]:
            await asyncio.sleep(0.02)
    assert (await hasty.ask(images[0]))[0] == 200


async def test_a_client_may_ask_ahead_but_not_without_end(
    hasty: Process, images: list[bytes]
) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    request = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
    for _ in range(3):
        writer.write(request * 90)
        for _ in range(90):
            assert (await read_answer(reader))[0] == 200
    with suppress(ConnectionError):
        writer.write(request * 10_000)
        async with asyncio.timeout(10):
            assert (await reader.read()).count(b"200 OK") < 200
    await close(writer)
    assert (await hasty.ask(images[0]))[0] == 200


async def test_a_head_without_end_is_cut_off_and_an_upgrade_is_none(
    hasty: Process, images: list[bytes]
) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    with pytest.raises(ConnectionError):
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        for _ in range(200):
            writer.write(b"X: " + b"x" * 8000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.001)
    await close(writer)
    reader, writer = await hasty.connect()
    writer.write(
        b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert (await read_answer(reader))[0] == 200
    await close(writer)
    assert (await hasty.ask(images[0]))[0] == 200


def test_nothing_is_read_while_requests_of_the_connection_wait() -> None:
    transport, behind = Mock(), [1]
    flow = _Flow(transport, behind)
    flow.pause_reading()
    flow.resume_reading()
    transport.resume_reading.assert_not_called()
    behind.clear()
    flow.resume_reading()
    transport.resume_reading.assert_called_once_with()


async def test_a_client_learns_why_its_large_body_is_refused(
    hasty: Process, tmp_path: Path
) -> None:
    """Like most clients, ours sends the whole body before it reads the answer."""
    await hasty.ready()
    large = tmp_path / "large.jpg"
    large.write_bytes(b"x" * 40_000_000)
    with pytest.raises(DataError, match=r"large.jpg: The body is longer than 32 MB"):
        await asyncio.to_thread(
            list, predict_remotely(f"http://127.0.0.1:{hasty.port}", "trees", [large])
        )
    large.write_bytes(b"x" * 30_000_000)
    with pytest.raises(ServerError, match=r"404.: There is no model 'shoes'"):
        await asyncio.to_thread(
            list, predict_remotely(f"http://127.0.0.1:{hasty.port}", "shoes", [large])
        )


@pytest.mark.parametrize(
    "seen", [False, True], ids=["not accepted yet", "accepted, its request not read yet"]
)
async def test_who_has_connected_before_it_stops_to_listen_is_answered(seen: bool) -> None:
    """All of it happens in one turn of the event loop.

    That is what happens if the loop lags behind its clients.
    """

    async def app(scope: dict, receive: Callable, send: Callable) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    class Protocol(TimedProtocol):
        timeout_s = 5.0

    bound = bind("127.0.0.1", 0)
    config = uvicorn.Config(app, http=Protocol, lifespan="off", log_level="warning")
    config.load()
    server = DrainingServer(config, Mock(), drain_s=0)
    server.lifespan = config.lifespan_class(config)
    await server.startup([bound])
    with socket.create_connection(bound.getsockname(), timeout=10) as client:
        if seen:
            await asyncio.sleep(0.05)
            assert server.server_state.connections
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await server.shutdown([bound])
        assert client.recv(100).startswith(b"HTTP/1.1 204")
    with pytest.raises(OSError):
        bound.getsockname()
