"""The operations of the policies, each by its physical strength: degrees, pixels, a factor, bits.

They act on Pillow images and not on tensors, because the published recipes were trained so,
torchvision does not move tensors bicubically, and on one core Pillow is as fast or faster. Only
moving pixels has a native kernel, which is three times as fast and the same to one level.
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
    """How an image is moved.

    Attributes:
        fill: 0 to 255 for each channel, for what comes in from outside.
        resample: How pixels are interpolated.
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
    # The image turns around its centre, as in Image.rotate.
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
    # No bit at all would leave nothing to see.
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
"""Each operation by its name: (image, strength, canvas) to an image of the same size and mode.

The strength is, of Rotate, degrees counter-clockwise; of Posterize, the bits that are kept; of
Solarize, the threshold from which pixels are inverted; of SolarizeAdd, what is added below 128; of
Color, Contrast, Brightness and Sharpness, a factor, where 1 changes nothing; of ShearX and ShearY,
pixels per pixel; of TranslateX, TranslateY and GaussianBlur, pixels. The others need none.
"""
