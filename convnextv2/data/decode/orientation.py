"""Reads the EXIF orientation of images, and turns pixels upright.

`picture`, `pillow` and `arrays` call `upright` after decoding. Pillow itself turns the TIFF files
that it reads.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

_ORIENTATION = 0x0112  # EXIF tag


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, or 1 if there is none that can be read."""
    try:
        # The method of the subclass for PNG would decode the pixels.
        orientation = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # damaged metadata raise errors of many types
        return 1
    return orientation if orientation in range(1, 9) else 1


def upright(pixels: NDArray[np.uint8], orientation: int) -> Tensor:
    """Turn pixels upright.

    Args:
        pixels: uint8 (H, W, C), as stored in the file.
        orientation: The EXIF orientation, 1 to 8.

    Returns:
        uint8 (C, h, w) in channels-last memory, where h and w are the upright sizes.
    """
    turned = torch.from_numpy(pixels).permute(2, 0, 1)
    if orientation in (5, 6, 7, 8):
        turned = turned.transpose(1, 2)
    if orientation in (2, 3, 6, 7):
        turned = turned.flip(2)
    if orientation in (3, 4, 7, 8):
        turned = turned.flip(1)
    return turned.permute(1, 2, 0).contiguous().permute(2, 0, 1)
