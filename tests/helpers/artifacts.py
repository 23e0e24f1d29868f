"""Fixtures of artifacts, inference and the server: weights, pictures, and artifacts of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from trees import CLASSES, network, photograph, save

from convnextv2 import export


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data_dir with a validation split: six photographs of each class, as JPEG."""
    root = tmp_path_factory.mktemp("pictures")
    for split, first, many in (("train", 0, 1), ("val", 100, 6)):
        for number, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(many):
                Image.fromarray(photograph(first + 10 * number + i)).save(
                    root / split / name / f"{i}.jpg", quality=92
                )
    return root


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(network(), tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def exported(
    weights: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """exported(format, **options): an artifact of these weights, made once."""
    made: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("artifacts")

    def make(format: str, **options) -> Path:
        key = "-".join(map(str, [format, *sum(sorted(options.items()), ())])).replace("/", "_")
        if key not in made:
            made[key] = export(
                weights,
                format=format,
                data_dir=str(pictures),
                out=root / key,
                workers=0,
                batch_size=4,
                seconds=0.1,
                **options,
            )
        return made[key]

    return make
