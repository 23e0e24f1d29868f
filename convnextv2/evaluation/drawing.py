"""Draw boxes and masks of objects over pictures."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from convnextv2.data.dense import rle
from convnextv2.data.dense.rle import Rle

Colour = tuple[int, int, int]

MASK_SHARE = 0.45
"""The share of the mask's colour in a masked pixel."""
MIN_DRAWN_PX = 320
"""Smaller pictures are enlarged by a whole factor, so that boxes and text have room."""


@dataclass(frozen=True)
class DrawnObject:
    """One object to draw.

    Attributes:
        box: float64 (4,), x0, y0, x1, y1 in px.
        text: The text at the box; may be empty.
        colour: The colour of the box and the mask.
        mask: The mask; None if there is none.
        dashed: Whether the box is drawn with a broken line.
    """

    box: NDArray[np.float64]
    text: str
    colour: Colour
    mask: Rle | None = None
    dashed: bool = False


def colour_of(label: int) -> Colour:
    """Return the colour of a class. Neighbouring class numbers get very different hues."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + 0.618034 * label) % 1.0, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def tag_of(class_names: Sequence[str], label: int, score: float) -> str:
    """Return the text at the box of an object: its class and score.

    The name is left out if there is one class only, since it would hide parts of the picture and
    tell nothing.
    """
    name = f"{class_names[label]} " if len(class_names) > 1 else ""
    return f"{name}{score:.0%}"


def draw_objects(picture: Image.Image, objects: Sequence[DrawnObject]) -> Image.Image:
    """Draw objects over a picture.

    Args:
        picture: The picture, RGB, of the size that the coordinates refer to.
        objects: The objects. The first ones are drawn last, so that they are on top.

    Returns:
        A new picture. A small one is enlarged by a whole factor.
    """
    pixels = np.array(picture.convert("RGB"))
    for each in reversed(objects):
        if each.mask is not None:
            inside = rle.decode(each.mask) > 0
            colour = np.array(each.colour)
            blended = pixels[inside] * (1 - MASK_SHARE) + colour * MASK_SHARE
            pixels[inside] = blended.astype(np.uint8)
    drawn = Image.fromarray(pixels)
    factor = max(1, -(-MIN_DRAWN_PX // max(drawn.size)))
    if factor > 1:
        size = (factor * drawn.width, factor * drawn.height)
        drawn = drawn.resize(size, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(drawn)
    width = max(1, round(max(drawn.size) / 400))
    font = ImageFont.load_default(size=max(10, round(max(drawn.size) / 60)))
    for each in reversed(objects):
        corners = [float(value) * factor for value in each.box.tolist()]
        _rectangle(draw, corners, each.colour, width, dashed=each.dashed)
        if each.text:
            _write_text(draw, corners, each.text, each.colour, font)
    return drawn


def _rectangle(
    draw: ImageDraw.ImageDraw, corners: list[float], colour: Colour, width: int, *, dashed: bool
) -> None:
    x0, y0, x1, y1 = corners
    if not dashed:
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=width)
        return
    step = 6 * width
    for start in np.arange(x0, x1, 2 * step):
        for y in (y0, y1 - 1):
            draw.line((start, y, min(start + step, x1), y), fill=colour, width=width)
    for start in np.arange(y0, y1, 2 * step):
        for x in (x0, x1 - 1):
            draw.line((x, start, x, min(start + step, y1)), fill=colour, width=width)


def _write_text(
    draw: ImageDraw.ImageDraw,
    corners: list[float],
    text: str,
    colour: Colour,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """Write text on a background of the box's colour, above the box if there is room."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    height = bottom - top + 4
    x = min(max(0.0, corners[0]), max(0.0, draw.im.size[0] - (right - left) - 4))
    y = corners[1] - height if corners[1] >= height else corners[1]
    draw.rectangle((x, y, x + right - left + 4, y + height), fill=colour)
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    draw.text((x + 2 - left, y + 2 - top), text, fill="black" if luma > 120 else "white", font=font)
