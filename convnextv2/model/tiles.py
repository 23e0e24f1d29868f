"""The visible-tiles layout: masked pre-training that never computes masked tiles.

An image of (H, W) pixels is a grid of square tiles. The encoder sees V of them, chosen for each
image, as one compact tensor (N, V, side, side, C); `side` shrinks from the tile's pixels to the
cells of the last stage. Layers that act on single positions run on that tensor directly. The
depthwise convolution needs neighbours, so it paints the tiles onto a canvas of zeros, convolves,
and picks the same tiles again. This equals submanifold sparse convolution at visible positions
(FCMAE, arXiv 2301.00808, section 3).

All shapes follow from (N, V, grid), never from which tiles are visible. Nothing therefore
synchronises with the device, and one compiled graph serves every mask.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from convnextv2.kernels.run_table import run_table


class Canvas(NamedTuple):
    """The positions of the visible tiles in their images, at the resolution of one stage.

    Attributes:
        rows: int64 (N * V * side,). For each row of positions of each tile, its place among the
            N * gh * side * gw such rows of all canvases.
        shape: (N, V, side) of the tiles.
        size: (height, width) of a canvas in positions.
        runs: The inverse of `rows`, which the kernels for GPUs read, from `run_table`. None on
            other devices.
    """

    rows: Tensor
    shape: tuple[int, int, int]
    size: tuple[int, int]
    runs: Tensor | None = None

    def paint(self, tiles: Tensor, onto: Tensor | None = None) -> Tensor:
        """Put tiles at their places on canvases.

        Args:
            tiles: (N, V, side, side, C).
            onto: The background, in a shape that broadcasts to that of the canvases. None for
                zeros.

        Returns:
            (N, height, width, C), in the tiles' dtype.
        """
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
        """Take the tiles (N, V, side, side, C) off canvases (N, height, width, C)."""
        n, tiles, side = self.shape
        channels = canvas.shape[-1]
        picked = canvas.reshape(-1, side * channels).index_select(0, self.rows)
        return picked.view(n, tiles, side, side, channels)


class Tiles(NamedTuple):
    """A selection of tiles from each image, the same number in every image.

    Attributes:
        indices: int64 (N, V). Tiles are numbered row by row.
        grid: Rows and columns of tiles in an image, (gh, gw).
    """

    indices: Tensor
    grid: tuple[int, int]

    def canvas(self, side: int) -> Canvas:
        """Return the canvas on which one tile has `side` x `side` positions."""
        n, count = self.indices.shape
        gh, gw = self.grid
        images = torch.arange(n, device=self.indices.device).view(n, 1, 1)
        row, column = self.indices // gw, self.indices % gw
        inside = torch.arange(side, device=self.indices.device)
        rows = ((images * gh + row.unsqueeze(-1)) * side + inside) * gw + column.unsqueeze(-1)
        rows, size = rows.flatten(), (gh * side, gw * side)
        runs = run_table(rows, n, size, side) if rows.is_cuda else None
        return Canvas(rows, (n, count, side), size, runs)

    def cut(self, images: Tensor) -> Tensor:
        """Cut these tiles out of images, without reading any others.

        Args:
            images: (N, C, H, W). The grid divides H and W evenly.

        Returns:
            (N, V, side, side, C), contiguous.
        """
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
    """Move space to depth.

    Rows and columns beyond a multiple of the stride are left out, as by a strided convolution
    without padding.

    Args:
        x: (..., H, W, C).
        stride: Side of the square of positions that becomes one.

    Returns:
        (..., H // stride, W // stride, stride * stride * C), ordered by row, column and channel.
    """
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
    """Move depth to space, the inverse of `fold`.

    Args:
        x: (..., h, w, stride * stride * C).
        stride: Side of the square of positions that one becomes.

    Returns:
        (..., h * stride, w * stride, C).
    """
    if stride == 1:
        return x
    channels = x.shape[-1] // stride**2
    return (
        x.unflatten(-1, (stride, stride, channels))
        .transpose(-4, -3)
        .flatten(-3, -2)
        .flatten(-4, -3)
    )
