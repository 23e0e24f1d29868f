import numpy as np
import pytest
from pycocotools import mask as reference

from convnextv2.data.dense import rle
from convnextv2.data.dense.rle import Rle


@pytest.fixture
def mask() -> np.ndarray:
    random = np.random.default_rng(0)
    return (random.random((37, 53)) < 0.3).astype(np.uint8)


def test_codes_equal_those_of_pycocotools(mask: np.ndarray) -> None:
    theirs = reference.encode(np.asfortranarray(mask))
    ours = rle.encode(mask)
    assert (ours.counts, list(ours.size)) == (theirs["counts"], theirs["size"])
    assert (rle.decode(ours) == mask).all()
    assert rle.area_of(ours) == mask.sum()
    x, y, width, height = reference.toBbox(theirs).tolist()
    assert rle.box_of(ours).tolist() == [x, y, x + width, y + height]


def test_runs_are_compressed(mask: np.ndarray) -> None:
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    assert rle.from_counts(runs, mask.shape) == rle.encode(mask)
    with pytest.raises(ValueError, match="add up"):
        rle.from_counts([*runs, 1], mask.shape)


def test_outlines_equal_those_of_pycocotools() -> None:
    outlines = (
        np.array([[3.2, 4.1], [30.7, 6.0], [22.5, 31.9]]),
        np.array([[40.0, 20.0], [60.0, 20.0], [60.0, 50.0], [40.0, 50.0]]),  # beyond the edges
    )
    parts = reference.frPyObjects([each.reshape(-1).tolist() for each in outlines], 37, 53)
    assert rle.from_polygons(outlines, (37, 53)).counts == reference.merge(parts)["counts"]


def test_damaged_codes_are_found(mask: np.ndarray) -> None:
    whole = rle.encode(mask)
    assert rle.is_whole(whole)
    assert not rle.is_whole(Rle(whole.counts[:-1], whole.size))
    assert not rle.is_whole(Rle(whole.counts, (37, 54)))
    assert not rle.is_whole(Rle(b"\x00\xff", whole.size))
    assert not rle.is_whole(Rle(b"ooooooooooooooooo", whole.size))
    empty = rle.encode(np.zeros((5, 4), np.uint8))
    assert rle.is_whole(empty) and rle.area_of(empty) == 0


@pytest.mark.parametrize(
    ("corner", "size"),
    [((0, 0), (7, 5)), ((0, 3), (7, 9)), ((4, 0), (20, 5)), ((3, 2), (12, 11))],
)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_part_is_encoded_as_the_whole_mask_is(
    corner: tuple[int, int], size: tuple[int, int], share: float
) -> None:
    part = np.random.default_rng(0).random((7, 5)) < share
    whole = np.zeros(size, bool)
    whole[corner[0] : corner[0] + 7, corner[1] : corner[1] + 5] = part
    assert rle.encode_within(part, corner, size) == rle.encode(whole)


def test_an_empty_part_is_an_empty_mask() -> None:
    assert rle.encode_within(np.zeros((0, 0), bool), (0, 0), (6, 4)) == rle.encode(
        np.zeros((6, 4), bool)
    )
