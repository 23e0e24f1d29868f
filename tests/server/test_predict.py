"""Predictions over HTTP: the forms of a request, what is asked for, and versions."""

import asyncio
import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answers import JPEG, PREDICT, Probs, Serve, check, check_refused, parts, probs, text, v2
from PIL import Image
from trees import CLASSES, network, save

from convnextv2.data.decode import decode
from convnextv2.inference.predictor import Predictor

pytestmark = pytest.mark.anyio


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
