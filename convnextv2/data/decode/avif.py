"""Reads where the AV1 frames of AVIF files lie, and how large they are.

The boxes of a file state a size, but its frames may be larger: the decoder decodes a frame in its
own size, and then scales it. Sources: ISO/IEC 14496-12 (boxes) and 23008-12 (items).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from convnextv2.data.decode.av1 import frame_sizes
from convnextv2.data.decode.boxes import Box, boxes, first, inside
from convnextv2.data.decode.limits import Part


class Item(NamedTuple):
    """An item in the table of items.

    Attributes:
        kind: The type, four letters; av01 for a frame.
        kind_at: The position of the type in the file.
    """

    kind: bytes
    kind_at: int


def parts(data: bytes, name: str) -> Iterator[Part]:
    """Yield the size of the image, and then the size of each frame in the file.

    Args:
        data: The content of the file.
        name: Not used.

    Raises:
        ValueError, struct.error: The file cannot be read, or has no frame.
    """
    top = boxes(data, 0, len(data))
    meta, moov = first(top, b"meta"), first(top, b"moov")
    stated = list(_stated(data, meta, moov))
    if not stated:
        raise ValueError("no size is stated")
    yield max(stated, key=lambda part: part.pixels)
    streams = [*(_item_streams(data, meta) if meta else ()), *_samples(data, moov)]
    frames = [size for stream in streams for size in frame_sizes(stream)]
    if not frames:
        raise ValueError("no AV1 frame was found")
    for width, height in frames:
        yield Part("frames", width, height)


def without_exif(data: bytes) -> bytes:
    """Return the file with the EXIF item changed to an unknown type, which decoders ignore."""
    meta = first(boxes(data, 0, len(data)), b"meta")
    changed = bytearray(data)
    for item in _items(data, meta).values() if meta else ():
        if item.kind == b"Exif":
            changed[item.kind_at : item.kind_at + 4] = b"skip"
    return bytes(changed)


def _stated(data: bytes, meta: Box | None, moov: Box | None) -> Iterator[Part]:
    """Yield the sizes that the boxes of the file state."""
    ipco = inside(data, meta, b"iprp", b"ipco", skip=4)
    for box in boxes(data, ipco.begin, ipco.end) if ipco else ():
        if box.kind == b"ispe":
            yield Part("", *struct.unpack_from(">II", data, box.begin + 4))
    for track in _tracks(data, moov):
        entries = inside(data, track, b"mdia", b"minf", b"stbl", b"stsd")
        if entries:
            yield Part("", *struct.unpack_from(">HH", data, entries.begin + 8 + 8 + 24))


def _tracks(data: bytes, moov: Box | None) -> list[Box]:
    children = boxes(data, moov.begin, moov.end) if moov else []
    return [box for box in children if box.kind == b"trak"]


def _samples(data: bytes, moov: Box | None) -> Iterator[bytes]:
    """Yield the first sample of each track. No other sample is decoded."""
    for track in _tracks(data, moov):
        table = inside(data, track, b"mdia", b"minf", b"stbl")
        children = boxes(data, table.begin, table.end) if table else []
        sizes = first(children, b"stsz")
        near, far = first(children, b"stco"), first(children, b"co64")
        if not sizes or not (near or far):
            continue
        length, count = struct.unpack_from(">II", data, sizes.begin + 4)
        if not length and count:
            (length,) = struct.unpack_from(">I", data, sizes.begin + 12)
        if near:
            (begin,) = struct.unpack_from(">I", data, near.begin + 8)
        elif far:
            (begin,) = struct.unpack_from(">Q", data, far.begin + 8)
        yield data[begin : begin + length]


def _items(data: bytes, meta: Box) -> dict[int, Item]:
    table = inside(data, meta, b"iinf", skip=4)
    if not table:
        return {}
    head = 6 if data[table.begin] == 0 else 8
    items: dict[int, Item] = {}
    for box in boxes(data, table.begin + head, table.end):
        if box.kind == b"infe" and data[box.begin] >= 2:
            wide = data[box.begin] > 2
            (number,) = struct.unpack_from(">I" if wide else ">H", data, box.begin + 4)
            kind_at = box.begin + (10 if wide else 8)
            items[number] = Item(data[kind_at : kind_at + 4], kind_at)
    return items


def _item_streams(data: bytes, meta: Box) -> Iterator[bytes]:
    """Yield the contents of the items of type av01."""
    items = _items(data, meta)
    table, inner = inside(data, meta, b"iloc", skip=4), inside(data, meta, b"idat", skip=4)
    if not table:
        return
    for number, is_inner, extents in _locations(data[table.begin : table.end]):
        if number in items and items[number].kind == b"av01":
            base = inner.begin if is_inner and inner else 0
            ends = [(begin, begin + length if length else len(data)) for begin, length in extents]
            yield b"".join(data[base + begin : base + end] for begin, end in ends)


def _locations(table: bytes) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """Yield the number of each item, whether it lies in the idat box, and its extents."""
    version, at = table[0], 4

    def take(length: int) -> int:
        nonlocal at
        at += length
        if at > len(table):
            raise ValueError("the table of items ends too early")
        return int.from_bytes(table[at - length : at], "big")

    widths = take(2)
    offset_bytes, length_bytes, base_bytes, index_bytes = (
        widths >> shift & 15 for shift in (12, 8, 4, 0)
    )
    number_bytes = 2 if version < 2 else 4
    for _ in range(take(number_bytes)):
        number = take(number_bytes)
        is_inner = bool(take(2) & 15) if version else False
        take(2)
        base = take(base_bytes)
        extents = []
        for _ in range(take(2)):
            if version:
                take(index_bytes)
            offset = take(offset_bytes)
            extents.append((base + offset, take(length_bytes)))
        yield number, is_inner, extents
