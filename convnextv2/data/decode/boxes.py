"""Boxes of ISO media files (AVIF, JP2). Source: ISO/IEC 14496-12."""

from __future__ import annotations

import struct
from typing import NamedTuple

_MAX_BOXES = 10_000


class Box(NamedTuple):
    """A box of an ISO media file.

    Attributes:
        kind: Four letters.
        begin: Where its content begins in the file.
        end: Where its content ends in the file.
    """

    kind: bytes
    begin: int
    end: int


def boxes(data: bytes, begin: int, end: int) -> list[Box]:
    """List the boxes that lie side by side in a part of a file.

    Raises:
        ValueError, struct.error: One is shorter than its head.
    """
    found: list[Box] = []
    while begin + 8 <= end and len(found) < _MAX_BOXES:
        length, kind = struct.unpack_from(">I4s", data, begin)
        head = 8
        if length == 1:
            length, head = struct.unpack_from(">Q", data, begin + 8)[0], 16
        length = length or end - begin
        if length < head:
            raise ValueError(f"a box {kind!r} is shorter than its head")
        found.append(Box(kind, begin + head, min(begin + length, end)))
        begin += length
    return found


def first(found: list[Box], kind: bytes) -> Box | None:
    """Return the first box of a kind."""
    return next((box for box in found if box.kind == kind), None)


def inside(data: bytes, box: Box | None, *path: bytes, skip: int = 0) -> Box | None:
    """Return the first box along a path of kinds.

    `skip` is the number of bytes before the first box's children.
    """
    for kind in path:
        box = box and first(boxes(data, box.begin + skip, box.end), kind)
        skip = 0
    return box
