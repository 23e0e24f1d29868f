"""The visible-tiles layout: masked pre-training without computing what is masked.

An image of (H, W) pixels is a grid of square tiles. The encoder sees V of them, chosen for each image, as one compact tensor
(N, V, side, side, C); `side` shrinks from the tile's pixels to the cells of the last stage. Whatever acts on single positions
runs on that tensor as it is. The depthwise convolution needs neighbours, so it paints the tiles onto a canvas of zeros,
convolves, and picks the same tiles again. That equals submanifold sparse convolution at visible positions (FCMAE, arXiv
2301.00808, section 3).

All shapes follow from (N, V, grid), never from which tiles are visible: nothing synchronises with the device, and one compiled
graph serves every mask.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Canvas(NamedTuple):
    """Where the tiles lie in the image, at one resolution.

    rows: int64 (N * V * side,), for each row of pixels of each tile its place among the (N * gh * side * gw) such rows of the
    canvas.
    shape: (N, V, side) of the tiles.
    size: (height, width) of the canvas in positions."""

    rows: Tensor
    shape: tuple[int, int, int]
    size: tuple[int, int]

    def paint(self, tiles: Tensor, onto: Tensor | None = None) -> Tensor:
        """Tiles (N, V, side, side, C) at their places in a canvas (N, height, width, C); `onto` is what lies below (default
        zeros)."""
        n, _, side = self.shape
        height, width = self.size
        channels = tiles.shape[-1]
        row_length = side * channels
        if onto is None:
            below = tiles.new_zeros(n * height * (width // side), row_length)
        else:
            below = onto.to(tiles.dtype).expand(n, height, width, channels).reshape(-1, row_length)
        return below.index_copy(0, self.rows, tiles.reshape(-1, row_length)).view(
            n, height, width, channels
        )

    def pick(self, canvas: Tensor) -> Tensor:
        """The inverse: canvas (N, height, width, C) to the tiles (N, V, side, side, C) that lie on it."""
        n, tiles, side = self.shape
        channels = canvas.shape[-1]
        picked = canvas.reshape(-1, side * channels).index_select(0, self.rows)
        return picked.view(n, tiles, side, side, channels)


class Tiles(NamedTuple):
    """Some tiles of each image: indices int64 (N, V), numbered row by row, over a grid of (gh, gw) tiles."""

    indices: Tensor
    grid: tuple[int, int]

    def canvas(self, side: int) -> Canvas:
        """The canvas on which one tile is `side` x `side` positions."""
        n, count = self.indices.shape
        gh, gw = self.grid
        images = torch.arange(n, device=self.indices.device).view(n, 1, 1)
        row, column = self.indices // gw, self.indices % gw
        inside = torch.arange(side, device=self.indices.device)
        rows = ((images * gh + row.unsqueeze(-1)) * side + inside) * gw + column.unsqueeze(-1)
        return Canvas(rows.flatten(), (n, count, side), (gh * side, gw * side))

    def cut(self, images: Tensor) -> Tensor:
        """These tiles of images (N, C, H, W), which the grid divides evenly: (N, V, side, side, C). Others are not read."""
        n, channels, height, _ = images.shape
        gh, gw = self.grid
        side = height // gh
        image, channel, inside = (
            torch.arange(count, device=images.device) for count in (n, channels, side)
        )
        row, column = (self.indices // gw)[..., None, None], (self.indices % gw)[..., None, None]
        planes = image.view(n, 1, 1, 1) * channels + channel.view(channels, 1)
        rows = ((planes * gh + row) * side + inside) * gw + column
        tiles = images.reshape(-1, side).index_select(0, rows.flatten())
        return tiles.view(n, -1, channels, side, side).permute(0, 1, 3, 4, 2).contiguous()


def fold(x: Tensor, stride: int) -> Tensor:
    """Space to depth: (..., H, W, C) to (..., H // stride, W // stride, stride * stride * C), ordered row, column, channel.

    Rows and columns beyond a multiple of the stride are left out, as a strided convolution without padding does."""
    if stride == 1:
        return x
    height, width = x.shape[-3] // stride, x.shape[-2] // stride
    x = x[..., : height * stride, : width * stride, :]
    return (
        x.unflatten(-3, (height, stride))
        .unflatten(-2, (width, stride))
        .transpose(-4, -3)
        .flatten(-3)
    )


def unfold(x: Tensor, stride: int) -> Tensor:
    """Depth to space, the inverse of `fold`: (..., h, w, stride * stride * C) to (..., h * stride, w * stride, C)."""
    if stride == 1:
        return x
    channels = x.shape[-1] // stride**2
    return (
        x.unflatten(-1, (stride, stride, channels))
        .transpose(-4, -3)
        .flatten(-3, -2)
        .flatten(-4, -3)
    )
