"""Draw maps of support and opposition over an image, such as class activation maps."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from convnextv2.evaluation.gallery import as_rgb

FOR, AGAINST = (240, 110, 0), (20, 90, 230)
_SHARE = 0.8
"""The share of the colour at the strongest point of the map."""


def heat_picture(pixels: Tensor, values: Tensor) -> Image.Image:
    """Draw a map over an image: orange where it is positive, blue where it is negative.

    The image is shown in grey, so that its colours are not mistaken for those of the map. The
    largest absolute value of the map has the strongest colour, and 0 has none.

    Args:
        pixels: uint8 (C, H, W).
        values: The map, (H, W). Values that are not finite are shown as 0.
    """
    grey = as_rgb(pixels).float().mean(0).cpu().numpy()[..., None].repeat(3, 2)
    heat = np.nan_to_num(values.double().cpu().numpy(), nan=0.0, posinf=0.0, neginf=0.0)
    strongest = np.abs(heat).max(initial=0.0) or 1.0
    share = (_SHARE * np.abs(heat) / strongest)[..., None]
    colour = np.where(heat[..., None] >= 0, np.array(FOR), np.array(AGAINST))
    mixed = grey * (1 - share) + colour * share
    return Image.fromarray(mixed.round().astype(np.uint8))
