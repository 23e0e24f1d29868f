import asyncio
import gc
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from answers import (
    INFER,
    JPEG,
    PREDICT,
    Probs,
    Serve,
    bomb,
    check,
    check_refused,
    chunks,
    parts,
    text,
    v2,
)
from PIL import Image

pytestmark = pytest.mark.anyio


async def test_a_key_is_asked_for_but_for_the_page_and_the_health_checks(
    serve: Serve, images: list[bytes]
) -> None:
    server = await serve(api_key="secret")
    for path in (
        "/v1/models",
        "/v1/models/trees",
        "/v2/models/trees",
        "/v2/models/trees/ready",
        "/metrics",
    ):
        for headers in (
            {},
            {"X-API-Key": "secre"},
            {"Authorization": "Bearer secret2"},
            {"Authorization": "Basic secret"},
        ):
            check_refused(await server.client.get(path, headers=headers), 401, "unauthorized")
        for headers in ({"X-API-Key": "secret"}, {"Authorization": "Bearer secret"}):
            assert (await server.client.get(path, headers=headers)).status_code == 200
    for path in (PREDICT, INFER, "/v1/models/trees/reconstruct"):
        check_refused(await server.client.post(path, content=images[0]), 401, "unauthorized")
    for path in (
        "/",
        "/page/app.js",
        "/healthz",
        "/readyz",
        "/v2/health/live",
        "/v2/health/ready",
        "/openapi.json",
    ):
        assert (await server.client.get(path)).status_code == 200
    figures = (await server.client.get("/metrics", headers={"X-API-Key": "secret"})).text
    assert 'convnextv2_requests_total{code="401",route="other"} 23.0' in figures


async def test_unknown_paths_models_and_methods_have_the_body_of_all_errors(
    serve: Serve, images: list[bytes]
) -> None:
    server = await serve()
    assert "There are: trees" in check_refused(
        await server.predict(images[0], "shoes"), 404, "no_such_model"
    )
    for path in ("/v1/models/shoes", "/v2/models/shoes", "/v2/models/shoes/ready"):
        check_refused(await server.client.get(path), 404, "no_such_model")
    assert check_refused(await server.client.get("/v3"), 404, "no_such_path") == (
        "GET /v3: there is no such path. GET /openapi.json lists the paths."
    )
    check_refused(await server.client.get("/page/../app.py"), 404, "no_such_path")
    assert check_refused(await server.client.get(PREDICT), 405, "method_not_allowed") == (
        f"GET {PREDICT}: this path takes only POST."
    )


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "application/json", "multipart/form-data; boundary=b"]
)
async def test_bodies_that_are_too_long_are_refused(serve: Serve, kind: str) -> None:
    server = await serve(max_body_mb=0.001)
    headers = {"Content-Type": kind}
    check_refused(
        await server.client.post(PREDICT, content=b"x" * 1001, headers=headers),
        413,
        "body_too_large",
    )
    if "multipart" not in kind:  # of which the first chunk is wrong already
        check_refused(
            await server.client.post(PREDICT, content=chunks(1000), headers=headers),
            413,
            "body_too_large",
        )
    check_refused(
        await server.client.post(INFER, content=b"x" * 1001, headers=headers), 413, "body_too_large"
    )


async def test_long_and_slow_bodies_of_kserve_are_refused_like_others(serve: Serve) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(1)

    server = await serve(max_body_mb=0.001, read_timeout_s=0.1)
    headers = {"Content-Type": "application/json"}
    check_refused(
        await server.client.post(INFER, content=chunks(1000), headers=headers),
        413,
        "body_too_large",
    )
    check_refused(await server.client.post(INFER, content=slow(), headers=headers), 408, "too_slow")
    figures = await server.figures()
    rejected = {
        name: number
        for name, number in figures.items()
        if name.startswith("convnextv2_rejected_total")
    }
    assert rejected == {
        f'convnextv2_rejected_total{{reason="{reason}"}}': 1
        for reason in ("body_too_large", "too_slow")
    }


async def test_a_pixel_bomb_is_known_by_its_header(serve: Serve) -> None:
    server = await serve(max_image_pixels=10_000)
    message = check_refused(await server.predict(bomb(101)), 413, "image_too_large")
    assert "101 x 101 px" in message
    assert "damaged" in check_refused(await server.predict(bomb(100)), 415, "not_an_image")
    check_refused(
        await server.predict(bomb(50_000)), 413, "image_too_large"
    )  # which Pillow refuses, too
    answer = await server.client.post(INFER, json=v2("BYTES", [1], [text(bomb(101))]))
    check_refused(answer, 413, "image_too_large")


