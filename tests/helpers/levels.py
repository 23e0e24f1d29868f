"""Pixels as Pillow images and back, and a comparison that allows for rounding."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def as_image(pixels: Tensor) -> Image.Image:
    """Turn uint8 (3, H, W) into a Pillow image."""
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def as_pixels(image: Image.Image) -> Tensor:
    """Turn a Pillow image of three bands into uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def assert_within_a_level(pixels: Tensor, expected: Tensor) -> None:
    """Resampling rounds twice, so a few in a hundred thousand may be off by two."""
    assert pixels.shape == expected.shape and pixels.dtype == torch.uint8
    differences = (pixels.int() - expected.int()).abs()
    assert (
        differences.max() <= 2
        and (differences > 1).float().mean() < 1e-4
        and (differences > 0).float().mean() < 0.02
    )
