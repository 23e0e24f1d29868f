"""Helpers for the answers of segmentors and detectors: bounded sizes, and pictures as text."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

from PIL import Image

from convnextv2.server.refusal import Refusal


class AnswerBudget:
    """Bounds the size of the answer to one request.

    Args:
        max_answer_mb: The largest answer, in MB.

    Attributes:
        objects: The number of objects in the answer so far.
    """

    def __init__(self, max_answer_mb: float) -> None:
        self._max_mb, self._left = max_answer_mb, int(max_answer_mb * 1e6)
        self.objects = 0

    def write(self, answer: dict[str, Any]) -> bytes:
        """Return a part of the answer as JSON. Raises Refusal if the answer becomes too large."""
        text = json.dumps(answer, separators=(",", ":"), allow_nan=False).encode()
        self._left -= len(text)
        if self._left < 0:
            raise Refusal(
                413,
                "answer_too_large",
                f"The answer would be larger than {self._max_mb:g} MB. Send fewer images in a "
                "request, or ask for no masks, maps or overlays.",
            )
        return text


def reduced_size(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """Return the size of the masks or the map of an image.

    Args:
        size: Height and width of the image.
        max_pixels: The largest number of pixels.

    Returns:
        The size of the image, or if that has too many pixels, a smaller one of the same aspect
        ratio.
    """
    scale = math.sqrt(max_pixels / (size[0] * size[1]))
    if scale >= 1:
        return size
    return max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale))


def png_text(picture: Image.Image) -> str:
    """Return a picture as a PNG file in base64."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=3)
    return base64.b64encode(file.getvalue()).decode("ascii")


def css_colour(colour: tuple[int, ...] | list[int]) -> str:
    """Return a colour in the form of style sheets, such as #1f77b4."""
    return "#" + "".join(f"{int(level):02x}" for level in colour)
