"""The answers of the application to HEAD, and those before it reads a body."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from answers import PREDICT, Serve

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/page/app.js",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/v1/models",
        "/v2",
        "/v2/models/trees",
    ],
)
async def test_head_is_get_without_its_body(path: str, serve: Serve) -> None:
    server = await serve()
    head, get = await server.client.head(path), await server.client.get(path)
    assert (head.status_code, head.content) == (200, b"") and get.content
    for name in ("content-type", "content-length"):
        assert head.headers[name] == get.headers[name]


async def test_head_of_metrics_and_of_what_is_not_there(serve: Serve) -> None:
    server = await serve()
    assert (await server.client.head("/metrics")).status_code == 200
    missing = await server.client.head("/nowhere")
    assert (missing.status_code, missing.headers["X-Error-Code"], missing.content) == (
        404,
        "no_such_path",
        b"",
    )
    refused = await server.client.head(PREDICT)
    assert refused.status_code == 405 and refused.headers["Allow"] == "POST"
    assert (await server.client.post("/healthz")).headers["Allow"] == "GET, HEAD"


async def ask_unread(app: Any, path: str) -> list[Any]:
    """Read the body of a request, or answer with a status before it has come."""
    done: list[Any] = []

    async def receive() -> Any:
        done.append("body")
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            done.append(message["status"])

    headers = [(b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": headers,
    }
    await app(scope, receive, send)
    return done


async def test_a_full_queue_refuses_before_the_body_is_read(
    serve: Serve, images: list[bytes], pretrained: Path, weights: Path
) -> None:
    server = await serve(f"trees={weights}", f"pre={pretrained}", max_queue=2)
    paths = (PREDICT, "/v2/models/trees/infer", "/v1/models/pre/reconstruct")
    with server.busy():
        waiting = [asyncio.create_task(server.predict(image)) for image in images[:2]]
        await server.waiting(2)
        assert [await ask_unread(server.app, path) for path in paths] == [[429]] * 3
    await asyncio.gather(*waiting)
    assert [await ask_unread(server.app, path) for path in paths] == [
        ["body", 499]
    ] * 3  # so it is the queue's doing


async def test_a_compressed_body_is_refused_plainly(serve: Serve, images: list[bytes]) -> None:
    server = await serve()
    for encoding, status in (("gzip", 415), ("br", 415), ("identity", 200)):
        response = await server.client.post(
            PREDICT, content=images[0], headers={"Content-Encoding": encoding}
        )
        assert response.status_code == status
    assert (
        "Content-Encoding 'br': send the body as it is."
        in (
            await server.client.post(PREDICT, content=images[0], headers={"Content-Encoding": "br"})
        ).text
    )
