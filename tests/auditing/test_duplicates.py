import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scenes import scene
from scipy.fft import dctn

from convnextv2.auditing.copies import Copies, copy_findings, left_out
from convnextv2.auditing.duplicates import Copy, low_frequencies, near_copies
from convnextv2.auditing.images import Images
from convnextv2.auditing.scan import SIDE, Look


def squeezed(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))


def written(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


def test_low_frequencies_are_those_of_scipy() -> None:
    grey = np.random.default_rng(0).uniform(0, 255, (3, 32, 32)).astype(np.float32)
    order = np.hypot(*np.mgrid[0:9, 0:9])
    expected = (dctn(grey, axes=(1, 2), norm="ortho")[:, :9, :9] * order).reshape(3, -1)[:, 1:]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert low_frequencies(torch.from_numpy(grey)).numpy() == pytest.approx(expected, abs=2e-5)


CHANGES = {
    "another quality": lambda picture: written(picture, 30),
    "half the size": lambda picture: picture.resize((48, 40), Image.Resampling.LANCZOS),
    "a cut": lambda picture: picture.crop((5, 2, 93, 76)),
    "lighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_among_other_pictures(change: str) -> None:
    pictures = [scene(seed) for seed in range(30)]
    copy = CHANGES[change](pictures[7])
    found = near_copies(np.stack([*map(squeezed, pictures), squeezed(copy)]), range(100, 131))
    assert [(each.first, each.second) for each in found] == [(107, 130)]
    assert found[0].mirrored == (change == "mirrored") and 0.75 <= found[0].score <= 1.001


def test_the_same_drawing_in_other_colours_is_no_copy() -> None:
    picture = np.asarray(scene(3)).astype(np.float32)
    grey = picture @ np.array([0.299, 0.587, 0.114], np.float32)
    reddish = np.clip(grey[..., None] + np.array([60, -30, -30], np.float32), 0, 255)
    both = [squeezed(scene(3)), squeezed(Image.fromarray(reddish.astype(np.uint8)))]
    assert near_copies(np.stack(both), [0, 1]) == []


def test_empty_and_tiny_sets_have_no_copies() -> None:
    blank = np.full((3, SIDE, SIDE, 3), 255, np.uint8)
    assert near_copies(blank, range(3)) == []
    assert near_copies(blank[:1], [0]) == [] and near_copies(blank[:0], []) == []
    assert near_copies(np.stack([squeezed(scene(0)), blank[0]]), [0, 1]) == []


def test_pictures_that_are_only_similar_are_named_and_stay(tmp_path: Path) -> None:
    names = tuple(str(tmp_path / f"{i}.jpg") for i in range(4))
    targets = np.array([0, 1, 0, 0])
    splits = ("train", "val", "train", "train")
    images = Images("classification", tmp_path, names, splits, targets, ("shirt", "hat"))
    near = [Copy(0, 1, 0.79, False), Copy(2, 3, 0.91, True)]
    copies = Copies({i: [i] for i in range(4)}, {i: i for i in range(4)}, near)
    assert left_out(images, copies) == {3: f"a copy of {names[2]}"}
    found = copy_findings(images, [Look() for _ in names], copies)
    assert [(finding.kind, finding.detail) for finding in found] == [
        ("leak", "a similar picture"),
        ("contradiction", "a similar picture"),
        ("near_duplicate", "nearly the same picture, mirrored"),
    ]


@pytest.mark.parametrize("splits", [("train2017", "val2017"), ("train2017", "mine")])
def test_of_copies_that_of_validation_stays(splits: tuple[str, str], tmp_path: Path) -> None:
    asked = (None, "mine")
    images = Images("detection", tmp_path, ("a.jpg", "b.jpg"), splits, None, (), asked=asked)
    copies = Copies({0: [0, 1]}, {0: 0, 1: 0}, [])
    assert left_out(images, copies) == {0: "a copy of b.jpg"}
