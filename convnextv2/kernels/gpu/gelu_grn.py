"""GELU and GRN of ConvNeXt V2 on a GPU: their sums over positions, their values and gradients.

Only the input of GELU is kept for the backward pass, which computes GELU again. A program takes a
share of the positions of one image and some channels. Sums over an image are written as partial
sums, one for each share.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from convnextv2.kernels.gpu.launch import ceil_div, channel_block, chunk, on_device

_POSITIONS = 32
"""The number of positions that a program processes at a time."""
_SHARE = 256
"""The number of positions that a program processes in total, if it writes elements, not sums."""


@triton.jit
def _gelu(x, TANH: tl.constexpr):
    """Compute GELU and its derivative of float32 numbers."""
    if TANH:  # 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
        square = x * x
        inner = 0.7978845608028654 * x * (1 + 0.044715 * square)
        small = tl.exp(-2 * tl.abs(inner))  # at most 1, so that it cannot overflow
        t = (1 - small) / (1 + small)
        t = tl.where(inner < 0, -t, t)
        phi = 0.5 * (1 + t)
        slope = phi + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * square)
    else:  # x Phi(x)
        phi = 0.5 * (1 + tl.erf(x * 0.7071067811865476))
        slope = phi + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    return x * phi, slope


@triton.jit
def _assignment(positions, parts, share, C: tl.constexpr, CHANNELS: tl.constexpr):
    """Find what this program works on: a share of the positions of an image, and some channels.

    Returns its number among the shares of all images, the image, the first position of the share,
    the end of the share, the channels, and which of these exist.
    """
    program = tl.program_id(0)
    part = program % parts
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    end = tl.minimum((part + 1) * share, positions)
    return program.to(tl.int64), (program // parts).to(tl.int64), part * share, end, c, c < C


@triton.jit
def _elements(image, positions, p, end, c, known, C: tl.constexpr):
    """Find the elements of some positions and channels of an image, and which of them exist."""
    here = (p < end)[:, None] & known[None, :]
    return (image * positions + p)[:, None] * C + c[None, :], here


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
    program, image, first, end, c, known = _assignment(positions, parts, share, C, CHANNELS)
    sums = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for start in range(first, end, POSITIONS):
        p = start + tl.arange(0, POSITIONS)
        at, here = _elements(image, positions, p, end, c, known, C)
        value, _ = _gelu(tl.load(x + at, mask=here, other=0.0).to(tl.float32), TANH)
        sums += value * value
    tl.store(partial + program * C + c, tl.sum(sums, 0), mask=known)


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
    _, image, first, end, c, known = _assignment(positions, parts, share, C, CHANNELS)
    factors = tl.load(scale + image * C + c, mask=known, other=0.0)
    shifts = tl.load(shift + c, mask=known, other=0.0)
    for start in range(first, end, POSITIONS):
        p = start + tl.arange(0, POSITIONS)
        at, here = _elements(image, positions, p, end, c, known, C)
        value, _ = _gelu(tl.load(x + at, mask=here, other=0.0).to(tl.float32), TANH)
        result = value * factors[None, :] + shifts[None, :]
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
    program, image, first, end, c, known = _assignment(positions, parts, share, C, CHANNELS)
    products = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    gradients = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for start in range(first, end, POSITIONS):
        p = start + tl.arange(0, POSITIONS)
        at, here = _elements(image, positions, p, end, c, known, C)
        value, _ = _gelu(tl.load(x + at, mask=here, other=0.0).to(tl.float32), TANH)
        g = tl.load(gradient + at, mask=here, other=0.0).to(tl.float32)
        products += g * value
        gradients += g
    to = partial + program * (2 * C) + c
    tl.store(to, tl.sum(products, 0), mask=known)
    tl.store(to + C, tl.sum(gradients, 0), mask=known)


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
    _, image, first, end, c, known = _assignment(positions, parts, share, C, CHANNELS)
    factors = tl.load(scale + image * C + c, mask=known, other=0.0)
    pulls = tl.load(pull + image * C + c, mask=known, other=0.0)
    for start in range(first, end, POSITIONS):
        p = start + tl.arange(0, POSITIONS)
        at, here = _elements(image, positions, p, end, c, known, C)
        value, slope = _gelu(tl.load(x + at, mask=here, other=0.0).to(tl.float32), TANH)
        g = tl.load(gradient + at, mask=here, other=0.0).to(tl.float32)
        of_x = (g * factors[None, :] + pulls[None, :] * value) * slope
        tl.store(result + at, of_x.to(result.dtype.element_ty), mask=here)


class _Work:
    """The division of a tensor (..., C) of some images among the programs of a launch.

    Args:
        x: The tensor.
        images: The number of images.
        adds: Whether programs write partial sums, of which there should be few.
    """

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
        x: Any shape whose last axis is C, with the positions of the images one after another.
        images: The number of images.
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
        images: The number of images.
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
        pull: (images, C), the factor of GELU(x) in the gradient that passes through GRN's norms.
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
