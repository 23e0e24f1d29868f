"""What dense answers have in common: bounded sizes, and pictures as text."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

from PIL import Image

from convnextv2.server.refusal import Refusal


class AnswerBudget:
    """The size that the rest of the answer to one request may have.

    Args:
        max_answer_mb: The largest answer, in MB.

    Attributes:
        objects: How many objects the answer has so far.
    """

    def __init__(self, max_answer_mb: float) -> None:
        self._most_mb, self._left = max_answer_mb, int(max_answer_mb * 1e6)
        self.objects = 0

    def write(self, answer: dict[str, Any]) -> bytes:
        """Write a part of the answer as JSON. Raises Refusal if there is no room for it."""
        text = json.dumps(answer, separators=(",", ":"), allow_nan=False).encode()
        self._left -= len(text)
        if self._left < 0:
            raise Refusal(
                413,
                "answer_too_large",
                f"The answer would be larger than {self._most_mb:g} MB. Send fewer images in a "
                "request, or ask for no masks, maps or overlays.",
            )
        return text


def mapped_size(size: tuple[int, int], most: int) -> tuple[int, int]:
    """Choose the size of the masks or the map of an image.

    Args:
        size: Height and width of the image.
        most: The largest number of pixels.

    Returns:
        The size of the image, or if that has too many pixels, a smaller one of the same aspect
        ratio.
    """
    scale = math.sqrt(most / (size[0] * size[1]))
    if scale >= 1:
        return size
    return max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale))


def png_text(picture: Image.Image) -> str:
    """Write a picture as PNG in base64."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=3)
    return base64.b64encode(file.getvalue()).decode("ascii")


def hexadecimal(colour: tuple[int, ...] | list[int]) -> str:
    """Write a colour as style sheets have it."""
    return "#" + "".join(f"{int(level):02x}" for level in colour)
