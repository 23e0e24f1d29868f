"""A classifier that says "unknown", behind the server."""

from pathlib import Path
from typing import Any

import pytest
from answers import Serve, parts
from trees import CLASSES, network, save

from convnextv2 import validate
from convnextv2.inference.predictor import Predictor
from convnextv2.server.client import _read_answer

pytestmark = pytest.mark.anyio

PREDICT = "/v1/models/careful/predict"


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """Weights with a coverage that was fitted on the 24 validation photographs."""
    folder = tmp_path_factory.mktemp("careful")
    weights = save(network(), folder)
    validate(weights, data_dir=pictures, coverage=0.5, workers=0)
    return weights


@pytest.fixture(scope="module")
def expected(careful: Path, images: list[bytes]) -> list[dict[str, Any]]:
    return Predictor(careful, device="cpu", precision="float32", batch_size=1)(images)


async def test_the_server_says_what_the_predictor_says(
    serve: Serve, careful: Path, images: list[bytes], expected: list[dict[str, Any]]
) -> None:
    server = await serve(f"careful={careful}")
    response = await server.client.post(PREDICT, files=parts(images))
    assert response.status_code == 200, response.text
    for image, one in zip(response.json()["images"], expected, strict=True):
        assert image["possible"] == one["possible"] and image["foreign"] == one["foreign"]
        assert image["foreignness"] == pytest.approx(one["foreignness"], abs=1e-3)
        assert _read_answer(image) == {name: image[name] for name in image if name != "image"}
    told = (await server.client.get("/v1/models/careful")).json()["versions"][-1]
    assert told["coverage"] == 0.5


async def test_the_metrics_show_the_drift_of_both(
    serve: Serve, careful: Path, images: list[bytes], expected: list[dict[str, Any]]
) -> None:
    server = await serve(f"careful={careful}")
    await server.client.post(PREDICT, files=parts(images))
    lines = dict(
        line.rsplit(" ", 1) for line in (await server.client.get("/metrics")).text.splitlines()
    )
    label = '{model="careful"}'
    assert float(lines[f"convnextv2_possible_classes_count{label}"]) == len(images)
    possible = sum(len(one["possible"]) for one in expected)
    assert float(lines[f"convnextv2_possible_classes_sum{label}"]) == possible
    foreign = sum(one["foreign"] for one in expected)
    assert float(lines[f"convnextv2_foreign_images_total{label}"]) == foreign


async def test_a_model_without_a_coverage_answers_as_before(
    serve: Serve, tmp_path: Path, images: list[bytes]
) -> None:
    server = await serve(f"plain={save(network(), tmp_path)}")
    [image] = (await server.client.post("/v1/models/plain/predict", content=images[0])).json()[
        "images"
    ]
    assert image.keys() == {"image", "predictions"} and len(image["predictions"]) == len(CLASSES)
    assert (await server.client.get("/v1/models/plain")).json()["versions"][-1]["coverage"] is None
    assert "convnextv2_possible_classes_count" not in (await server.client.get("/metrics")).text
