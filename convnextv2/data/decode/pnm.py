"""PBM, PGM and PPM files of more than 8 bits, or of a range of their own.

Pillow decodes them value by value in Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

_BINARY = "ppm"
_SLOW = ("ppm_plain", "bmp_rle")


def is_slow(image: ImageFile.ImageFile) -> bool:
    """Return whether an image that is not loaded yet would be decoded in Python."""
    return bool(image.tile) and image.tile[0][0] in _SLOW


def is_ranged(image: ImageFile.ImageFile) -> bool:
    """Return whether an image, not loaded yet, is binary and states the largest of its values."""
    return image.format == "PPM" and bool(image.tile) and image.tile[0][0] == _BINARY


def largest(image: ImageFile.ImageFile) -> int:
    """Return the largest value that an image for which `is_ranged` is true may have."""
    arguments = image.tile[0][3]
    assert isinstance(arguments, tuple)
    return int(arguments[1])


def ranged_values(image: ImageFile.ImageFile, data: bytes) -> tuple[NDArray[Any], int]:
    """Return the values as the file has them.

    Args:
        image: An image for which `is_ranged` is true.
        data: The file.

    Returns:
        (H, W, C) of 8 or 16 bits, and the largest that there may be.
    """
    begin, most = image.tile[0][2], largest(image)
    bands = len(image.getbands())
    count = image.width * image.height * bands
    kind = np.dtype("u1" if most < 256 else ">u2")
    if len(data) - begin < count * kind.itemsize:
        raise ValueError("image file is truncated")
    values = np.frombuffer(data, kind, count, begin)
    return values.reshape(image.height, image.width, bands), most