async def test_a_damaged_image_spoils_its_own_request_only(
    serve: Serve, images: list[bytes], expected: Probs
) -> None:
    server = await serve(max_delay_ms=500)
    large = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(large, "jpeg")
    truncated = large.getvalue()[:-100]  # which is noticed when the good one waits for the model
    check_refused(
        await server.client.post(PREDICT, files=parts([images[0], truncated])), 415, "not_an_image"
    )
    await asyncio.sleep(0.6)
    async with asyncio.timeout(5):
        check(await server.predict(images[1]), [expected[1]])


async def test_too_many_images_are_refused(serve: Serve, images: list[bytes]) -> None:
    server = await serve(max_images=3)
    many = [text(image) for image in images[:4]]
    check_refused(
        await server.client.post(PREDICT, files=parts(images[:4])), 413, "too_many_images"
    )
    check_refused(await server.client.post(PREDICT, json={"images": many}), 413, "too_many_images")
    check_refused(
        await server.client.post(INFER, json=v2("BYTES", [4], many)), 413, "too_many_images"
    )
    check_refused(
        await server.client.post(INFER, json=v2("UINT8", [4, 64, 64, 3], [])), 400, "bad_shape"
    )
    for right in (parts(images[:3]), parts(images[:1])):
        assert (await server.client.post(PREDICT, files=right)).status_code == 200


async def test_what_is_no_image_is_refused_and_none_of_its_request_is_answered(
    serve: Serve, images: list[bytes]
) -> None:
    server = await serve()
    truncated = images[0][: len(images[0]) // 2]
    for wrong in (b"GIF8", b"%PDF-1.7", b"<svg/>", truncated):
        message = check_refused(
            await server.client.post(PREDICT, content=wrong, headers=JPEG), 415, "not_an_image"
        )
        assert message.startswith("image 0: ")
    mixed = [images[0], b"no image", images[1]]
    assert check_refused(
        await server.client.post(PREDICT, files=parts(mixed)), 415, "not_an_image"
    ).startswith("1.jpg: ")
    assert (await server.figures())["convnextv2_queue_images"] == 0


async def test_bodies_of_another_kind_are_refused(serve: Serve, images: list[bytes]) -> None:
    server = await serve()

    async def post(content: bytes, kind: str) -> httpx.Response:
        return await server.client.post(PREDICT, content=content, headers={"Content-Type": kind})

    for kind in ("text/plain", "application/pdf", "application/xml", "nonsense"):
        check_refused(await post(images[0], kind), 415, "content_type")
    check_refused(await post(b"", "image/png"), 400, "no_image")
    check_refused(await post(b"garbage", "multipart/form-data; boundary=b"), 400, "bad_request")
    check_refused(await post(b"garbage", "multipart/form-data"), 400, "bad_request")
    check_refused(await post(b"--b--\r\n", "multipart/form-data; boundary=b"), 400, "no_image")
    message = check_refused(
        await server.client.post(PREDICT, data={"images": "text"}, files=parts(images[:1])),
        400,
        "bad_request",
    )
    assert "A part is not a file. With curl, write -F images=@FILE." in message
    for wrong in (
        b"{",
        b"[]",
        b'{"images": []}',
        b'{"images": [1]}',
        b'{"images": ["AAAA"], "top_k": 1}',
        b"[" * 100_000,
    ):
        check_refused(await post(wrong, "application/json"), 422, "invalid_value")
    for wrong in (b'{"images": ["A"]}', b'{"images": ["AAA!"]}', '{"images": ["é"]}'.encode()):
        check_refused(await post(wrong, "application/json"), 400, "bad_base64")


async def test_parameters_are_checked(
    serve: Serve, images: list[bytes], weights: Path, pretrained: Path
) -> None:
    server = await serve(f"trees={weights}", f"pre={pretrained}")
    for query in (
        {"top_k": 0},
        {"top_k": 1001},
        {"top_k": "many"},
        {"threshold": -0.1},
        {"threshold": 1.1},
        {"threshold": "nan"},
    ):
        message = check_refused(await server.predict(images[0], **query), 422, "invalid_value")
        assert message.startswith(f"query.{next(iter(query))}: ")
    check_refused(await server.predict(images[0], embedding="perhaps"), 422, "invalid_value")
    message = check_refused(await server.predict(images[0], treshold=0.9), 422, "invalid_value")
    assert message.startswith("query.treshold: There is no such parameter.")
    for query in (
        {"mask_ratio": 0},
        {"mask_ratio": 1},
        {"seed": -1},
        {"seed": 0.5},
        {"seed": 2**31 + 1},
        {"ratio": 0.5},
    ):
        response = await server.client.post(
            "/v1/models/pre/reconstruct", params=query, content=images[0]
        )
        check_refused(response, 422, "invalid_value")


async def test_a_full_queue_refuses_and_takes_again_when_it_has_room(
    serve: Serve, images: list[bytes], expected: Probs
) -> None:
    server = await serve(max_queue=3)
    with server.busy():
        waiting = [asyncio.create_task(server.predict(image)) for image in images[:2]]
        await server.waiting(2)
        check_refused(
            await server.client.post(PREDICT, files=parts(images[:2])), 429, "queue_full", 1
        )
        check_refused(
            await server.client.post(INFER, json=v2("BYTES", [2], [text(images[0])] * 2)),
            429,
            "queue_full",
            1,
        )
        waiting.append(asyncio.create_task(server.predict(images[2])))
        await server.waiting(3)
        check_refused(await server.predict(images[3]), 429, "queue_full", 1)
    for request, right in zip(waiting, expected, strict=False):
        check(await request, [right])
    check(await server.predict(images[3]), [expected[3]])


async def test_an_image_that_is_not_scored_within_the_deadline_is_refused(
    serve: Serve, images: list[bytes]
) -> None:
    server = await serve(deadline_s=0.2)
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: complaints.append(context)
    )
    with server.busy():
        check_refused(await server.predict(images[0]), 503, "deadline_exceeded", 1)
        pixels = v2("UINT8", [1, 64, 64, 3], [0] * 64 * 64 * 3)
        check_refused(await server.client.post(INFER, json=pixels), 503, "deadline_exceeded", 1)
    assert (await server.figures())["convnextv2_queue_images"] == 0
    assert (await server.predict(images[0])).status_code == 200
    gc.collect()
    assert not complaints


