"""Data sets that are named: the bundled one, those of torchvision, and damaged files of both."""

import gzip
import os
import struct
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from convnextv2.data import named_sets
from convnextv2.data.sources import find_sources
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe


def test_bundled_images_are_balanced_and_need_no_disk_of_yours() -> None:
    training, validation = find_sources(Recipe(dataset="bundled"), labelled=True)
    assert (len(training), len(validation)) == (4000, 1000)
    assert (
        np.bincount(training.targets).tolist() == [400] * 10
        and np.bincount(validation.targets).tolist() == [100] * 10
    )
    assert training.class_names[9] == "Ankle boot" and training.pixels(0, 1).shape == (1, 28, 28)
    assert training.pixels(5).unique().tolist() == training.pixels(5, 1).unique().tolist()


def test_debians_fashion_mnist_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)
    for prefix in ("train", "t10k"):
        for kind, array in (
            ("images-idx3", pixels),
            ("labels-idx1", np.array([0, 9, 4], dtype=np.uint8)),
        ):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (tmp_path / f"{prefix}-{kind}-ubyte.gz").write_bytes(
                gzip.compress(header + array.tobytes())
            )
    monkeypatch.setattr(named_sets, "DEBIAN_FASHION_MNIST", tmp_path)
    training, _ = find_sources(Recipe(dataset="fashion_mnist"), labelled=True)
    assert training.targets.tolist() == [0, 9, 4]
    assert (training.pixels(1, 1)[0].numpy() == pixels[1]).all()


def test_a_named_set_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dataset_download"):
        find_sources(Recipe(dataset="cifar10", data_dir=str(tmp_path)), labelled=True)


@pytest.mark.parametrize("length", [0, 3, 10, 1_000])
def test_a_named_set_whose_file_was_cut_says_so(length: int, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        images = struct.pack(">HBBIII", 0, 8, 3, 5, 28, 28) + bytes(5 * 28 * 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 5) + bytes(5))
    recipe = Recipe(dataset="mnist", data_dir=str(tmp_path), in_channels=1)
    assert len(named_sets.load_named(recipe)[0].pixels) == 5
    (raw / "t10k-images-idx3-ubyte").write_bytes(images[:length])
    with pytest.raises(DataError, match=r"dataset = mnist: one of its files in .* is damaged"):
        named_sets.load_named(recipe)


@pytest.mark.parametrize("length", [0, 3, 100])
def test_a_set_of_the_system_whose_file_was_cut_says_so(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named_sets, "DEBIAN_FASHION_MNIST", tmp_path)
    whole = gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 5, 28, 28) + os.urandom(5 * 28 * 28))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(whole[:length])
    with pytest.raises(DataError, match="dataset = fashion_mnist: a file in .* cannot be read"):
        named_sets.load_named(Recipe(dataset="fashion_mnist"))


def test_without_a_home_a_named_set_asks_for_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("no home")))
    with pytest.raises(DataError, match="no home folder. Set data_dir"):
        named_sets.load_named(Recipe(dataset="cifar10"))
