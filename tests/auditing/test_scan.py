import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import blurred, save, scene

from convnextv2.auditing.scan import SIDE, blur_of, look_at


def test_a_look_says_what_the_file_holds(tmp_path: Path) -> None:
    path = save(scene(0, (120, 60)), tmp_path / "a.png")
    rotated = save(scene(0, (120, 60)).rotate(90, expand=True), tmp_path / "b.png")
    first, second = look_at([str(path), str(rotated)], max_pixels=10**6)
    assert (first.height, first.width, first.bands, first.format) == (60, 120, 3, "PNG")
    assert first.file_hash == hashlib.sha256(path.read_bytes()).digest()
    assert first.pixel_hash != second.pixel_hash
    assert first.file_bytes == path.stat().st_size and first.small is not None
    expected = scene(0, (120, 60)).resize((SIDE, SIDE), Image.Resampling.BOX)
    assert np.array_equal(first.small, np.asarray(expected))
    levels = np.asarray(scene(0, (120, 60)).convert("L")) / 255
    assert (first.low_luma, first.high_luma) == pytest.approx(
        np.percentile(levels, (5, 95)), abs=1e-6
    )


def test_equal_pixels_have_one_hash_whatever_the_file(tmp_path: Path) -> None:
    png = save(scene(1), tmp_path / "a.png")
    bmp = save(scene(1), tmp_path / "b.bmp")
    first, second = look_at([str(png), str(bmp)], max_pixels=10**6)
    assert first.pixel_hash == second.pixel_hash and first.file_hash != second.file_hash


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    good = save(scene(2), tmp_path / "a.jpg", quality=90).read_bytes()
    files = {"cut.jpg": good[: len(good) // 2], "empty.jpg": b"", "page.jpg": b"<!doctype html>"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    looks = look_at([str(tmp_path / name) for name in files], max_pixels=10**6)
    assert all(look.error and look.small is None for look in looks)
    assert str(tmp_path) not in looks[0].error


def slow_blur(luma: np.ndarray) -> float:
    """Equations 1 to 8 of Crete et al. pixel by pixel, without the edges."""
    found = []
    for values in (luma, luma.T):
        height, width = values.shape
        sharp = lost = 0.0
        for column in range(width):
            blurred = {
                row: values[row - 4 : row + 5, column].mean() for row in range(4, height - 4)
            }
            for row in range(5, height - 4):
                own = abs(float(values[row, column]) - float(values[row - 1, column]))
                sharp += own
                lost += max(0.0, own - abs(blurred[row] - blurred[row - 1]))
        found.append((sharp - lost) / sharp)
    return max(found)


def test_blur_is_that_of_the_paper_and_grows_with_blur() -> None:
    picture = scene(4, (40, 30)).convert("L")
    values = [
        (np.asarray(image) / 255).astype(np.float32)
        for image in (picture, blurred(picture, 1), blurred(picture, 4))
    ]
    assert [blur_of(each) for each in values] == pytest.approx(
        list(map(slow_blur, values)), abs=1e-4
    )
    assert blur_of(values[0]) < blur_of(values[1]) < blur_of(values[2])
    assert blur_of(np.zeros((50, 50), np.float32)) == 0
    assert blur_of(np.zeros((5, 5), np.float32)) == 0