async def test_the_server_is_ready_when_it_is_warm_and_no_longer_when_it_ends(
    build: Callable[..., Any], images: list[bytes], expected: Probs
) -> None:
    server = build()
    client = server.client
    with server.busy():
        life = server.running()
        await life.__aenter__()
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        for path in ("/readyz", "/v2/health/ready", "/v2/models/trees/ready"):
            check_refused(await client.get(path), 503, "not_ready", 2)
        check_refused(await server.predict(images[0]), 503, "not_ready", 2)
        check_refused(
            await client.post(INFER, json=v2("BYTES", [1], [text(images[0])])), 503, "not_ready", 2
        )
    await server.ready()
    assert (await client.get("/readyz")).json() == {"status": "ready"}
    assert (
        (await client.get("/v2/health/ready")).json()
        == (await client.get("/v2/models/trees/ready")).json()
        == {"ready": True}
    )
    server.models.is_draining = True
    for path in ("/readyz", "/v2/health/ready", "/v2/models/trees/ready"):
        check_refused(await client.get(path), 503, "shutting_down", 2)
    late = await server.predict(images[0])
    check(late, expected[:1])
    assert late.headers["Connection"] == "close"
    await server.models.stop()
    check_refused(await server.predict(images[0]), 503, "not_ready", 2)
    await life.__aexit__(None, None, None)


async def test_what_was_accepted_is_answered_when_the_server_ends(
    build: Callable[..., Any], images: list[bytes], expected: Probs
) -> None:
    server = build(max_delay_ms=60_000, deadline_s=60)
    async with server.running():
        await server.ready()
        waiting = [asyncio.create_task(server.predict(image)) for image in images[:3]]
        await server.waiting(3)
        await asyncio.sleep(0.1)
        await server.models.stop()
        for request, right in zip(waiting, expected, strict=False):
            check(await request, [right])


@pytest.mark.parametrize("where", ["file name", "id"])
async def test_text_that_is_no_unicode_is_no_server_error(
    serve: Serve, images: list[bytes], where: str
) -> None:
    server = await serve()
    if where == "id":
        body = json.dumps(v2("BYTES", [1], [text(images[0])], id="\ud800")).encode()
        response = await server.client.post(
            INFER, content=body, headers={"Content-Type": "application/json"}
        )
    else:
        body = (
            b'--b\r\nContent-Disposition: form-data; name="a"; filename="+2AA-"\r\n\r\n'
            + images[0]
            + b"\r\n--b--\r\n"
        )
        headers = {"Content-Type": "multipart/form-data; boundary=b; charset=utf-7"}
        response = await server.client.post(PREDICT, content=body, headers=headers)
    assert response.status_code < 500
