"""Layer normalisation over the channels on a GPU, forward and backward.

A program processes several positions with all of their channels. The forward pass keeps the mean
and the reciprocal of the standard deviation (rstd) of each position in float32. In the backward
pass, a program goes through a share of the positions and keeps its part of the gradients of weight
and bias in registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from convnextv2.kernels.gpu.launch import ceil_div, chunk, on_device

_ELEMENTS = 2048
"""The number of elements that a program processes at a time, unless one position has more."""


@triton.jit(do_not_specialize=["positions"])
def _forward(
    x,
    weight,
    bias,
    y,
    means,
    rstds,
    positions,
    eps,
    C: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    c = tl.arange(0, CHANNELS)
    exists, known = p < positions, c < C
    here = exists[:, None] & known[None, :]
    at = p.to(tl.int64)[:, None] * C + c[None, :]
    values = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
    mean = tl.sum(values, 1) / C
    centred = tl.where(here, values - mean[:, None], 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centred * centred, 1) / C + eps)
    scale = tl.load(weight + c, mask=known, other=0.0)
    shift = tl.load(bias + c, mask=known, other=0.0)
    result = centred * rstd[:, None] * scale[None, :] + shift[None, :]
    tl.store(y + at, result.to(y.dtype.element_ty), mask=here)
    tl.store(means + p, mean, mask=exists)
    tl.store(rstds + p, rstd, mask=exists)


@triton.jit(do_not_specialize=["positions", "share"])
def _backward(
    x,
    gradient,
    weight,
    means,
    rstds,
    of_x,
    partial,
    positions,
    share,
    C: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    part = tl.program_id(0)
    c = tl.arange(0, CHANNELS)
    known = c < C
    scale = tl.load(weight + c, mask=known, other=0.0)
    of_weight = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    of_bias = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    last = tl.minimum((part + 1) * share, positions)
    for start in range(part * share, last, POSITIONS):
        p = start + tl.arange(0, POSITIONS)
        exists = p < last
        here = exists[:, None] & known[None, :]
        at = p.to(tl.int64)[:, None] * C + c[None, :]
        values = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
        g = tl.load(gradient + at, mask=here, other=0.0).to(tl.float32)
        mean = tl.load(means + p, mask=exists, other=0.0)
        rstd = tl.load(rstds + p, mask=exists, other=0.0)
        normal = tl.where(here, (values - mean[:, None]) * rstd[:, None], 0.0)
        scaled = g * scale[None, :]
        slope = tl.sum(scaled * normal, 1) / C
        level = tl.sum(scaled, 1) / C
        result = (scaled - level[:, None] - normal * slope[:, None]) * rstd[:, None]
        tl.store(of_x + at, result.to(of_x.dtype.element_ty), mask=here)
        of_weight += g * normal
        of_bias += g
    to = partial + part * (2 * C) + c
    tl.store(to, tl.sum(of_weight, 0), mask=known)
    tl.store(to + C, tl.sum(of_bias, 0), mask=known)


def _blocks(channels: int) -> tuple[int, int, int]:
    """Choose how many channels and positions a program processes at a time, and its warps."""
    wide = max(16, triton.next_power_of_2(channels))
    return wide, max(1, _ELEMENTS // wide), 8 if wide > _ELEMENTS else 4


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each position.

    Args:
        x: (..., C).
        weight: (C,).
        bias: (C,).
        eps: Added to the variance before the square root is taken.

    Returns:
        x's shape and dtype; and float32 (positions,) twice, the mean of each position and the
        reciprocal of its standard deviation.
    """
    channels = x.shape[-1]
    x, y = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    positions = x.numel() // max(1, channels)
    means, rstds = (torch.empty(positions, dtype=torch.float32, device=x.device) for _ in range(2))
    if x.numel():
        wide, rows, warps = _blocks(channels)
        with on_device(x):
            _forward[(ceil_div(positions, rows),)](
                x,
                weight.float().contiguous(),
                bias.float().contiguous(),
                y,
                means,
                rstds,
                positions,
                eps,
                C=channels,
                POSITIONS=rows,
                CHANNELS=wide,
                num_warps=warps,
            )
    return y, means, rstds


def layer_norm_backward(
    x: Tensor, gradient: Tensor, weight: Tensor, means: Tensor, rstds: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of `layer_norm`.

    Args:
        x: (..., C).
        gradient: The gradient of the result, in x's shape.
        weight: (C,).
        means: float32 (positions,), from `layer_norm`.
        rstds: float32 (positions,), likewise.

    Returns:
        The gradient of x, in x's shape and dtype; and those of weight and bias, float32 (2, C).
    """
    channels = x.shape[-1]
    x, gradient = x.contiguous(), gradient.contiguous()
    of_x = torch.empty_like(x)
    positions = x.numel() // max(1, channels)
    if not positions:
        return of_x, x.new_zeros(2, channels, dtype=torch.float32)
    wide, rows, warps = _blocks(channels)
    share = chunk(positions, 1, rows)
    parts = ceil_div(positions, share)
    partial = torch.empty(parts, 2, channels, dtype=torch.float32, device=x.device)
    with on_device(x):
        _backward[(parts,)](
            x,
            gradient,
            weight.float().contiguous(),
            means,
            rstds,
            of_x,
            partial,
            positions,
            share,
            C=channels,
            POSITIONS=rows,
            CHANNELS=wide,
            num_warps=warps,
        )
    return of_x, partial.sum(0)
