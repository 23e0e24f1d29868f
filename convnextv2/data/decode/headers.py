"""Reads the sizes in the headers of GIF and WebP, whose decoders allocate memory on opening."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from convnextv2.data.decode.limits import Part


def gif(data: bytes, name: str) -> Iterator[Part]:
    """Yield the size of the canvas, and that of the first frame, which may enlarge it."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    yield Part("", width, height)
    at = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    while at < len(data):
        if data[at] == 0x2C:
            left, top, width, height = struct.unpack_from("<4H", data, at + 1)
            yield Part("frame", left + width, top + height)
            return
        if data[at] == 0x21:  # an extension: its label, then blocks
            at += 2
            while at < len(data) and data[at]:
                at += data[at] + 1
        at += 1


def webp(data: bytes, name: str) -> Iterator[Part]:
    """Yield the size of the canvas. libwebp refuses frames outside it."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    yield Part("", width, height)
