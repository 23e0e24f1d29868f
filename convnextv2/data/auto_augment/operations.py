"""The operations of the policies, on Pillow images, each by its physical strength: degrees, pixels, a factor, bits.

On Pillow and not on tensors: the published recipes were trained so, torchvision does not move tensors bicubically, and on one
core Pillow is as fast or faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageEnhance, ImageFilter, ImageOps


class Canvas(NamedTuple):
    """How an image is moved. fill: 0..255 per channel, for what comes in from outside. resample: of the pixels."""

    fill: tuple[int, ...]
    resample: Image.Resampling


def _move(image: Image.Image, matrix: tuple[float, ...], canvas: Canvas) -> Image.Image:
    # The matrix takes output coordinates to input coordinates.
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=canvas.resample, fillcolor=_fill(image, canvas))


def _rotate(image: Image.Image, degrees: float, canvas: Canvas) -> Image.Image:
    return image.rotate(degrees, resample=canvas.resample, fillcolor=_fill(image, canvas))


def _fill(image: Image.Image, canvas: Canvas) -> int | tuple[int, ...]:
    return canvas.fill[0] if image.mode == "L" else canvas.fill


def _brighten_dark(image: Image.Image, amount: float, canvas: Canvas) -> Image.Image:
    lookup = [min(255, level + int(amount)) if level < 128 else level for level in range(256)]
    return image.point(lookup * len(image.getbands()))


def _posterize(image: Image.Image, bits: float, canvas: Canvas) -> Image.Image:
    return ImageOps.posterize(image, min(8, max(1, int(bits))))  # no bit at all would leave nothing to see


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
"""Name -> (image, strength, canvas) to an image of the same size and mode. Rotate: degrees, counter-clockwise. Posterize: bits
kept. Solarize: threshold from which pixels are inverted. SolarizeAdd: what is added below 128. Color, Contrast, Brightness,
Sharpness: factor, 1 changes nothing. ShearX, ShearY: pixels per pixel. TranslateX, TranslateY, GaussianBlur: pixels. The others
need none."""
