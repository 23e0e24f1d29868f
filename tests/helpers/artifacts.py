"""Fixtures for the tests of artifacts, inference and the server."""

import os
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image
from trees import CLASSES, network, photograph, save

from convnextv2 import export
from convnextv2.verbs.options.weights import ExportOptions


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `data_dir` with one training and six validation photographs of each class, as JPEG."""
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
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of pytest-xdist have in common."""
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    root.mkdir(exist_ok=True)
    return root


@pytest.fixture(scope="session")
def weights(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of a small classifier: the same bytes in every process."""
    with FileLock(shared / "weights.lock"):
        if not (shared / "weights").exists():
            save(network(), shared / "making")
            (shared / "making").rename(shared / "weights")
    folder = shutil.copytree(shared / "weights", tmp_path_factory.mktemp("weights") / "own")
    return folder / "model.safetensors"


@pytest.fixture(scope="session")
def exported(weights: Path, pictures: Path, shared: Path) -> Callable[..., Path]:
    """A function that exports the weights and returns the artifact.

    It is called as `exported(format, **options)`. Each artifact is made once, for all processes,
    whether an option is left out or given as it is by default.
    """
    defaults = {field.name: field.default for field in fields(ExportOptions)}

    def make(format: str, **options) -> Path:
        options = {name: value for name, value in options.items() if value != defaults[name]}
        key = "-".join(map(str, [format, *sum(sorted(options.items()), ())])).replace("/", "_")
        with FileLock(shared / f"{key}.lock"):
            if not (shared / key).exists():
                export(
                    weights,
                    format=format,
                    data_dir=str(pictures),
                    out=shared / key,
                    workers=0,
                    batch_size=4,
                    seconds=0.1,
                    **options,
                )
        return shared / key

    return make
