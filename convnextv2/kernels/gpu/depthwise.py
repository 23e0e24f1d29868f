"""The depthwise convolution of ConvNeXt V2 on a GPU: dense images and visible tiles.

A program computes some positions of some channels. For each tap of the 7 x 7 kernel, it loads the
values below that tap. A tap that lies outside the canvas, or over a place where nothing is visible,
loads nothing.

The gradient of the input is the same convolution with the kernel rotated by 180 degrees. For the
gradients of weight and bias, a program adds up one row of seven taps, or the last row of taps and
the bias, over a share of the positions.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from convnextv2.kernels.gpu.launch import ceil_div, channel_block, chunk, on_device

_POSITIONS = 64
"""The number of positions that a program processes at a time."""


@triton.jit
def _where(q, total, places, RUNS, RUN: tl.constexpr, HEIGHT, WIDTH, TILES: tl.constexpr):
    """Find the image, row and column of positions, which are numbered in memory order."""
    run = q // RUN
    n = run // RUNS
    if TILES:
        # In runs over the canvases of all images, one after the other.
        place = tl.load(places + run, mask=q < total, other=0)
        row = (place // (WIDTH // RUN) - n * HEIGHT).to(tl.int32)
        column = (place % (WIDTH // RUN)).to(tl.int32) * RUN + q % RUN
    else:  # every position is a run
        row = (run - n * RUNS) // WIDTH
        column = (run - n * RUNS) % WIDTH
    return n, row, column


@triton.jit
def _below(n, row, column, here, runs, RUN: tl.constexpr, HEIGHT, WIDTH, TILES: tl.constexpr):
    """Find which positions of x, counted within their image, lie at places of its canvas.

    Returns their numbers, and a mask of the places where there is a position.
    """
    here = here & (row >= 0) & (row < HEIGHT) & (column >= 0) & (column < WIDTH)
    if TILES:
        cell = (n * HEIGHT + row) * (WIDTH // RUN) + column // RUN
        run = tl.load(runs + cell, mask=here, other=-1)
        here = here & (run >= 0)
        at = run * RUN + column % RUN
    else:
        at = row * WIDTH + column
    return at, here


@triton.jit(do_not_specialize=["total", "RUNS", "HEIGHT", "WIDTH"])
def _forward(
    x,
    weight,
    bias,
    places,
    runs,
    y,
    total,
    RUNS,
    HEIGHT,
    WIDTH,
    C: tl.constexpr,
    RUN: tl.constexpr,
    TILES: tl.constexpr,
    BIAS: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    q = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    exists, known = q < total, c < C
    n, row, column = _where(q, total, places, RUNS, RUN, HEIGHT, WIDTH, TILES)
    image = x + n.to(tl.int64)[:, None] * (RUNS * RUN * C) + c[None, :]
    sums = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    if BIAS:
        sums += tl.load(bias + c, mask=known, other=0.0)[None, :]
    for i in range(7):
        for j in tl.static_range(7):
            at, here = _below(
                n, row + i - 3, column + j - 3, exists, runs, RUN, HEIGHT, WIDTH, TILES
            )
            tap = tl.load(weight + (i * 7 + j) * C + c, mask=known, other=0.0)
            values = tl.load(
                image + at[:, None] * C, mask=here[:, None] & known[None, :], other=0.0
            )
            sums += values.to(tl.float32) * tap[None, :]
    to = y + q.to(tl.int64)[:, None] * C + c[None, :]
    tl.store(to, sums.to(y.dtype.element_ty), mask=exists[:, None] & known[None, :])


@triton.jit(do_not_specialize=["total", "RUNS", "HEIGHT", "WIDTH", "share"])
def _weight_gradient(
    x,
    gradient,
    places,
    runs,
    partial,
    total,
    RUNS,
    HEIGHT,
    WIDTH,
    share,
    C: tl.constexpr,
    RUN: tl.constexpr,
    TILES: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    part, i = tl.program_id(0), tl.program_id(1)  # a share of the positions, a row of taps
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    known = c < C
    s0 = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    s1 = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    s2 = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    s3 = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    s4 = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    s5 = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    s6 = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    of_bias = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for start in range(part * share, tl.minimum((part + 1) * share, total), POSITIONS):
        q = start + tl.arange(0, POSITIONS)
        exists = q < total
        n, row, column = _where(q, total, places, RUNS, RUN, HEIGHT, WIDTH, TILES)
        image = x + n.to(tl.int64)[:, None] * (RUNS * RUN * C) + c[None, :]
        g = tl.load(
            gradient + q.to(tl.int64)[:, None] * C + c[None, :],
            mask=exists[:, None] & known[None, :],
            other=0.0,
        ).to(tl.float32)
        of_bias += g
        for j in tl.static_range(7):
            at, here = _below(
                n, row + i - 3, column + j - 3, exists, runs, RUN, HEIGHT, WIDTH, TILES
            )
            values = tl.load(
                image + at[:, None] * C, mask=here[:, None] & known[None, :], other=0.0
            )
            product = g * values.to(tl.float32)
            if j == 0:
                s0 += product
            elif j == 1:
                s1 += product
            elif j == 2:
                s2 += product
            elif j == 3:
                s3 += product
            elif j == 4:
                s4 += product
            elif j == 5:
                s5 += product
            else:
                s6 += product
    to = partial + (part * 50 + i * 7) * C + c
    tl.store(to, tl.sum(s0, 0), mask=known)
    tl.store(to + C, tl.sum(s1, 0), mask=known)
    tl.store(to + 2 * C, tl.sum(s2, 0), mask=known)
    tl.store(to + 3 * C, tl.sum(s3, 0), mask=known)
    tl.store(to + 4 * C, tl.sum(s4, 0), mask=known)
    tl.store(to + 5 * C, tl.sum(s5, 0), mask=known)
    tl.store(to + 6 * C, tl.sum(s6, 0), mask=known)
    tl.store(partial + (part * 50 + 49) * C + c, tl.sum(of_bias, 0), mask=known & (i == 6))


def _counted(shape: list[int], places: Tensor | None) -> list[int]:
    """Count each position of whole canvases as a run, so that one kernel serves all widths."""
    images, _, _, height, width, channels = shape
    return shape if places is not None else [images, height * width, 1, height, width, channels]


def depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    places: Tensor | None,
    runs: Tensor | None,
    shape: list[int],
) -> Tensor:
    """Convolve, as the operation of the same name in `kernels.operations` does.

    Args:
        x: (images, runs, run, C).
        weight: float32 (49, C), one row for each tap.
        bias: (C,); None for zeros.
        places: int64 (images * runs,), each run's place; None if x is whole canvases.
        runs: `kernels.run_table` of these places; None if these are None.
        shape: (images, runs, run, height, width, C).

    Returns:
        x's shape and dtype.
    """
    images, runs_per_image, run, height, width, channels = _counted(shape, places)
    x, y = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    total = images * runs_per_image * run
    if not x.numel():
        return y
    weight = weight.float().contiguous()
    block = channel_block(channels, 32)
    with on_device(x):
        _forward[(ceil_div(total, _POSITIONS), ceil_div(channels, block))](
            x,
            weight,
            weight if bias is None else bias.float().contiguous(),
            x if places is None else places.contiguous(),
            x if runs is None else runs.contiguous(),
            y,
            total,
            runs_per_image,
            height,
            width,
            C=channels,
            RUN=run,
            TILES=places is not None,
            BIAS=bias is not None,
            POSITIONS=_POSITIONS,
            CHANNELS=block,
            num_warps=4,
        )
    return y


def depthwise_weight(
    x: Tensor, gradient: Tensor, places: Tensor | None, runs: Tensor | None, shape: list[int]
) -> Tensor:
    """Compute the gradients of the weight and of the bias.

    Args:
        x: (images, runs, run, C).
        gradient: The gradient of the output, in its shape.
        places: As for `depthwise`.
        runs: As for `depthwise`.
        shape: As for `depthwise`.

    Returns:
        float32 (50, C): a row for each tap, and the bias.
    """
    images, runs_per_image, run, height, width, channels = _counted(shape, places)
    x, gradient = x.contiguous(), gradient.contiguous()
    total = images * runs_per_image * run
    if not x.numel():
        return x.new_zeros(50, channels, dtype=torch.float32)
    block = channel_block(channels, 32)
    blocks = ceil_div(channels, block)
    share = chunk(total, 7 * blocks, _POSITIONS)
    parts = ceil_div(total, share)
    partial = torch.empty(parts, 50, channels, dtype=torch.float32, device=x.device)
    with on_device(x):
        _weight_gradient[(parts, 7, blocks)](
            x,
            gradient,
            x if places is None else places.contiguous(),
            x if runs is None else runs.contiguous(),
            partial,
            total,
            runs_per_image,
            height,
            width,
            share,
            C=channels,
            RUN=run,
            TILES=places is not None,
            POSITIONS=_POSITIONS,
            CHANNELS=block,
            num_warps=4,
        )
    return partial.sum(0)
