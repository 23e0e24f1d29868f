"""A model that gives an image any number of labels, behind the server."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import Serve, parts, text, v2
from trees import CLASSES, network, save

from convnextv2.inference.predictor import Predictor
from convnextv2.server.client import _read_answer

pytestmark = pytest.mark.anyio

PREDICT = "/v1/models/labels/predict"


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of four labels, of which an image of the tests has from none to all."""
    folder = tmp_path_factory.mktemp("several")
    return save(network(), folder, kind="multi_label", thresholds=[0.5, 0.45, 0.52, 0.3])


@pytest.fixture(scope="module")
def expected(several: Path, images: list[bytes]) -> list[dict[str, Any]]:
    predictor = Predictor(several, device="cpu", precision="float32", batch_size=1)
    found = predictor(images)
    assert len({len(image["labels"]) for image in found}) > 1
    return found


def check(image: dict[str, Any], expected: dict[str, Any]) -> None:
    assert image.keys() == {"image", "labels", "scores"}
    assert image["scores"] == pytest.approx(expected["scores"], abs=1e-5)
    assert [(one["name"], one["threshold"]) for one in image["labels"]] == [
        (one["name"], one["threshold"]) for one in expected["labels"]
    ]


async def test_the_server_answers_with_the_labels_of_the_predictor(
    serve: Serve, several: Path, images: list[bytes], expected: list[dict[str, Any]]
) -> None:
    server = await serve(f"labels={several}")
    response = await server.client.post(PREDICT, files=parts(images))
    assert response.status_code == 200, response.text
    for image, one in zip(response.json()["images"], expected, strict=True):
        check(image, one)
        assert _read_answer(image) == {name: image[name] for name in ("labels", "scores")}
    one = await server.client.post(PREDICT, content=images[0], params={"top_k": 1})
    check(one.json()["images"][0], expected[0])  # top_k is about classes, not about labels


async def test_a_threshold_replaces_those_of_the_model_and_no_label_is_an_answer(
    serve: Serve, several: Path, images: list[bytes], expected: list[dict[str, Any]]
) -> None:
    server = await serve(f"labels={several}")
    none = await server.client.post(PREDICT, content=images[0], params={"threshold": 1})
    assert none.status_code == 200 and none.json()["images"][0]["labels"] == []
    every = await server.client.post(PREDICT, content=images[0], params={"threshold": 0})
    found = every.json()["images"][0]["labels"]
    assert {one["name"] for one in found} == set(CLASSES)
    assert {one["threshold"] for one in found} == {0}


async def test_the_model_is_described_with_its_thresholds(serve: Serve, several: Path) -> None:
    server = await serve(f"labels={several}")
    (version,) = (await server.client.get("/v1/models/labels")).json()["versions"]
    assert version["kind"] == "multi_label" and version["class_names"] == CLASSES
    assert version["thresholds"] == [0.5, 0.45, 0.52, 0.3]


async def test_kserve_returns_a_probability_for_each_label(
    serve: Serve, several: Path, images: list[bytes], expected: list[dict[str, Any]]
) -> None:
    server = await serve(f"labels={several}")
    response = await server.client.post(
        "/v2/models/labels/infer", json=v2("BYTES", [2], [text(image) for image in images[:2]])
    )
    assert response.status_code == 200, response.text
    probs = next(o for o in response.json()["outputs"] if o["name"] == "probs")
    values = [score for image in expected[:2] for score in image["scores"].values()]
    assert probs["shape"] == [2, 4] and probs["data"] == pytest.approx(values, abs=1e-5)
    assert abs(sum(values[:4]) - 1) > 0.05  # no softmax


async def test_the_explanation_is_that_of_the_label_furthest_above_its_threshold(
    serve: Serve, images: list[bytes], tmp_path: Path
) -> None:
    model = network()
    limits = [0.999, 0.999, 0.999, 0.001]  # the last one, whatever its probability
    save(model, tmp_path / "last", kind="multi_label", thresholds=limits)
    with torch.no_grad():
        for parameter in (model.head.weight, model.head.bias):
            parameter[:3] = parameter[3]
    save(model, tmp_path / "only", kind="multi_label")  # every row is the last one
    server = await serve(f"last={tmp_path / 'last'}", f"only={tmp_path / 'only'}")
    maps = []
    for name in ("last", "only"):
        address, query = f"/v1/models/{name}/predict", {"explanation": True}
        response = await server.client.post(address, content=images[0], params=query)
        maps.append(torch.tensor(response.json()["images"][0]["explanation"]["map"]))
    torch.testing.assert_close(*maps, atol=1e-5, rtol=1e-5)


async def test_the_answer_fits_its_schema(serve: Serve, several: Path, images: list[bytes]) -> None:
    server = await serve(f"labels={several}")
    spec = (await server.client.get("/openapi.json")).json()
    names = spec["components"]["schemas"]["ImagePrediction"]["properties"]
    image = (await server.client.post(PREDICT, content=images[0])).json()["images"][0]
    assert image.keys() <= names.keys()
    assert json.dumps(image)
