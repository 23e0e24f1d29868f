"""KServe's protocol in plain JSON: metadata, predictions and refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from answers import INFER, JPEG, Probs, Serve, check_refused, text, v2
from trees import CLASSES, network, save

from convnextv2.data.decode import decode
from convnextv2.inference.predictor import Predictor

pytestmark = pytest.mark.anyio


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
