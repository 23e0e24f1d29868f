"""Resizing of pixels."""

from __future__ import annotations

import platform

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convnextv2.preprocessing import Interpolation


def resize(
    pixels: Tensor, size: tuple[int, int], interpolation: Interpolation, *, antialias: bool = True
) -> Tensor:
    """Resize pixels.

    Args:
        pixels: uint8 (C, H, W).
        size: Height and width of the result.
        interpolation: See the knob of this name.
        antialias: Whether to average over the source pixels.

    Returns:
        uint8 (C, *size). With antialiasing, it differs from Pillow's result by at most 1 level;
        without, from the results of MindSpore and OpenCV.
    """
    if tuple(pixels.shape[-2:]) == tuple(size):
        return pixels
    if interpolation in ("lanczos", "area"):  # supported only by Pillow; `area` is its box filter
        filter = Image.Resampling.LANCZOS if interpolation == "lanczos" else Image.Resampling.BOX
        bands = [Image.fromarray(band.numpy()).resize(size[::-1], filter) for band in pixels]
        return torch.stack([torch.from_numpy(np.array(band)) for band in bands])
    if antialias:
        return _resize_averaging(pixels, size, interpolation)
    align = None if interpolation == "nearest" else False
    levels = torch.nn.functional.interpolate(
        pixels[None].float(), size, mode=interpolation, align_corners=align
    )
    return levels[0].round_().clamp_(0, 255).to(torch.uint8)


def _resize_averaging(
    pixels: Tensor, size: tuple[int, int], interpolation: Interpolation
) -> Tensor:
    """Resize as `torchvision.transforms.v2.functional.resize` does, bit for bit.

    torchvision itself is not used, because its import takes 1.5 s, mostly for torch.compile.
    """
    images = pixels[None]
    if images.is_contiguous(memory_format=torch.channels_last):
        # Without this stride, PyTorch takes a single image to be contiguous, and copies it.
        strides = (pixels.numel(), *pixels.stride())
        images = pixels.as_strided(tuple(images.shape), strides)
    if interpolation == "nearest":
        return torch.nn.functional.interpolate(images, size, mode="nearest-exact")[0]
    takes_uint8 = interpolation == "bicubic" or (
        torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        or platform.machine() in ("aarch64", "arm64")
    )
    resized = torch.nn.functional.interpolate(
        images if takes_uint8 else images.float(),
        size,
        mode=interpolation,
        align_corners=False,
        antialias=True,
    )
    return resized[0] if takes_uint8 else resized[0].round_().to(torch.uint8)
