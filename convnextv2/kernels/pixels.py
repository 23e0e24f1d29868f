"""Pixels of uint8: normalised in one pass, and warped as Pillow does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from convnextv2.kernels.choice import are_on
from convnextv2.kernels.library import call, floats


def can_take_pixels() -> bool:
    """Whether `warp` and `normalise` are there."""
    return are_on()


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(pixels - mean) / std, bit for bit, in one pass over memory.

    pixels: uint8 (N, C, H, W), channels-last. mean, std: float32, C values. Returns float32 (N, C, H, W), channels-last."""
    images = torch.empty_like(pixels, dtype=torch.float32, memory_format=torch.channels_last)
    channels = pixels.shape[1]
    assert (
        pixels.is_contiguous(memory_format=torch.channels_last)
        and mean.numel() == std.numel() == channels
    )
    call(
        "normalise",
        pixels,
        pixels,
        pixels.numel() // channels,
        channels,
        floats(mean),
        floats(std),
        images,
    )
    return images


def warp(image: Tensor, matrix: Sequence[float], *, bicubic: bool, fill: Sequence[int]) -> Tensor:
    """Pillow's affine transform of an image of the same size, several times as fast; equal within one level.

    image: uint8 (H, W, C), C 1 or 3. matrix: (a, b, c, d, e, f), which takes output pixels (x, y) to (a x + b y + c, d x + e y +
    f). bicubic: else bilinear. fill: C levels, for what comes in from outside."""
    assert (
        image.dim() == 3
        and image.dtype == torch.uint8
        and image.numel()
        and image.shape[-1] in (1, 3)
    ), image.shape
    assert len(fill) == image.shape[-1] and len(matrix) == 6
    image = image.contiguous()
    out, levels = torch.empty_like(image), image.new_tensor(fill)
    call(
        "warp",
        image,
        image,
        *image.shape,
        image.new_tensor(matrix, dtype=torch.float64),
        int(bicubic),
        levels,
        out,
    )
    return out
