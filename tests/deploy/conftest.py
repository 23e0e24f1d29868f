"""Weights and artifacts of a segmentor and of a detector, and photographs for them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from dense import detector, picture, save_dense, segmentor

from convnextv2 import export


@pytest.fixture(scope="session")
def dense_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("dense")
    return {
        "places": save_dense(segmentor(), root / "places"),
        "things": save_dense(detector(max_detections=375, proposals=400), root / "things"),
    }


@pytest.fixture(scope="session")
def exported_dense(
    dense_weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A function that exports one of the weights. Each artifact is made once."""
    made: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("artifacts")

    def make(name: str, format: str = "onnx", **options) -> Path:
        key = "-".join([name, format, *options])
        if key not in made:
            made[key] = export(
                dense_weights[name],
                format=format,
                out=root / key,
                images=3,
                workers=0,
                seconds=0.0,
                **options,
            )
        return made[key]

    return make


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("photos")
    return [picture(root / f"{i}.png", i, 130 - 40 * i, 90 + 30 * i) for i in range(3)]
