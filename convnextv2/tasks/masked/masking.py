"""Describes how many tiles of an image are masked.

With few tiles, not every ratio is possible. With `mask_ratio` 0.6, an image of 2 x 2 tiles has
three masked ones, which is 75 % of it.
"""

from __future__ import annotations

from convnextv2.model.fcmae import visible_count

_FAR_OFF = 0.1
"""The difference from `mask_ratio` from which on the true share is explained."""


def masked_tiles(grid: tuple[int, int], mask_ratio: float) -> str:
    """Return how many tiles are masked, such as "10 of 16 tiles".

    Args:
        grid: Rows and columns of tiles in an image.
        mask_ratio: The share of the tiles to mask, from 0 to 1.
    """
    tiles = grid[0] * grid[1]
    return f"{tiles - visible_count(tiles, mask_ratio)} of {tiles} tiles"


def masking_line(grid: tuple[int, int], tile: int, mask_ratio: float) -> str:
    """Return a sentence about the tiles of an image and the masked ones.

    Args:
        grid: Rows and columns of tiles in an image.
        tile: The side of a tile, in px.
        mask_ratio: The share of the tiles to mask, from 0 to 1.
    """
    tiles = grid[0] * grid[1]
    share = 1 - visible_count(tiles, mask_ratio) / tiles
    line = f"{masked_tiles(grid, mask_ratio)} of {tile} px are masked in each image ({share:.0%})"
    if abs(share - mask_ratio) < _FAR_OFF:
        return f"{line}."
    return (
        f"{line}: {tiles} tiles cannot meet mask_ratio = {mask_ratio:g} exactly. Use a larger "
        "image_size for more tiles."
    )
