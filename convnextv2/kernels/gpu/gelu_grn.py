"""GELU of ConvNeXt V2 with what GRN does over all positions, on a GPU, forward and backward.

The backward pass keeps the input of GELU only, and computes GELU again. A program takes a share of
the positions of one image and some channels. Sums over an image are written as partial sums, one
for each share.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from convnextv2.kernels.gpu.launch import ceil_div, channel_block, chunk, on_device

_POSITIONS = 32
"""Positions that a program takes at once."""
_SHARE = 256
"""Positions of a program that adds up nothing."""


@triton.jit
def _gelu(x, TANH: tl.constexpr):
    """Compute GELU and its derivative of float32 numbers."""
    if TANH:  # 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
        square = x * x
        inner = 0.7978845608028654 * x * (1 + 0.044715 * square)
        small = tl.exp(-2 * tl.abs(inner))  # which never overflows
        t = (1 - small) / (1 + small)
        t = tl.where(inner < 0, -t, t)
        phi = 0.5 * (1 + t)
        slope = phi + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * square)
    else:  # x Phi(x)
        phi = 0.5 * (1 + tl.erf(x * 0.7071067811865476))
        slope = phi + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    return x * phi, slope


@triton.jit(do_not_specialize=["positions", "parts", "share"])
def _squares(
    x,
    partial,
    positions,
    parts,
    share,
    C: tl.constexpr,
    TANH: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    task = tl.program_id(0)
    n, part = task // parts, task % parts
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = c < C
    image = n.to(tl.int64) * positions
    sums = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    last = tl.minimum((part + 1) * share, positions)
    for start in range(part * share, last, POSITIONS):
        p = start + tl.arange(0, POSITIONS)
        here = (p < last)[:, None] & known[None, :]
        values = tl.load(x + (image + p)[:, None] * C + c[None, :], mask=here, other=0.0)
        value, _ = _gelu(values.to(tl.float32), TANH)
        sums += value * value
    tl.store(partial + task.to(tl.int64) * C + c, tl.sum(sums, 0), mask=known)


@triton.jit(do_not_specialize=["positions", "parts", "share"])
def _scale(
    x,
    scale,
    shift,
    y,
    positions,
    parts,
    share,
    C: tl.constexpr,
    TANH: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    task = tl.program_id(0)
    n, part = task // parts, task % parts
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = c < C
    image = n.to(tl.int64) * positions
    by = tl.load(scale + n.to(tl.int64) * C + c, mask=known, other=0.0)
    add = tl.load(shift + c, mask=known, other=0.0)
    last = tl.minimum((part + 1) * share, positions)
    for start in range(part * share, last, POSITIONS):
        p = start + tl.arange(0, POSITIONS)
        here = (p < last)[:, None] & known[None, :]
        at = (image + p)[:, None] * C + c[None, :]
        values = tl.load(x + at, mask=here, other=0.0)
        value, _ = _gelu(values.to(tl.float32), TANH)
        result = value * by[None, :] + add[None, :]
        tl.store(y + at, result.to(y.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["positions", "parts", "share"])
def _products(
    x,
    gradient,
    partial,
    positions,
    parts,
    share,
    C: tl.constexpr,
    TANH: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    task = tl.program_id(0)
    n, part = task // parts, task % parts
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = c < C
    image = n.to(tl.int64) * positions
    products = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    plain = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    last = tl.minimum((part + 1) * share, positions)
    for start in range(part * share, last, POSITIONS):
        p = start + tl.arange(0, POSITIONS)
        here = (p < last)[:, None] & known[None, :]
        at = (image + p)[:, None] * C + c[None, :]
        values = tl.load(x + at, mask=here, other=0.0)
        g = tl.load(gradient + at, mask=here, other=0.0).to(tl.float32)
        value, _ = _gelu(values.to(tl.float32), TANH)
        products += g * value
        plain += g
    to = partial + task.to(tl.int64) * (2 * C) + c
    tl.store(to, tl.sum(products, 0), mask=known)
    tl.store(to + C, tl.sum(plain, 0), mask=known)


@triton.jit(do_not_specialize=["positions", "parts", "share"])
def _backward(
    x,
    gradient,
    scale,
    pull,
    result,
    positions,
    parts,
    share,
    C: tl.constexpr,
    TANH: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    task = tl.program_id(0)
    n, part = task // parts, task % parts
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = c < C
    image = n.to(tl.int64) * positions
    by = tl.load(scale + n.to(tl.int64) * C + c, mask=known, other=0.0)
    of = tl.load(pull + n.to(tl.int64) * C + c, mask=known, other=0.0)
    last = tl.minimum((part + 1) * share, positions)
    for start in range(part * share, last, POSITIONS):
        p = start + tl.arange(0, POSITIONS)
        here = (p < last)[:, None] & known[None, :]
        at = (image + p)[:, None] * C + c[None, :]
        values = tl.load(x + at, mask=here, other=0.0)
        g = tl.load(gradient + at, mask=here, other=0.0).to(tl.float32)
        value, slope = _gelu(values.to(tl.float32), TANH)
        of_x = (g * by[None, :] + of[None, :] * value) * slope
        tl.store(result + at, of_x.to(result.dtype.element_ty), mask=here)


class _Work:
    """How a tensor (..., C) of some images is divided among programs."""

    def __init__(self, x: Tensor, images: int, *, adds: bool) -> None:
        self.channels = x.shape[-1]
        self.positions = x.numel() // (images * self.channels)
        block = channel_block(self.channels, 64)
        blocks = ceil_div(self.channels, block)
        self.share = chunk(self.positions, images * blocks, _POSITIONS) if adds else _SHARE
        self.parts = ceil_div(self.positions, self.share)
        self.grid = (images * self.parts, blocks)
        self.block = block

    def launch(self, kernel: triton.JITFunction, *pointers: Tensor, tanh: bool) -> None:
        with on_device(pointers[0]):
            kernel[self.grid](
                *pointers,
                self.positions,
                self.parts,
                self.share,
                C=self.channels,
                TANH=tanh,
                POSITIONS=_POSITIONS,
                CHANNELS=self.block,
                num_warps=4,
            )


def gelu_squares(x: Tensor, images: int, tanh: bool) -> Tensor:
    """Add up GELU(x)^2 over the positions of each image.

    Args:
        x: (images * positions, C) in any shape of these elements whose last axis is C.
        images: How many images there are.
        tanh: Whether GELU has its tanh form.

    Returns:
        float32 (images, C).
    """
    if not x.numel():
        return x.new_zeros(images, x.shape[-1], dtype=torch.float32)
    x, work = x.contiguous(), _Work(x, images, adds=True)
    partial = torch.empty(images, work.parts, work.channels, dtype=torch.float32, device=x.device)
    work.launch(_squares, x, partial, tanh=tanh)
    return partial.sum(1) if work.parts > 1 else partial.squeeze(1)


def gelu_scale(x: Tensor, scale: Tensor, shift: Tensor, tanh: bool) -> Tensor:
    """Compute GELU(x) * scale + shift.

    Args:
        x: As for `gelu_squares`.
        scale: (images, C).
        shift: (C,).
        tanh: Whether GELU has its tanh form.

    Returns:
        x's shape and dtype.
    """
    x, y = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel():
        scale, shift = scale.float().contiguous(), shift.float().contiguous()
        _Work(x, len(scale), adds=False).launch(_scale, x, scale, shift, y, tanh=tanh)
    return y


def gelu_products(x: Tensor, gradient: Tensor, images: int, tanh: bool) -> Tensor:
    """Add up gradient * GELU(x), and the gradient, over the positions of each image.

    Args:
        x: As for `gelu_squares`.
        gradient: x's shape.
        images: How many images there are.
        tanh: Whether GELU has its tanh form.

    Returns:
        float32 (images, 2, C).
    """
    if not x.numel():
        return x.new_zeros(images, 2, x.shape[-1], dtype=torch.float32)
    x, gradient, work = x.contiguous(), gradient.contiguous(), _Work(x, images, adds=True)
    partial = torch.empty(
        images, work.parts, 2, work.channels, dtype=torch.float32, device=x.device
    )
    work.launch(_products, x, gradient, partial, tanh=tanh)
    return partial.sum(1) if work.parts > 1 else partial.squeeze(1)


def gelu_backward(x: Tensor, gradient: Tensor, scale: Tensor, pull: Tensor, tanh: bool) -> Tensor:
    """Compute (gradient * scale + pull * GELU(x)) * GELU'(x).

    Args:
        x: As for `gelu_squares`.
        gradient: x's shape.
        scale: (images, C).
        pull: (images, C).
        tanh: Whether GELU has its tanh form.

    Returns:
        x's shape and dtype.
    """
    x, gradient = x.contiguous(), gradient.contiguous()
    result = torch.empty_like(x)
    if x.numel():
        scale, pull = scale.float().contiguous(), pull.float().contiguous()
        work = _Work(x, len(scale), adds=False)
        work.launch(_backward, x, gradient, scale, pull, result, tanh=tanh)
    return result
