"""Reads PBM, PGM and PPM files with more than 8 bits, or whose largest value is not 255.

Pillow would decode them value by value in Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

_BINARY = "ppm"
_SLOW = ("ppm_plain", "bmp_rle")


def is_slow(image: ImageFile.ImageFile) -> bool:
    """Return whether Pillow decodes an image, not loaded yet, in Python."""
    return bool(image.tile) and image.tile[0][0] in _SLOW


def is_ranged(image: ImageFile.ImageFile) -> bool:
    """Return whether an image, not loaded yet, is binary and states its largest possible value."""
    return image.format == "PPM" and bool(image.tile) and image.tile[0][0] == _BINARY


def largest(image: ImageFile.ImageFile) -> int:
    """Return the largest possible value of an image for which `is_ranged` is true."""
    arguments = image.tile[0][3]
    assert isinstance(arguments, tuple)
    return int(arguments[1])


def ranged_values(image: ImageFile.ImageFile, data: bytes) -> tuple[NDArray[Any], int]:
    """Return the values in the full depth of the file.

    Args:
        image: An image for which `is_ranged` is true.
        data: The content of the file.

    Returns:
        The values, uint8 or big-endian uint16 (H, W, C), and the largest possible value.
    """
    begin, top = image.tile[0][2], largest(image)
    bands = len(image.getbands())
    count = image.width * image.height * bands
    kind = np.dtype("u1" if top < 256 else ">u2")
    if len(data) - begin < count * kind.itemsize:
        raise ValueError("image file is truncated")
    values = np.frombuffer(data, kind, count, begin)
    return values.reshape(image.height, image.width, bands), top
