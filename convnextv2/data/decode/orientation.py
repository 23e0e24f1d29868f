"""The orientation that EXIF states: found, and undone.

`picture`, `pillow` and `arrays` call `upright` after decoding. TIFF files that Pillow reads are
turned by Pillow itself.
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
        # The image's own method would decode the pixels of a PNG.
        orientation = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # of the many kinds that damaged metadata raise
        return 1
    return orientation if orientation in range(1, 9) else 1


def upright(pixels: NDArray[np.uint8], orientation: int) -> Tensor:
    """Undo the EXIF orientation.

    Args:
        pixels: (H, W, C)
        orientation: 1 to 8.

    Returns:
        (C, H, W), a view of channels-last memory.
    """
    turned = torch.from_numpy(pixels).permute(2, 0, 1)
    if orientation in (5, 6, 7, 8):
        turned = turned.transpose(1, 2)
    if orientation in (2, 3, 6, 7):
        turned = turned.flip(2)
    if orientation in (3, 4, 7, 8):
        turned = turned.flip(1)
    return turned.permute(1, 2, 0).contiguous().permute(2, 0, 1)
