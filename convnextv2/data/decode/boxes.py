"""Reads the boxes of ISO media files (AVIF, JP2). Source: ISO/IEC 14496-12."""

from __future__ import annotations

import struct
from typing import NamedTuple

_MAX_BOXES = 10_000


class Box(NamedTuple):
    """A box of an ISO media file.

    Attributes:
        kind: The type, four letters.
        begin: The position of the first byte of its content.
        end: The position after the last byte of its content.
    """

    kind: bytes
    begin: int
    end: int


def boxes(data: bytes, begin: int, end: int) -> list[Box]:
    """List the boxes in a part of a file, without the boxes inside them.

    Raises:
        ValueError, struct.error: A box is shorter than its header.
    """
    found: list[Box] = []
    while begin + 8 <= end and len(found) < _MAX_BOXES:
        length, kind = struct.unpack_from(">I4s", data, begin)
        head = 8
        if length == 1:
            length, head = struct.unpack_from(">Q", data, begin + 8)[0], 16
        length = length or end - begin
        if length < head:
            raise ValueError(f"a box {kind!r} is shorter than its header")
        found.append(Box(kind, begin + head, min(begin + length, end)))
        begin += length
    return found


def first(found: list[Box], kind: bytes) -> Box | None:
    """Return the first box of a type; None without one."""
    return next((box for box in found if box.kind == kind), None)


def inside(data: bytes, box: Box | None, *path: bytes, skip: int = 0) -> Box | None:
    """Follow a path of types into a box.

    Args:
        data: The content of the file.
        box: The outermost box.
        path: The type of the box on each level.
        skip: The number of bytes in `box` before its first inner box.

    Returns:
        The innermost box; None if a box is missing.
    """
    for kind in path:
        box = box and first(boxes(data, box.begin + skip, box.end), kind)
        skip = 0
    return box
