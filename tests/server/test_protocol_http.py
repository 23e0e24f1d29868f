"""HTTP as clients speak it: what is not HTTP, offers of HTTP/2, forms of header lines."""

import asyncio
import time

import pytest
from server_process import Process, close, head, probs, read_answer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
async def test_what_is_not_http_gets_the_body_of_all_errors(hasty: Process, sent: bytes) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    writer.write(sent)
    status, headers, found = await read_answer(reader)
    assert (status, headers["content-type"], headers["connection"]) == (
        400,
        "application/json",
        "close",
    )
    assert found == {
        "error": {"code": "malformed_http", "message": "This is not a valid HTTP request."}
    }
    assert await reader.read() == b""
    await close(writer)


@pytest.mark.parametrize("form", ["length", "chunked"])
@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_body_is_not_lost_where_http_2_is_offered(
    form: str, pieces: int, hasty: Process, images: list[bytes]
) -> None:
    """Java's HttpClient offers HTTP/2 by default with every first request."""
    await hasty.ready()
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    offer += b"HTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    reader, writer = await hasty.connect()
    for i in range(3):
        start = head(len(images[i])).replace(b"Host: h\r\n", b"Host: h\r\n" + offer)
        body = images[i]
        if form == "chunked":
            start = start.replace(
                f"Content-Length: {len(body)}".encode(), b"Transfer-Encoding: chunked"
            )
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        everything = start + body
        size = -(-len(everything) // pieces)
        for at in range(0, len(everything), size):
            writer.write(everything[at : at + size])
            await writer.drain()
            await asyncio.sleep(0.01 if pieces > 1 else 0)
        status, _, found = await read_answer(reader)
        _, _, plain = await hasty.ask(images[i])  # other tests change the model that is served
        assert status == 200 and probs(found) == pytest.approx(probs(plain), abs=1e-5)
    writer.write(head(len(images[4])) + images[4])  # and the connection is used on
    _, _, plain = await hasty.ask(images[4])
    assert probs((await read_answer(reader))[2]) == pytest.approx(probs(plain), abs=1e-5)
    await close(writer)


async def test_a_form_of_header_lines_does_not_hold_up_others(hasty: Process) -> None:
    """4 MB of them stopped the server for 10 s with python-multipart 0.0.18."""
    await hasty.ready()
    form = b"--b\r\n" + b"X: y\r\n" * 700_000
    start = "POST /v1/models/trees/predict HTTP/1.1\r\nHost: h\r\n"
    start += "Content-Type: multipart/form-data; boundary=b\r\n"
    reader, writer = await hasty.connect()
    writer.write(f"{start}Content-Length: {len(form)}\r\n\r\n".encode() + form)
    answer = asyncio.create_task(read_answer(reader))
    slowest = 0.0
    while not answer.done():
        began = time.monotonic()
        assert (await hasty.get("/healthz"))[0] == 200
        slowest = max(slowest, time.monotonic() - began)
        await asyncio.sleep(0.01)
    assert answer.result()[0] == 400 and slowest < 3
    await close(writer)
