"""JPEG files: the fast decoder, the forgiving one, and files that are cut short."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnextv2.errors import DataError

try:
    import simplejpeg
except ImportError:
    _simplejpeg: ModuleType | None = None
else:
    _simplejpeg = simplejpeg

_MAX_SCANS = 100
_MAX_FULL_SCANS = 16
"""A scan of a few bytes makes the decoder go through the whole image once more, so a small file
can keep it busy for hours: "Two Issues with the JPEG Standard" by libjpeg-turbo's authors, who
advise such a limit. Encoders write about ten scans; an image may have 100, but not more than 16 of
the largest size."""
_MAX_SEGMENTS = 10_000
_SCAN = b"\xff\xda"
_END = b"\xff\xd9"
# Not the bytes and restarts that belong to a scan's data, nor markers that no length follows.
_MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd8])")
_FRAME_MARKERS = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_ARITHMETIC_MARKERS = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_ARITHMETIC_COST = 8  # against the scans of Huffman's code, as an empty scan shows
_PROGRESSIVE_MARKERS = {0xC2, 0xC6, 0xCA, 0xCE}


class Segment(NamedTuple):
    """A marker and what follows it.

    Attributes:
        marker: Its second byte, such as 0xDA for a scan's header.
        content: Without the length.
    """

    marker: int
    content: bytes


def segments(jpeg: bytes) -> Iterator[Segment]:
    """List the segments of a JPEG file, up to the image's end."""
    at = 2
    while (found := _MARKER.search(jpeg, at)) is not None and found[1] != _END[1:]:
        begin = found.end()
        length = int.from_bytes(jpeg[begin : begin + 2], "big")
        yield Segment(found[1][0], jpeg[begin + 2 : begin + length])
        at = begin + length


def check_scans(data: bytes, pixels: int, name: str, max_pixels: int) -> None:
    """Refuse a file that would take far too long to decode.

    Args:
        data: The file.
        pixels: The pixels of the image.
        name: The file, for the message.
        max_pixels: The most pixels of an image.

    Raises:
        DataError: There are more scans than an image of this size may have.
    """
    most = min(_MAX_SCANS, _MAX_FULL_SCANS * max_pixels // max(1, pixels))
    # The quick count includes what follows the image, such as a film.
    if data.count(_SCAN) * _ARITHMETIC_COST <= most:
        return
    scans, cost = 0, 1
    for number, (marker, _) in enumerate(segments(data)):
        scans += marker == 0xDA
        cost = _ARITHMETIC_COST if marker in _ARITHMETIC_MARKERS else cost
        if scans * cost > most or number >= _MAX_SEGMENTS:
            raise DataError(
                f"{name}: has more than {most // cost} scans, which no camera or program writes"
                f"{' for so large an image' if most < _MAX_SCANS else ''}. Save it anew."
            )


def decode_fast(
    data: bytes, channels: int, size: tuple[int, int], reduction: int
) -> NDArray[np.uint8] | None:
    """Decode by simplejpeg.

    Args:
        data: A JPEG file of one or three components.
        channels: 1 or 3.
        size: Width and height in pixels.
        reduction: How much smaller the result may be: 1, 2, 4 or 8.

    Returns:
        uint8 (H, W, channels), not turned; or None where simplejpeg is not installed or finds
        anything amiss, be it harmless.
    """
    if _simplejpeg is None:
        return None
    width, height = (-(-side // reduction) if reduction > 1 else 0 for side in size)
    try:
        return _simplejpeg.decode_jpeg(
            data,
            colorspace="RGB" if channels == 3 else "GRAY",
            fastdct=False,
            fastupsample=False,
            min_height=height,
            min_width=width,
            strict=True,
        )
    except ValueError:
        return None


def load(data: bytes, channels: int, reduction: int, name: str) -> Image.Image:
    """Decode by Pillow, which forgives stray bytes and wrong scan headers as most programs do.

    A file that lacks nothing but its end marker is read, too.

    Args:
        data: The file.
        channels: 1 permits luma in place of colours.
        reduction: How much smaller the result may be: 1, 2, 4 or 8.
        name: The file, for the message.

    Returns:
        The image with its pixels.

    Raises:
        DataError: The file is cut short; with how much of it is there.
    """
    try:
        return _draft(data, channels, reduction)
    except OSError as error:
        if "truncated" not in str(error):
            raise
    whole = _checked_whole(data, name)
    return _draft(whole, channels, reduction)


def _draft(data: bytes, channels: int, reduction: int) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    if image.format == "JPEG" and image.mode in ("L", "RGB"):
        width, height = image.size
        small = (width // reduction, height // reduction) if reduction > 1 else None
        image.draft("L" if channels == 1 else image.mode, small)
    image.load()
    return image


def _checked_whole(data: bytes, name: str) -> bytes:
    """Return the file with its end marker, if that is all that it lacks.

    The missing part is filled with different bytes. If that changes the pixels, the file lacks more
    than its end marker.
    """
    if not _has_all_scans(data):
        raise DataError(f"{name}: is cut short: it ends before the last of its scans begins.")
    data = data.rstrip(b"\0") if data.endswith(b"\0\0\0") else data  # a download that broke off
    data = data.rstrip(b"\xff")
    plain = _shown(data + _END)
    rows = min(_equal_rows(plain, _shown(data + filler + _END)) for filler in _FILLERS)
    if rows < len(plain):
        share = 100 * rows // len(plain)
        raise DataError(f"{name}: is cut short: about {share} % of its rows are there.")
    return data + _END


# With restart markers, since a decoder that waits for one passes over everything else.
_FILLERS = tuple(
    b"".join(pattern * 40 + bytes([0xFF, 0xD0 + number % 8]) for number in range(16))
    for pattern in (b"\x15\x9a\x63", b"\xea\x42\xd7")
)


def _shown(jpeg: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(jpeg), formats=("JPEG",)))


def _equal_rows(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    """Count the rows at the top that are the same."""
    differs = (one != other).reshape(len(one), -1).any(1)
    return int(differs.argmax()) if differs.any() else len(one)


def _has_all_scans(jpeg: bytes) -> bool:
    """Return whether each coefficient of each component has a scan that brings its last bit."""
    missing: dict[int, set[int]] = {}
    is_progressive = False
    for number, (marker, content) in enumerate(segments(jpeg)):
        if number >= _MAX_SEGMENTS:
            return False
        if marker in _FRAME_MARKERS and not missing:
            is_progressive = marker in _PROGRESSIVE_MARKERS
            missing = {code: set(range(64)) for code in content[6::3]}
        elif marker == 0xDA and content:
            count = content[0]
            codes, tail = content[1 : 1 + 2 * count : 2], content[1 + 2 * count : 4 + 2 * count]
            if len(tail) < 3:
                return False
            first, last, bits = tail if is_progressive else (0, 63, 0)
            for code in codes if bits & 15 == 0 else b"":
                missing.get(code, set()).difference_update(range(first, last + 1))
    return bool(missing) and not any(missing.values())
