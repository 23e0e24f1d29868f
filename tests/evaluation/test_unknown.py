"""The "unknown" answer: what it says, what it needs, and its file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from convnextv2.errors import CheckpointError, DataError
from convnextv2.evaluation.unknown import (
    Unknown,
    fingerprints,
    fit_unknown,
    load_unknown,
    path_beside,
    save_unknown,
)
from convnextv2.weights.safetensors import read_tensors, write_tensors

HASH = "ab" * 32


def fitted(count: int = 200, *, seed: int = 0, coverage: float = 0.9) -> Unknown:
    draw = np.random.default_rng(seed)
    return fit_unknown(
        draw.random(count).astype(np.float32),
        draw.normal(size=(count, 78)).astype(np.float32),
        draw.normal(1, 2, size=(count, 78)).astype(np.float32),
        draw.integers(0, 4, count),
        np.arange(count),
        coverage=coverage,
        sha256=HASH,
        images_from="made",
    )


def test_it_names_the_classes_that_are_as_probable_as_right_ones() -> None:
    unknown = fitted()
    least = unknown.about.least_probability
    probs = np.array([[0.9, least, 0.01, 0], [0.05, 0.04, 0.03, 0.02]], np.float32)
    assert unknown.possible(probs).tolist() == [[True, True, False, False], [False] * 4]


def test_what_is_far_from_known_images_is_foreign() -> None:
    unknown, draw = fitted(500), np.random.default_rng(5)
    near = unknown.foreignness(draw.normal(size=(2000, 78)).astype(np.float32))
    far = unknown.foreignness(draw.normal(4, 1, size=(200, 78)).astype(np.float32))
    assert 0.03 < (near > 1).mean() < 0.07 and (far > 1).all()


def test_the_fit_does_not_depend_on_the_order() -> None:
    draw = np.random.default_rng(1)
    probs = draw.random(50).astype(np.float32)
    rows, parts = draw.normal(size=(2, 50, 3)).astype(np.float32)
    targets, hashes = draw.integers(0, 3, 50), draw.permutation(50)
    shuffled = draw.permutation(50)
    one, other = (
        fit_unknown(*(each[chosen] for each in (probs, rows, parts, targets, hashes)), coverage=0.8,
                    sha256=HASH, images_from="made")
        for chosen in (np.arange(50), shuffled)
    )  # fmt: skip
    assert one.about == other.about
    np.testing.assert_array_equal(one.foreign.known_precision, other.foreign.known_precision)


@pytest.mark.parametrize(
    ("count", "coverage", "needed"), [(8, 0.9, 9), (98, 0.99, 99), (1, 0.3, 2)]
)
def test_too_few_images_are_one_line_with_the_number(
    count: int, coverage: float, needed: int
) -> None:
    with pytest.raises(DataError, match=f"needs at least {needed} .* there are {count} ") as error:
        fitted(count, coverage=coverage)
    assert "\n" not in str(error.value)
    assert fitted(needed, coverage=coverage).about.images == needed


def test_a_model_that_returns_nan_is_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        fit_unknown(
            np.full(20, np.nan, np.float32), np.zeros((20, 3), np.float32),
            np.zeros((20, 3), np.float32), np.zeros(20, np.int64), np.arange(20),
            coverage=0.9, sha256=HASH, images_from="made",
        )  # fmt: skip


def test_the_file_gives_back_the_same(tmp_path: Path) -> None:
    unknown, path = fitted(), tmp_path / "unknown.safetensors"
    save_unknown(path, unknown)
    found = load_unknown(path)
    assert found.about == unknown.about and found.seen(np.array([3, 999])).tolist() == [True, False]
    rows = np.random.default_rng(2).normal(size=(9, 78)).astype(np.float32)
    np.testing.assert_array_equal(found.foreignness(rows), unknown.foreignness(rows))


def test_damaged_and_hostile_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "unknown.safetensors"
    save_unknown(path, fitted())
    tensors, metadata = read_tensors(path)
    about = json.loads(metadata["unknown"])
    bad = [
        (tensors, {}),
        (tensors, {"unknown": json.dumps(about | {"coverage": 2})}),
        (tensors, {"unknown": json.dumps(about | {"more": 1})}),
        ({"centre": tensors["centre"]}, {"unknown": json.dumps(about)}),
        (tensors | {"part": torch.zeros(0)}, {"unknown": json.dumps(about)}),
        (tensors | {"spread": torch.zeros(2)}, {"unknown": json.dumps(about)}),
        (tensors | {"fitted": torch.zeros(3)}, {"unknown": json.dumps(about)}),
        (tensors | {"part": torch.full((78,), torch.nan)}, {"unknown": json.dumps(about)}),
    ]
    for content, told in bad:
        write_tensors(path, content, told)
        with pytest.raises(CheckpointError, match="unknown.safetensors.*Delete it") as error:
            load_unknown(path)
        assert "\n" not in str(error.value)
    path.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="damaged.*Delete it"):
        load_unknown(path)


def test_fingerprints_tell_images_apart_whatever_their_place() -> None:
    pixels = torch.randint(0, 256, (5, 3, 8, 9), dtype=torch.uint8)
    hashes = fingerprints(pixels)
    assert len(set(hashes.tolist())) == 5
    channels_last = pixels.contiguous(memory_format=torch.channels_last)
    assert fingerprints(channels_last[[3, 0]]).tolist() == hashes[[3, 0]].tolist()


def test_weights_of_any_name_have_a_place_for_it(tmp_path: Path) -> None:
    assert path_beside(tmp_path / "model.safetensors") == tmp_path / "unknown.safetensors"
    assert path_beside(tmp_path / "a.pth") == tmp_path / "a.unknown.safetensors"
    assert path_beside(tmp_path) == tmp_path / "unknown.safetensors"
