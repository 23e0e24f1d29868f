import numpy as np
import pytest
from PIL import Image, ImageDraw

from convnextv2.data.dense.outlines import outlines


def filled(polygons: list[np.ndarray], size: tuple[int, int], scale: int = 8) -> np.ndarray:
    """Fill polygons with Pillow on a finer grid, and look at the centres of pixels."""
    canvas = Image.new("1", (size[1] * scale, size[0] * scale))
    for points in polygons:
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in points * scale], fill=1)
    middle = slice(scale // 2, None, scale)
    return np.array(canvas)[middle, middle]


def test_a_rectangle_has_four_corners() -> None:
    mask = np.zeros((9, 12), bool)
    mask[2:5, 3:10] = True
    (points,) = outlines(mask)
    assert sorted(map(tuple, points.tolist())) == [(3, 2), (3, 5), (10, 2), (10, 5)]


def test_a_mask_at_the_edges_and_an_empty_one() -> None:
    (points,) = outlines(np.ones((2, 3), bool))
    assert {tuple(point) for point in points.tolist()} == {(0, 0), (3, 0), (3, 2), (0, 2)}
    assert outlines(np.zeros((4, 4), bool)) == []


def test_parts_are_apart_and_holes_are_filled() -> None:
    mask = np.zeros((12, 20), bool)
    mask[1:9, 1:9] = True
    mask[3:6, 3:6] = False
    mask[9, 9] = True  # touches the first part at a corner
    mask[2:5, 12:18] = True
    found = outlines(mask, tolerance_px=0)
    assert len(found) == 3
    expected = mask.copy()
    expected[3:6, 3:6] = True
    assert np.array_equal(filled(found, mask.shape), expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_exact_outlines_of_random_masks_fill_them_again(seed: int) -> None:
    mask = np.random.default_rng(seed).random((30, 40)) < 0.35
    found = filled(outlines(mask, tolerance_px=0), mask.shape)
    assert (found | ~mask).all()  # nothing is lost
    outside = _reached_from_outside(~mask)
    assert np.array_equal(found, ~outside)  # and only holes are added


def _reached_from_outside(free: np.ndarray) -> np.ndarray:
    """Return the pixels that a flood fill from the edges reaches, with corners connected."""
    canvas = np.pad(free, 1, constant_values=True)
    reached = np.zeros_like(canvas)
    reached[0] = True
    while True:
        grown = reached.copy()
        for y in (-1, 0, 1):
            for x in (-1, 0, 1):
                grown |= np.roll(reached, (y, x), (0, 1))
        grown &= canvas
        if (grown == reached).all():
            return reached[1:-1, 1:-1]
        reached = grown


def test_a_disc_needs_few_points_and_keeps_its_shape() -> None:
    y, x = np.mgrid[:80, :80]
    mask = (x - 40) ** 2 + (y - 40) ** 2 < 30**2
    (exact,), (points,) = outlines(mask, tolerance_px=0), outlines(mask)
    assert len(points) < len(exact) / 3
    again = filled([points], mask.shape)
    assert (mask & again).sum() / (mask | again).sum() > 0.95
