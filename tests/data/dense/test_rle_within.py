import numpy as np
import pytest

from convnextv2.data.dense.rle import encode, encode_within


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
    assert encode_within(part, corner, size) == encode(whole)


def test_nothing_is_an_empty_mask() -> None:
    assert encode_within(np.zeros((0, 0), bool), (0, 0), (6, 4)) == encode(np.zeros((6, 4), bool))
