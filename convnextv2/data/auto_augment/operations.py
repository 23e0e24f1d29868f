"""The operations of the policies, with strengths in degrees, pixels, bits or as a factor.

They work on Pillow images and not on tensors, for three reasons: the published recipes were trained
with Pillow, torchvision has no bicubic affine transform of tensors, and Pillow is as fast or faster
on one core. Only the affine transform has a native kernel. It is three times as fast, and differs
from Pillow by at most one level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from convnextv2.kernels import pixels as native


class Canvas(NamedTuple):
    """The settings of geometric operations.

    Attributes:
        fill: The level of each channel, 0 to 255, for pixels from outside the image.
        resample: The interpolation.
    """

    fill: tuple[int, ...]
    resample: Image.Resampling


def _move(image: Image.Image, matrix: tuple[float, ...], canvas: Canvas) -> Image.Image:
    # The matrix maps output coordinates to input coordinates.
    if native.can_take_pixels() and canvas.resample in (
        Image.Resampling.BILINEAR,
        Image.Resampling.BICUBIC,
    ):
        channels = len(image.getbands())
        pixels = torch.from_numpy(np.array(image)).view(image.height, image.width, channels)
        bicubic = canvas.resample == Image.Resampling.BICUBIC
        moved = native.warp(pixels, matrix, bicubic=bicubic, fill=canvas.fill[:channels]).numpy()
        return Image.fromarray(moved if channels > 1 else moved[..., 0])
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        resample=canvas.resample,
        fillcolor=_fill(image, canvas),
    )


def _rotate(image: Image.Image, degrees: float, canvas: Canvas) -> Image.Image:
    # The image is rotated around its centre, as Image.rotate does.
    angle = math.radians(degrees)
    a, b, d, e = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    x, y = image.width / 2, image.height / 2
    return _move(image, (a, b, x - a * x - b * y, d, e, y - d * x - e * y), canvas)


def _fill(image: Image.Image, canvas: Canvas) -> int | tuple[int, ...]:
    return canvas.fill[0] if image.mode == "L" else canvas.fill


def _brighten_dark(image: Image.Image, amount: float, canvas: Canvas) -> Image.Image:
    lookup = [min(255, level + int(amount)) if level < 128 else level for level in range(256)]
    return image.point(lookup * len(image.getbands()))


def _posterize(image: Image.Image, bits: float, canvas: Canvas) -> Image.Image:
    # At least one bit is kept; with none, the image would be black.
    return ImageOps.posterize(image, min(8, max(1, int(bits))))


def _enhance(by: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, factor, canvas: by(image).enhance(factor)


Operation = Callable[[Image.Image, float, Canvas], Image.Image]

OPERATIONS: dict[str, Operation] = {
    "AutoContrast": lambda image, _, canvas: ImageOps.autocontrast(image),
    "Equalize": lambda image, _, canvas: ImageOps.equalize(image),
    "Invert": lambda image, _, canvas: ImageOps.invert(image),
    "Rotate": _rotate,
    "Posterize": _posterize,
    "Solarize": lambda image, threshold, canvas: ImageOps.solarize(image, int(threshold)),
    "SolarizeAdd": _brighten_dark,
    "Color": _enhance(ImageEnhance.Color),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
    "ShearX": lambda image, factor, canvas: _move(image, (1, factor, 0, 0, 1, 0), canvas),
    "ShearY": lambda image, factor, canvas: _move(image, (1, 0, 0, factor, 1, 0), canvas),
    "TranslateX": lambda image, pixels, canvas: _move(image, (1, 0, pixels, 0, 1, 0), canvas),
    "TranslateY": lambda image, pixels, canvas: _move(image, (1, 0, 0, 0, 1, pixels), canvas),
    "GaussianBlur": lambda image, radius, canvas: image.filter(ImageFilter.GaussianBlur(radius)),
}
"""The operations by name. They map (image, strength, canvas) to an image of the same size and mode.

The meaning of the strength:

- Rotate: degrees counter-clockwise
- Posterize: the number of bits that are kept
- Solarize: the level from which pixels are inverted
- SolarizeAdd: the number of levels that are added to levels below 128
- Color, Contrast, Brightness and Sharpness: a factor, where 1 changes nothing
- ShearX and ShearY: pixels per pixel
- TranslateX, TranslateY and GaussianBlur: pixels
- all others: no meaning
"""
