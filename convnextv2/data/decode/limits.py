"""How large an image may be, and what its decoder really allocates.

Memory: beside the file, a decoder holds at most 32 bytes for each pixel of the largest thing that
it decodes at once (the image, a tile, a frame), its result included. JPEG takes 3 to 14 of them,
PNG and TIFF 7 to 10, AVIF 14, WebP 18, JPEG 2000 up to 31. That thing may have at most
`max_pixels` pixels.

Time: a JPEG file may have 16 scans of the largest size, of smaller sizes more, up to 100; of an
animation only the first frame is decoded; what Pillow decodes in Python may have 4 million pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from convnextv2.errors import ImageSizeError

_MAX_TOGETHER = 3
"""An AVIF file decodes its colours, its transparency and small items beside them, as separate
frames."""


class Part(NamedTuple):
    """Something that a decoder allocates as a whole.

    Attributes:
        what: Its name in the message, plural ("tiles"); empty for the image itself.
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
    """Refuse a file of which any part, or all of them together, are too large.

    Args:
        parts: The image itself comes first.
        name: The file, for messages.
        max_pixels: The most pixels of one part.

    Returns:
        The number of pixels of the largest part.

    Raises:
        ImageSizeError: A part is too large; the message has its size and that of the image.
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
    """Refuse an array of bands that is larger than an image of three bands of floats may be.

    Args:
        height: The height in pixels.
        width: The width in pixels.
        bands: The number of bands.
        value_bytes: The bytes of one value.
        name: The file, for the message.
        max_pixels: The most pixels of an image.

    Returns:
        The number of pixels of three values of 4 bytes that take as much memory, at least
        height * width.

    Raises:
        ImageSizeError: The image is too large; the message has its size and the limit.
    """
    values = height * width * bands * -(-value_bytes // 4)
    if height * width > max_pixels or values > 3 * max_pixels:
        raise ImageSizeError(
            f"{name}: {width} x {height} px of {bands} channels are {values} values, more than "
            f"3 * max_image_pixels = {3 * max_pixels}."
        )
    return max(height * width, -(-values // 3))
