"""Requests that are cheap to send and would be costly to answer."""

import asyncio
import time
from typing import Any

import pytest
from answers import INFER, PREDICT, Serve

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", [PREDICT, INFER])
async def test_json_of_very_many_values_costs_next_to_nothing(serve: Serve, path: str) -> None:
    """Measured in processor time, which other programs do not change much."""
    server = await serve()
    for body in (
        b'{"images": [' + b"0," * 4_000_000 + b"0]}",
        b'{"images": ' + b"[" * 4_000_000,
        b'{"inputs": [' + b"{}," * 1_900_000 + b"{}]}",
        b'{"outputs": [' + b"0," * 1_900_000 + b"0]}",
        b"{" + b'"a":0,' * 1_900_000 + b'"a":0}',
    ):
        began = time.process_time()
        response = await server.client.post(
            path, content=body, headers={"Content-Type": "application/json"}
        )
        assert response.status_code in (413, 422) and len(response.content) < 1000
        assert time.process_time() - began < 2


async def test_nothing_is_scored_for_a_client_that_has_left(
    serve: Serve, images: list[bytes]
) -> None:
    server = await serve()
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": images[0], "more_body": False}]
    left = asyncio.Event()

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": PREDICT,
        "raw_path": PREDICT.encode(),
        "query_string": b"",
        "headers": [],
    }
    with server.busy():
        request = asyncio.create_task(server.app(scope, receive, send))
        await server.waiting(1)
        left.set()
        async with asyncio.timeout(5):
            await request
        assert server.models.admission.waiting == 0
    assert sent[0]["status"] == 499
    route = "/v1/models/{name}/predict"
    figures = await server.figures()
    assert figures[f'convnextv2_requests_total{{code="499",route="{route}"}}'] == 1
    assert figures.get('convnextv2_images_total{model="trees"}', 0) == 0
