"""Limits for the sizes of images and of the parts that a decoder allocates.

Memory: In addition to the file, a decoder allocates at most 32 bytes for each pixel of the largest
part that it decodes at once (the image, a tile or a frame), including the result. JPEG needs 3 to
14 bytes, PNG and TIFF 7 to 10, AVIF 14, WebP 18, and JPEG 2000 up to 31. A part may have at most
`max_pixels` pixels.

Time: A JPEG file of the largest size may have 16 scans, and smaller ones more, up to 100. Only the
first frame of an animation is decoded. An image that Pillow decodes in Python may have 4 million
pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from convnextv2.errors import ImageSizeError

_MAX_TOGETHER = 3
"""The limit for the sum of all parts, as a multiple of `max_pixels`. The AVIF decoder decodes
colours, transparency and other small items as separate frames."""


class Part(NamedTuple):
    """A part of a file that a decoder allocates as a whole.

    Attributes:
        what: The plural noun for the part in messages ("tiles"); "" for the image itself.
        width: The width in pixels.
        height: The height in pixels.
    """

    what: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return self.width * self.height


def check_parts(parts: Iterable[Part], name: str, max_pixels: int) -> int:
    """Refuse a file if a part, or all parts together, are too large.

    Args:
        parts: The image itself, followed by other parts.
        name: The name of the file, for the message.
        max_pixels: The largest number of pixels of one part.

    Returns:
        The number of pixels of the largest part.

    Raises:
        ImageSizeError: A part is too large. The message states its size and that of the image.
    """
    image, *others = parts
    if image.pixels > max_pixels:
        raise ImageSizeError(
            f"{name}: {image.width} x {image.height} px are more than "
            f"max_image_pixels = {max_pixels}."
        )
    total = sum(part.pixels for part in others)
    for part in others:
        if part.pixels > max_pixels or total > _MAX_TOGETHER * max_pixels:
            raise ImageSizeError(
                f"{name}: states {image.width} x {image.height} px, but its {part.what} of "
                f"{part.width} x {part.height} px are more than max_image_pixels = {max_pixels}."
            )
    return max(part.pixels for part in (image, *others))


def check_values(
    height: int, width: int, bands: int, value_bytes: int, name: str, max_pixels: int
) -> int:
    """Refuse an array that takes more memory than the largest image of three float32 bands.

    Args:
        height: The height in pixels.
        width: The width in pixels.
        bands: The number of bands.
        value_bytes: The size of one value, in bytes.
        name: The name of the file, for the message.
        max_pixels: The largest number of pixels of an image.

    Returns:
        The number of pixels with three float32 values that take the same memory, but at least
        height * width.

    Raises:
        ImageSizeError: The image is too large. The message states its size and the limit.
    """
    values = height * width * bands * -(-value_bytes // 4)
    if height * width > max_pixels or values > 3 * max_pixels:
        raise ImageSizeError(
            f"{name}: {width} x {height} px of {bands} channels are {values} values, more than "
            f"3 * max_image_pixels = {3 * max_pixels}."
        )
    return max(height * width, -(-values // 3))
