import asyncio
import base64
import gc
import io
import json
import re
import shutil
import struct
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from trees import CLASSES, network, save

from convnextv2.data.decode import decode
from convnextv2.errors import RunError
from convnextv2.inference.predictor import Predictor
from convnextv2.server.spec import parse_specs

pytestmark = pytest.mark.anyio

PREDICT = "/v1/models/trees/predict"
INFER = "/v2/models/trees/infer"
JPEG = {"Content-Type": "image/jpeg"}
Serve = Callable[..., Awaitable[Any]]
Probs = list[dict[str, float]]


def check(response: httpx.Response, expected: Probs) -> list[dict[str, Any]]:
    """The answer's images, which are predicted as expected."""
    assert response.status_code == 200, response.text
    images = response.json()["images"]
    assert [probs(image) for image in images] == [pytest.approx(one, abs=1e-5) for one in expected]
    return images


def probs(image: dict[str, Any]) -> dict[str, float]:
    return {entry["class"]: entry["prob"] for entry in image["predictions"]}


def check_refused(
    response: httpx.Response, status: int, code: str, retry_after_s: int | None = None
) -> str:
    """The message."""
    assert response.status_code == status, response.text
    assert response.headers.get("Retry-After") == (
        None if retry_after_s is None else str(retry_after_s)
    )
    assert response.headers["X-Error-Code"] == code and response.json().keys() == {"error"}
    error = response.json()["error"]
    if str(response.request.url.path).startswith("/v2"):  # KServe's protocol: the message alone
        assert isinstance(error, str)
        return error
    assert error.keys() == {"code", "message"} and error["code"] == code
    return error["message"]


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def parts(images: list[bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("images", (f"{i}.jpg", image, "image/jpeg")) for i, image in enumerate(images)]


def v2(datatype: str, shape: list[int], data: list[Any], **more: Any) -> dict[str, Any]:
    name = "pixels" if datatype == "UINT8" else "image_files"
    return {"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]} | more


def bomb(side: int) -> bytes:
    """A PNG whose header promises a square of this side, and that ends there."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + b"\0\0\1\0IDAT"
    )


async def chunks(many: int, size: int = 400) -> AsyncIterator[bytes]:
    for _ in range(many):
        yield b"x" * size


# ---- predictions ----


async def test_raw_multipart_and_json_give_what_the_predictor_gives(
    serve: Serve, images: list[bytes], expected: Probs
) -> None:
    server = await serve()
    client, query = server.client, {"top_k": 4}
    for kind in (
        "image/jpeg",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "IMAGE/JPEG; q=1",
    ):
        raw = await client.post(
            PREDICT, params=query, content=images[0], headers={"Content-Type": kind}
        )
        check(raw, expected[:1])
    check(await client.post(PREDICT, params=query, content=images[0]), expected[:1])
    multipart = await client.post(PREDICT, params=query, files=parts(images))
    assert [image["image"] for image in check(multipart, expected)] == [
        f"{i}.jpg" for i in range(len(images))
    ]
    encoded = await client.post(
        PREDICT, params=query, json={"images": [text(image) for image in images]}
    )
    assert [image["image"] for image in check(encoded, expected)] == [
        f"image {i}" for i in range(len(images))
    ]


async def test_images_keep_their_order_over_several_batches(
    serve: Serve, images: list[bytes], expected: Probs
) -> None:
    server = await serve(max_batch=3)
    order = [5, 0, 9, 3, 3, 7, 1, 11, 2, 8]
    response = await server.client.post(
        PREDICT, params={"top_k": 4}, files=parts([images[i] for i in order])
    )
    check(response, [expected[i] for i in order])


async def test_classes_come_best_first_and_top_k_and_threshold_leave_some_out(
    serve: Serve, images: list[bytes], expected: Probs
) -> None:
    server = await serve()
    ranked = sorted(expected[0], key=lambda name: -expected[0][name])
    for query, names in (({}, ranked), ({"top_k": 2}, ranked[:2]), ({"top_k": 1000}, ranked)):
        response = await server.client.post(PREDICT, params=query, content=images[0])
        assert list(probs(response.json()["images"][0])) == names
    between = (expected[0][ranked[1]] + expected[0][ranked[2]]) / 2
    assert (
        list(probs((await server.predict(images[0], threshold=between)).json()["images"][0]))
        == ranked[:2]
    )
    assert (await server.predict(images[0], threshold=1)).json()["images"][0]["predictions"] == []


async def test_embedding_and_explanation_are_the_models_and_come_when_asked_for(
    serve: Serve, images: list[bytes], predictor: Predictor
) -> None:
    server = await serve()
    (_, scores), *_ = predictor.scores(images[0])
    (plain,) = (await server.predict(images[0])).json()["images"]
    assert plain.keys() == {"image", "predictions"}
    (image,) = (await server.predict(images[0], embedding=True, explanation=True)).json()["images"]
    np.testing.assert_allclose(image["embedding"], scores.embedding[0], atol=1e-5)
    np.testing.assert_allclose(image["explanation"]["map"], scores.explanation[0], atol=1e-5)
    height, width = decode(images[0], name="", max_pixels=10**6).shape[1:]
    assert image["explanation"]["seen"] == pytest.approx(
        predictor.scorer.transform.preprocessing.seen(height, width)
    )


async def test_versions_are_told_apart_and_the_newest_answers(
    serve: Serve, weights: Path, images: list[bytes], expected: Probs, tmp_path: Path
) -> None:
    other = save(network(seed=1), tmp_path / "other")
    predicted = [
        probs(one) for one in Predictor(other, device="cpu", precision="float32")(images[:1])
    ]
    server = await serve(f"trees@a={weights}", f"trees@b={other}")
    for path, version, right in (
        ("predict", "b", predicted),
        ("versions/a/predict", "a", expected[:1]),
    ):
        response = await server.client.post(
            f"/v1/models/trees/{path}", params={"top_k": 4}, content=images[0]
        )
        check(response, right)
        assert response.json()["version"] == version
        infer = path.replace("predict", "infer")
        answer = (
            await server.client.post(
                f"/v2/models/trees/{infer}", json=v2("BYTES", [1], [text(images[0])])
            )
        ).json()
        assert answer["model_version"] == version
        assert answer["outputs"][0]["data"] == pytest.approx(
            [right[0][name] for name in CLASSES], abs=1e-5
        )
    check_refused(
        await server.client.post("/v1/models/trees/versions/c/predict", content=images[0]),
        404,
        "no_such_version",
    )


async def test_an_artifact_is_served_as_what_it_was_made_from(
    serve: Serve, artifact: Path, images: list[bytes], expected: Probs
) -> None:
    server = await serve(f"trees={artifact}")
    response = await server.client.post(PREDICT, params={"top_k": 4}, files=parts(images))
    assert [probs(image) for image in response.json()["images"]] == [
        pytest.approx(one, abs=1e-4) for one in expected
    ]
    (version,) = (await server.client.get("/v1/models/trees")).json()["versions"]
    assert version["engine"] == "onnx, float32" and version["certificate"]["real"]["images"] > 0
    assert (
        version["class_names"] == CLASSES
        and version["image_size"] == [64, 64]
        and len(version["sha256"]) == 64
    )


async def test_a_pretrained_model_reconstructs_and_a_classifier_does_not(
    serve: Serve, weights: Path, pretrained: Path, images: list[bytes]
) -> None:
    server = await serve(f"trees={weights}", f"pre={pretrained}")
    assert (await server.client.get("/v1/models")).json() == {"models": ["trees", "pre"]}

    async def reconstruct(**query: Any) -> tuple[np.ndarray, np.ndarray]:
        response = await server.client.post(
            "/v1/models/pre/reconstruct", params=query, content=images[0]
        )
        found = response.raise_for_status().json()
        pictures = [
            Image.open(io.BytesIO(base64.b64decode(found[key])))
            for key in ("masked", "reconstruction")
        ]
        return tuple(np.asarray(picture).astype(int) for picture in pictures)  # type: ignore[return-value]

    (masked, made), (again, _), (other, _) = [
        await reconstruct(mask_ratio=0.5, seed=seed) for seed in (0, 0, 3)
    ]
    assert masked.shape == made.shape and (masked == again).all() and (masked != other).any()
    tiles = abs(masked - made).reshape(2, len(made) // 2, 2, len(made) // 2, 3).max((1, 3, 4))
    assert (tiles <= 1).sum() == 2  # what it sees stays as it is
    check_refused(
        await server.client.post("/v1/models/trees/reconstruct", content=images[0]),
        404,
        "not_pretrained",
    )
    check_refused(
        await server.client.post("/v1/models/pre/reconstruct", files=parts(images[:2])),
        400,
        "bad_request",
    )
    check_refused(
        await server.client.post("/v1/models/pre/reconstruct", content=b"no image", headers=JPEG),
        415,
        "not_an_image",
    )
    check_refused(await server.predict(images[0], "pre"), 404, "not_a_classifier")
    for given in (
        v2("BYTES", [1], [base64.b64encode(images[0]).decode()]),
        v2("UINT8", [1, 1, 1, 3], [0, 0, 0]),
    ):
        check_refused(
            await server.client.post("/v2/models/pre/infer", json=given), 404, "not_a_classifier"
        )
    check_refused(await server.client.get("/v2/models/pre"), 404, "not_a_classifier")
    assert (await server.figures())["convnextv2_queue_images"] == 0


# ---- dynamic batching ----


async def test_concurrent_requests_are_scored_together_and_each_gets_its_own(
    serve: Serve, images: list[bytes], expected: Probs
) -> None:
    server = await serve(max_batch=len(images), max_delay_ms=5000)
    answers = await asyncio.gather(*map(server.predict, images))
    for response, right in zip(answers, expected, strict=True):
        check(response, [right])
    figures = await server.figures()
    assert figures['convnextv2_batch_images_count{model="trees"}'] == 1
    assert figures['convnextv2_batch_images_sum{model="trees"}'] == len(images)
    assert figures['convnextv2_batch_images_bucket{le="8.0",model="trees"}'] == 0
    assert figures['convnextv2_batch_images_bucket{le="16.0",model="trees"}'] == 1


async def test_no_batch_is_larger_than_it_may_be(
    serve: Serve, images: list[bytes], expected: Probs
) -> None:
    server = await serve(max_batch=4)
    with server.busy():
        requests = [asyncio.create_task(server.predict(image)) for image in images]
        await server.waiting(len(images))
        await asyncio.sleep(0.05)
    for request, right in zip(requests, expected, strict=True):
        check(await request, [right])
    figures = await server.figures()
    assert figures['convnextv2_batch_images_bucket{le="4.0",model="trees"}'] >= 3
    assert (
        figures['convnextv2_batch_images_bucket{le="4.0",model="trees"}']
        == figures['convnextv2_batch_images_count{model="trees"}']
    )


# ---- refusals ----


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
    check_refused(await server.client.get("/v3"), 404, "no_such_path")
    check_refused(await server.client.get("/page/../app.py"), 404, "no_such_path")
    check_refused(await server.client.get(PREDICT), 405, "method_not_allowed")


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
    check_refused(
        await server.client.post(PREDICT, data={"images": "text"}, files=parts(images[:1])),
        400,
        "bad_request",
    )
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
    for query in (
        {"mask_ratio": 0},
        {"mask_ratio": 1},
        {"seed": -1},
        {"seed": 0.5},
        {"seed": 2**31 + 1},
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


# ---- metrics ----


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


# ---- KServe's protocol ----


async def test_kserve_takes_files_and_pixels_and_says_what_they_are(
    serve: Serve, images: list[bytes], expected: Probs, predictor: Predictor
) -> None:
    server = await serve()
    told = (await server.client.get("/v2/models/trees")).json()
    assert told["name"] == "trees" and told["versions"] == ["1"] and "PyTorch" in told["platform"]
    assert [(one["name"], one["datatype"], one["shape"]) for one in told["inputs"]] == [
        ("image_files", "BYTES", [-1]),
        ("pixels", "UINT8", [-1, 64, 64, 3]),
    ]
    assert told["outputs"][0] == {"name": "probs", "datatype": "FP32", "shape": [-1, 4]}
    assert (await server.client.get("/v2")).json()["name"] == "convnextv2"
    transform = predictor.scorer.transform
    pixels = torch.stack(
        [transform(decode(image, name="", max_pixels=10**6)) for image in images]
    ).permute(0, 2, 3, 1)
    flat, nested = pixels.flatten().tolist(), pixels.tolist()
    for given in (
        v2("BYTES", [len(images)], [text(image) for image in images], id="seven"),
        v2("UINT8", list(pixels.shape), flat, id="seven"),
        v2("UINT8", list(pixels.shape), nested, id="seven"),
    ):
        answer = (await server.client.post(INFER, json=given)).raise_for_status().json()
        assert (answer["id"], answer["model_name"], answer["model_version"]) == (
            "seven",
            "trees",
            "1",
        )
        found, embedding = answer["outputs"]
        assert (found["name"], found["shape"], embedding["shape"]) == (
            "probs",
            [len(images), 4],
            [len(images), 48],
        )
        assert found["data"] == pytest.approx(
            [one[name] for one in expected for name in CLASSES], abs=1e-5
        )
        (_, scores), *_ = predictor.scores(images[0])
        np.testing.assert_allclose(embedding["data"][:48], scores.embedding[0], atol=1e-5)


async def test_kserve_refuses_what_does_not_fit(serve: Serve, images: list[bytes]) -> None:
    server = await serve()
    size, right = [1, 64, 64, 3], [7] * 64 * 64 * 3
    for shape in ([1, 64, 64], [0, 64, 64, 3], [-1, 64, 64, 3], [1, 3, 64, 64], [1, 64, 64, 1]):
        check_refused(
            await server.client.post(INFER, json=v2("UINT8", shape, right)), 400, "bad_shape"
        )
    for data in (
        right[1:],
        [*right, 7],
        [256, *right[1:]],
        [-1, *right[1:]],
        ["a"],
        [None],
        [2**70],
        [[1], [2, 3]],
        [{}],
    ):
        check_refused(
            await server.client.post(INFER, json=v2("UINT8", size, data)), 400, "bad_data"
        )
    check_refused(await server.client.post(INFER, json=v2("BYTES", [1], ["!"])), 400, "bad_base64")
    check_refused(await server.client.post(INFER, json=v2("BYTES", [0], [])), 400, "no_image")
    check_refused(
        await server.client.post(INFER, json=v2("BYTES", [1], [text(b"no image")])),
        415,
        "not_an_image",
    )
    two = v2("BYTES", [1], [text(images[0])])["inputs"] * 2
    unknown = v2("BYTES", [1], [text(images[0])], outputs=[{"name": "logits"}])
    for wrong in (
        v2("FP32", size, right),
        {"inputs": []},
        {"inputs": two},
        {},
        [],
        v2("BYTES", [], []),
        unknown,
    ):
        check_refused(await server.client.post(INFER, json=wrong), 422, "invalid_value")
    mixed = v2("UINT8", size, right)
    mixed["inputs"][0]["name"] = "image_files"
    check_refused(await server.client.post(INFER, json=mixed), 400, "bad_datatype")
    check_refused(await server.client.post(INFER, content=b"{}", headers=JPEG), 415, "content_type")


async def test_kserve_refuses_pixels_that_are_no_whole_numbers(serve: Serve) -> None:
    server = await serve()
    response = await server.client.post(
        INFER, json=v2("UINT8", [1, 64, 64, 3], [1.5] * 64 * 64 * 3)
    )
    check_refused(response, 400, "bad_data")


async def test_kserve_returns_the_outputs_that_are_asked_for(
    serve: Serve, images: list[bytes]
) -> None:
    server = await serve()
    for names in (["probs"], ["embedding"], ["embedding", "probs"], []):
        asked = v2("BYTES", [1], [text(images[0])], outputs=[{"name": name} for name in names])
        outputs = (await server.client.post(INFER, json=asked)).raise_for_status().json()["outputs"]
        assert {output["name"] for output in outputs} == set(names or ["probs", "embedding"])


async def test_kserve_describes_each_version(serve: Serve, weights: Path, tmp_path: Path) -> None:
    server = await serve(f"trees@1={weights}", f"trees@2={save(network(seed=1), tmp_path)}")
    for path in ("/v2/models/trees", "/v2/models/trees/versions/1"):
        told = (await server.client.get(path)).raise_for_status().json()
        assert told["versions"] == ["1", "2"]
    assert (await server.client.get("/v2/models/trees/versions/2/ready")).json() == {"ready": True}
    for path in ("/v2/models/trees/versions/3", "/v2/models/trees/versions/3/ready"):
        check_refused(await server.client.get(path), 404, "no_such_version")


# ---- costly bodies ----


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


# ---- clients that leave ----


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


# ---- reload ----


async def test_reloading_takes_what_has_changed_and_keeps_what_is_broken(
    serve: Serve, images: list[bytes], expected: Probs, tmp_path: Path
) -> None:
    sources = [save(network(), tmp_path / name) for name in ("trees", "other")]
    server = await serve(*(f"{source.parent.name}={source}" for source in sources))
    assert await server.reload() == []
    save(network(seed=1), tmp_path / "trees")
    (tmp_path / "other" / "model.safetensors").write_bytes(b"broken")
    after = [
        probs(one) for one in Predictor(sources[0], device="cpu", precision="float32")(images[:1])
    ]
    with server.busy():
        old = asyncio.create_task(server.predict(images[0]))
        await server.waiting(1)
        reloading = asyncio.create_task(server.reload())
        await asyncio.sleep(0.1)
        assert not old.done()
    check(await old, expected[:1])
    assert (await old).json()["version"] == "1"
    lines = await reloading
    assert lines[0].startswith("trees@2: PyTorch on cpu") and lines[1].startswith(
        "other@1: stays as it was: "
    )
    new = await server.predict(images[0])
    check(new, after)
    assert new.json()["version"] == "2"
    check(await server.predict(images[0], "other"), expected[:1])
    told = [name for name in await server.figures() if name.startswith("convnextv2_model_info")]
    assert sorted(re.search(r'model="(\w+)",.*version="(\d)"', name).groups() for name in told) == [
        ("other", "1"),
        ("trees", "2"),
    ]


async def test_a_request_that_is_still_being_sent_keeps_its_version(
    serve: Serve, images: list[bytes], expected: Probs, tmp_path: Path
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield images[0][:100]
        begun.set()
        await go_on.wait()
        yield images[0][100:]

    begun, go_on = asyncio.Event(), asyncio.Event()
    server = await serve(f"trees={save(network(), tmp_path / 'trees')}", deadline_s=2)
    slow = asyncio.create_task(server.client.post(PREDICT, params={"top_k": 4}, content=body()))
    await begun.wait()
    save(network(seed=1), tmp_path / "trees")
    reloading = asyncio.create_task(server.reload())
    async with asyncio.timeout(10):
        while (await server.predict(images[0])).json()["version"] == "1":
            await asyncio.sleep(0.01)
    go_on.set()
    check(await slow, expected[:1])
    assert (await slow).json()["version"] == "1" and len(await reloading) == 1


async def test_a_version_that_was_named_keeps_its_name_when_it_is_reloaded(
    serve: Serve, weights: Path, images: list[bytes], tmp_path: Path
) -> None:
    source = save(network(seed=2), tmp_path / "first")
    server = await serve(f"trees@1={source}", f"trees@2={weights}")
    old = server.models.find("trees", "1").sha256
    save(network(seed=1), tmp_path / "first")
    assert "trees@1: PyTorch on cpu" in (await server.reload())[0]
    versions = (await server.client.get("/v1/models/trees")).json()["versions"]
    assert [version["version"] for version in versions] == ["1", "2"] and versions[0][
        "sha256"
    ] != old
    assert (await server.predict(images[0])).json()["version"] == "2"
    told = [name for name in await server.figures() if name.startswith("convnextv2_model_info")]
    assert len(told) == 2 and not any(old in name for name in told)


async def test_new_versions_of_a_repository_are_found_and_old_ones_go(
    serve: Serve, images: list[bytes], tmp_path: Path
) -> None:
    root = tmp_path / "trees"
    for number in ("2", "10"):
        save(network(seed=int(number)), root / number)
    server = await serve(str(root))

    async def versions() -> list[str]:
        return [
            version["version"]
            for version in (await server.client.get("/v1/models/trees")).json()["versions"]
        ]

    assert await versions() == ["2", "10"]
    save(network(seed=9), root / "9")
    save(network(seed=11), root / "11")
    (root / "12").mkdir()  # still being copied
    lines = await server.reload()
    assert [line.split(":")[0] for line in lines] == [
        "trees@9",
        "trees@11",
        "trees@12",
    ] and "is not served" in lines[2]
    assert await versions() == ["2", "9", "10", "11"]
    assert (await server.predict(images[0])).json()["version"] == "11"
    shutil.rmtree(root / "11")
    shutil.rmtree(root / "12")
    assert await server.reload() == ["trees@11: is gone"]
    assert (await server.predict(images[0])).json()["version"] == "10"
    for number in (2, 9, 10):
        shutil.rmtree(root / str(number))
    (root / "13").mkdir()  # still being copied
    lines = await server.reload()
    assert "is not served" in lines[0] and lines[1:] == ["trees@2: is gone", "trees@9: is gone"]
    assert (await server.predict(images[0])).json()[
        "version"
    ] == "10"  # better an old one than none
    shutil.rmtree(root)
    assert (await server.reload())[0].startswith("All stays as it was: ")
    assert (await server.predict(images[0])).status_code == 200


async def test_reloads_at_the_same_time_open_a_model_once(serve: Serve, tmp_path: Path) -> None:
    source = save(network(), tmp_path / "trees")
    server = await serve(f"trees={source}")
    save(network(seed=1), tmp_path / "trees")
    lines = await asyncio.gather(server.reload(), server.reload())
    assert sorted(map(len, lines)) == [0, 1]


def test_models_get_the_names_that_they_are_given(weights: Path, tmp_path: Path) -> None:
    for version in ("10", "9", "notes"):
        (tmp_path / "shoes & co" / version).mkdir(parents=True)
    (tmp_path / "a=b").mkdir()
    specs = parse_specs(
        [
            f"a.b-c@v1={weights}",
            f"plain={weights}",
            str(tmp_path / "shoes & co"),
            str(tmp_path / "a=b"),
        ]
    )
    assert [(spec.name, spec.version) for spec in specs] == [
        ("a.b-c", "v1"),
        ("plain", ""),
        ("shoes-co", "9"),
        ("shoes-co", "10"),
        ("a-b", ""),
    ]
    with pytest.raises(RunError, match="nowhere: no such file or folder"):
        parse_specs(["x=nowhere"])


def test_a_version_cannot_be_named_twice(build: Callable[..., Any], weights: Path) -> None:
    with pytest.raises(RunError, match="trees@1: named twice"):
        build(f"trees={weights}", f"trees@1={weights}")


# ---- browsers ----


async def test_other_origins_may_call_only_where_that_is_allowed(
    serve: Serve, images: list[bytes]
) -> None:
    origin = {"Origin": "https://shop.example"}
    preflight = origin | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key",
    }
    closed, opened = (
        await serve(),
        await serve(cors_origins=("https://shop.example",), api_key="secret"),
    )
    assert (await closed.client.options(PREDICT, headers=preflight)).status_code == 405
    assert (
        "access-control-allow-origin"
        not in (await closed.client.get("/healthz", headers=origin)).headers
    )
    asked = await opened.client.options(PREDICT, headers=preflight)
    assert asked.status_code == 200 and asked.headers["access-control-allow-headers"] == "x-api-key"
    for headers, status in (
        (origin, 401),
        (origin | {"X-API-Key": "secret"}, 200),
    ):  # pages may read refusals, too
        response = await opened.client.post(PREDICT, content=images[0], headers=headers)
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == "https://shop.example"
    other = await opened.client.get("/healthz", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


async def test_the_page_and_its_files_are_served_and_load_nothing_from_elsewhere(
    serve: Serve,
) -> None:
    server = await serve()
    page = await server.client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    links = re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text)
    assert {"/page/app.js", "/page/style.css"} <= {
        link if link.startswith("/") else f"/{link}" for link in links
    }
    for path, kind in (
        ("/page/app.js", "javascript"),
        ("/page/style.css", "text/css"),
        ("/", "text/html"),
    ):
        file = await server.client.get(path)
        assert file.status_code == 200 and kind in file.headers["content-type"]
        policy = dict(
            part.strip().split(" ", 1)
            for part in file.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
        assert (
            "unsafe" not in file.headers["content-security-policy"]
            and "http" not in file.headers["content-security-policy"]
        )
        assert (
            file.headers["x-content-type-options"] == "nosniff"
            and file.headers["cache-control"] == "no-cache"
        )
    assert not re.search(
        r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", page.text
    )  # the policy would block it
    assert "content-security-policy" in (await server.client.get("/nowhere")).headers
