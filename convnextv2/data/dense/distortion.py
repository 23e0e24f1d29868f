"""Random changes of brightness, contrast, saturation and hue, as in MMSegmentation.

Source: PhotoMetricDistortion, the last step of the ADE20K recipes. All random numbers are drawn
first, so that their count does not depend on which changes are made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from convnextv2.data.randomness import happens, uniform

_BRIGHTNESS = 32.0  # levels
_CONTRAST = (0.5, 1.5)
_SATURATION = (0.5, 1.5)
_HUE = 18 / 180  # of a full turn

_LEVELS = np.arange(256, dtype=np.float64)


@dataclass(frozen=True)
class Distortion:
    """The changes of the colours of one image.

    Attributes:
        brightness: The number of levels that are added.
        contrast: The factor by which all levels are multiplied.
        contrast_last: Whether contrast is changed after saturation and hue.
        saturation: The factor by which the saturation in HSV is multiplied.
        hue: The shift of the hue, where 1 is a full turn.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    contrast_last: bool = False
    saturation: float = 1.0
    hue: float = 0.0

    def __call__(self, pixels: Tensor) -> Tensor:
        """Change an image. Saturation and hue are only changed if there are three channels.

        Args:
            pixels: uint8 (C, H, W).

        Returns:
            uint8 (C, H, W).
        """
        first = _clip(_LEVELS + self.brightness)
        contrast = _clip(_LEVELS * self.contrast)
        if not self.contrast_last:
            first = contrast[first]
        pixels = _look_up(pixels, first)
        if len(pixels) == 3 and (self.saturation, self.hue) != (1.0, 0.0):
            pixels = self._coloured(pixels)
        return _look_up(pixels, contrast) if self.contrast_last else pixels

    def _coloured(self, pixels: Tensor) -> Tensor:
        image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
        hue, saturation, value = image.convert("HSV").split()
        shift = round(256 * self.hue)
        turned = hue.point([(level + shift) % 256 for level in range(256)])
        scaled = saturation.point(_clip(_LEVELS * self.saturation).tolist())
        changed = Image.merge("HSV", (turned, scaled, value)).convert("RGB")
        return torch.from_numpy(np.array(changed)).permute(2, 0, 1)


def draw_distortion(probability: float, generator: torch.Generator) -> Distortion:
    """Draw the changes for one image.

    Args:
        probability: The probability of each of the four changes; 0.5 in the official recipes.
        generator: A generator on the CPU. All random choices are drawn from it.
    """
    changes = [happens(generator, probability) for _ in range(4)]
    amounts = (
        uniform(generator, -_BRIGHTNESS, _BRIGHTNESS),
        uniform(generator, *_CONTRAST),
        uniform(generator, *_SATURATION),
        uniform(generator, -_HUE, _HUE),
    )
    neutral = (0.0, 1.0, 1.0, 0.0)
    brightness, contrast, saturation, hue = (
        amount if change else none
        for amount, change, none in zip(amounts, changes, neutral, strict=True)
    )
    return Distortion(brightness, contrast, happens(generator, 0.5), saturation, hue)


def _clip(levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _look_up(pixels: Tensor, levels: NDArray[np.uint8]) -> Tensor:
    if np.array_equal(levels, _LEVELS):
        return pixels
    return torch.from_numpy(levels[pixels.numpy()])
