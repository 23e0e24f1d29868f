from itertools import product

import pytest
import torch

from convnextv2.model.fcmae import draw_masks
from convnextv2.tasks.masked.masking import masked_tiles, masking_line


@pytest.mark.parametrize(
    ("grid", "ratio"),
    list(product([(1, 2), (2, 2), (3, 5), (7, 7)], [0.1, 0.4, 0.6, 0.75, 0.99])),
)
def test_as_many_tiles_are_stated_as_are_drawn(grid: tuple[int, int], ratio: float) -> None:
    _, masked = draw_masks(3, grid, ratio, torch.Generator().manual_seed(0))
    assert masked_tiles(grid, ratio) == f"{masked.shape[1]} of {grid[0] * grid[1]} tiles"


def test_a_share_that_few_tiles_cannot_have_is_explained() -> None:
    assert masking_line((7, 7), 32, 0.6) == (
        "30 of 49 tiles of 32 px are masked in each image (61%)."
    )
    assert masking_line((2, 2), 32, 0.6) == (
        "3 of 4 tiles of 32 px are masked in each image (75%): 4 tiles cannot meet mask_ratio "
        "= 0.6 exactly. Use a larger image_size for more tiles."
    )
