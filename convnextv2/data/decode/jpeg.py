"""Decodes JPEG files: fast by simplejpeg, or tolerantly by Pillow, with checks for truncation."""

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
"""A scan of a few bytes makes the decoder go through the whole image once more, so a small file can
keep it busy for hours. The authors of libjpeg-turbo advise such a limit ("Two Issues with the JPEG
Standard"). Encoders write about ten scans. An image may have 100, but one of the largest size only
16."""
_MAX_SEGMENTS = 10_000
_SCAN = b"\xff\xda"
_END = b"\xff\xd9"
# Matches neither stuffed bytes and restart markers in the data of a scan nor markers without a
# length.
_MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd8])")
_FRAME_MARKERS = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_ARITHMETIC_MARKERS = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_ARITHMETIC_COST = 8  # relative to a scan with Huffman coding, measured with empty scans
_PROGRESSIVE_MARKERS = {0xC2, 0xC6, 0xCA, 0xCE}


class Segment(NamedTuple):
    """A marker segment.

    Attributes:
        marker: The second byte of the marker, such as 0xDA for the header of a scan.
        content: The content, without its length.
    """

    marker: int
    content: bytes


def segments(jpeg: bytes) -> Iterator[Segment]:
    """Yield the segments of a JPEG file, up to the end of the image."""
    at = 2
    while (found := _MARKER.search(jpeg, at)) is not None and found[1] != _END[1:]:
        begin = found.end()
        length = int.from_bytes(jpeg[begin : begin + 2], "big")
        yield Segment(found[1][0], jpeg[begin + 2 : begin + length])
        at = begin + length


def check_scans(data: bytes, pixels: int, name: str, max_pixels: int) -> None:
    """Refuse a file that would take far too long to decode.

    Args:
        data: The content of the file.
        pixels: The number of pixels of the image.
        name: The name of the file, for the message.
        max_pixels: The largest number of pixels of an image.

    Raises:
        DataError: There are more scans than an image of this size may have.
    """
    allowed = min(_MAX_SCANS, _MAX_FULL_SCANS * max_pixels // max(1, pixels))
    # The quick count is an upper bound: it includes data after the image, such as a video.
    if data.count(_SCAN) * _ARITHMETIC_COST <= allowed:
        return
    scans, cost = 0, 1
    for number, (marker, _) in enumerate(segments(data)):
        scans += marker == 0xDA
        cost = _ARITHMETIC_COST if marker in _ARITHMETIC_MARKERS else cost
        if scans * cost > allowed or number >= _MAX_SEGMENTS:
            raise DataError(
                f"{name}: has more than {allowed // cost} scans, which no camera or program writes"
                f"{' for so large an image' if allowed < _MAX_SCANS else ''}. Save it again."
            )


def decode_fast(
    data: bytes, channels: int, size: tuple[int, int], reduction: int
) -> NDArray[np.uint8] | None:
    """Decode a file with simplejpeg.

    Args:
        data: A JPEG file of one or three components.
        channels: 1 or 3.
        size: Width and height in pixels.
        reduction: The factor by which the result may be smaller: 1, 2, 4 or 8.

    Returns:
        uint8 (H, W, channels), without the EXIF orientation; None if simplejpeg is not installed,
        or finds a fault, even a harmless one.
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
    """Decode a file with Pillow, which tolerates stray bytes and wrong scan headers.

    A file that lacks only its end marker is read, too.

    Args:
        data: The content of the file.
        channels: If 1, the result may be luma instead of RGB.
        reduction: The factor by which the result may be smaller: 1, 2, 4 or 8.
        name: The name of the file, for the message.

    Returns:
        The loaded image.

    Raises:
        DataError: The file is cut short. The message states how much of it is present.
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
    """Return the file with an end marker, if it lacks nothing else.

    The missing part is filled with different bytes. If the pixels depend on these bytes, the file
    lacks more than its end marker.
    """
    if not _has_all_scans(data):
        raise DataError(f"{name}: is cut short: it ends before the last of its scans begins.")
    data = data.rstrip(b"\0") if data.endswith(b"\0\0\0") else data  # an interrupted download
    data = data.rstrip(b"\xff")
    plain = _shown(data + _END)
    rows = min(_equal_rows(plain, _shown(data + filler + _END)) for filler in _FILLERS)
    if rows < len(plain):
        share = 100 * rows // len(plain)
        raise DataError(f"{name}: is cut short: about {share} % of its rows are present.")
    return data + _END


# They contain restart markers, because a decoder that needs one skips everything before it.
_FILLERS = tuple(
    b"".join(pattern * 40 + bytes([0xFF, 0xD0 + number % 8]) for number in range(16))
    for pattern in (b"\x15\x9a\x63", b"\xea\x42\xd7")
)


def _shown(jpeg: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(jpeg), formats=("JPEG",)))


def _equal_rows(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    """Count the rows at the top that are equal."""
    differs = (one != other).reshape(len(one), -1).any(1)
    return int(differs.argmax()) if differs.any() else len(one)


def _has_all_scans(jpeg: bytes) -> bool:
    """Return whether the last bit of each coefficient of each component is in some scan."""
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
