import asyncio

import pytest
from answers import PREDICT, Serve, parts

pytestmark = pytest.mark.anyio


async def test_metrics_count_what_happened(serve: Serve, images: list[bytes]) -> None:
    server = await serve(max_queue=3)
    with server.busy():
        waiting = asyncio.create_task(server.client.post(PREDICT, files=parts(images[:3])))
        await server.waiting(3)
        assert (await server.predict(images[0])).status_code == 429
        figures = await server.figures()
        assert figures["convnextv2_queue_images"] == 3
        assert figures["convnextv2_requests_in_flight"] == 2  # it and the one that asks
    await waiting
    for wrong in (b"a", b"b"):
        await server.predict(wrong)
    await server.predict(images[0], "shoes")
    await server.client.get("/nowhere")
    figures = await server.figures()
    route = '/v1/models/{name}/predict"'
    for code, many in (("200", 1), ("429", 1), ("415", 2), ("404", 1)):
        assert figures[f'convnextv2_requests_total{{code="{code}",route="{route}}}'] == many
    assert figures['convnextv2_requests_total{code="404",route="other"}'] == 1
    for reason, many in (("queue_full", 1), ("not_an_image", 2), ("no_such_model", 1)):
        assert figures[f'convnextv2_rejected_total{{reason="{reason}"}}'] == many
    assert figures["convnextv2_queue_images"] == 0 and figures["convnextv2_requests_in_flight"] == 1
    assert (
        figures['convnextv2_images_total{model="trees"}']
        == figures['convnextv2_batch_images_sum{model="trees"}']
        == 3
    )
    assert (
        figures["convnextv2_decode_seconds_count"] == figures["convnextv2_queue_seconds_count"] == 3
    )
    assert (
        figures["convnextv2_queue_seconds_sum"]
        > 0
        < figures['convnextv2_model_seconds_sum{model="trees"}']
    )
    assert any(
        name.startswith("convnextv2_model_info{") and 'version="1"' in name for name in figures
    )
