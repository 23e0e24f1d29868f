"""Draw label maps: a colour for each class, over the image or on its own."""

from __future__ import annotations

import colorsys

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from convnextv2.evaluation.gallery import as_rgb

_TURN = 0.618033988749895  # of a circle: the golden ratio keeps neighbours apart
_LEVELS = ((0.85, 0.95), (0.55, 0.8), (0.95, 0.65))  # saturation and value
_SHARE = 0.55
"""The share of the class's colour in an overlay."""


def class_colours(count: int) -> NDArray[np.uint8]:
    """Return a colour for each class of a label map.

    Detections and the map of embeddings have the colours of `drawing.colour_of`.

    Args:
        count: Number of classes.

    Returns:
        uint8 (count, 3). The first class is grey, since it is the background in most data sets.
    """
    colours = [(112, 112, 112)]
    for i in range(count - 1):
        saturation, value = _LEVELS[i % len(_LEVELS)]
        rgb = colorsys.hsv_to_rgb(i * _TURN % 1, saturation, value)
        colours.append(tuple(round(255 * band) for band in rgb))  # type: ignore[arg-type]
    return np.array(colours[:count], np.uint8).reshape(-1, 3)


def overlay(pixels: Tensor, classes: Tensor, count: int) -> Image.Image:
    """Draw the colours of classes over an image.

    Args:
        pixels: uint8 (C, H, W). Three channels are shown as RGB; for other numbers, see
            `gallery.as_rgb`.
        classes: Integers (H, W). Pixels with a negative value are only darkened.
        count: Number of classes.
    """
    photo = as_rgb(pixels).permute(1, 2, 0).float()
    colours = torch.from_numpy(class_colours(count)).float()
    known = (classes >= 0)[..., None]
    painted = colours[classes.clamp(min=0).long()]
    mixed = torch.where(known, photo * (1 - _SHARE) + painted * _SHARE, photo * (1 - _SHARE))
    return Image.fromarray(mixed.round().to(torch.uint8).numpy())


def index_picture(classes: Tensor, count: int) -> Image.Image:
    """Make a picture whose values are class indices, for other programs.

    Args:
        classes: Integers (H, W), class indices.
        count: Number of classes.

    Returns:
        A picture with a palette of the classes' colours, 8 bits; or 16 bits without one if an index
        is above 255.
    """
    indices = classes.numpy()
    if count > 256 or indices.max(initial=0) > 255:
        return Image.fromarray(indices.astype(np.uint16))
    picture = Image.fromarray(indices.astype(np.uint8))
    picture.putpalette(class_colours(count).ravel().tolist())
    return picture
