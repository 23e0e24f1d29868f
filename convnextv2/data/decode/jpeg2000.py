"""Checks the sizes in JPEG 2000 files: image, tiles, code blocks and precincts.

A file of a few hundred bytes may state tiles, code blocks or precincts of one pixel, and the
decoder allocates hundreds of bytes for each. Source: ISO/IEC 15444-1, annex A.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from convnextv2.data.decode.boxes import boxes, first, inside
from convnextv2.data.decode.jpeg import Segment
from convnextv2.data.decode.limits import Part
from convnextv2.errors import DataError

_START = b"\xff\x4f\xff\x51"
_COD, _COC, _SOT, _SOD, _END = 0x52, 0x53, 0x90, 0x93, 0xD9
_MAX_COMPONENTS = 4
_FEWEST_PIXELS_OF_TILE = 64 * 64
_FEWEST_PIXELS_OF_BLOCK = 16 * 16
_FREE_TILES = 1024  # of 9 KB each
_FREE_BLOCKS = 16_384  # of 0.5 KB for each component
_MAX_SEGMENTS = 100_000


class Header(NamedTuple):
    """The sizes in the header of a codestream.

    Attributes:
        width: The width of the image, in pixels.
        height: The height of the image, in pixels.
        tile: Width and height of a tile, no larger than the image.
        components: The number of components.
    """

    width: int
    height: int
    tile: tuple[int, int]
    components: int


def parts(data: bytes, name: str) -> Iterator[Part]:
    """Yield the sizes of the image. Tiles are never larger than the image.

    Args:
        data: The content of the file.
        name: The name of the file, for the message.

    Raises:
        DataError: The file has too many tiles, code blocks or components.
        ValueError, struct.error: The file cannot be read.
    """
    begin = 0
    if not data.startswith(_START):
        top = boxes(data, 0, len(data))
        stream, stated = first(top, b"jp2c"), inside(data, first(top, b"jp2h"), b"ihdr")
        if not stream or not stated or data[stream.begin : stream.begin + 4] != _START:
            raise ValueError("no codestream was found")
        begin = stream.begin
        height, width = struct.unpack_from(">II", data, stated.begin)
        yield Part("", width, height)
    header = _header(data, begin)
    yield Part("codestream" if begin else "", header.width, header.height)
    reason = _excess(header, _segments(data, begin + 2))
    if reason:
        raise DataError(f"{name}: {reason}, for its {header.width} x {header.height} px.")


def _header(data: bytes, begin: int) -> Header:
    right, bottom, left, top, tile_width, tile_height, _, _, components = struct.unpack_from(
        ">8IH", data, begin + 8
    )
    width, height = right - left, bottom - top
    if min(width, height, tile_width, tile_height) < 1:
        raise ValueError("its sizes are impossible")
    return Header(width, height, (min(tile_width, width), min(tile_height, height)), components)


def _excess(header: Header, segments: Iterator[Segment]) -> str:
    """Return the reason why the tables of a decoder would be too large; "" without one."""
    pixels = header.width * header.height
    if header.components > _MAX_COMPONENTS:
        return f"{header.components} components are more than {_MAX_COMPONENTS}"
    tiles = -(-header.width // header.tile[0]) * -(-header.height // header.tile[1])
    if tiles > max(_FREE_TILES, pixels // _FEWEST_PIXELS_OF_TILE):
        return f"{tiles} tiles are too many"
    for segment in segments:
        if segment.marker in (_COD, _COC):
            width, height = _block(segment)
            if pixels // (width * height) > max(_FREE_BLOCKS, pixels // _FEWEST_PIXELS_OF_BLOCK):
                return f"code blocks of {width} x {height} px are too many"
    return ""


def _block(segment: Segment) -> tuple[int, int]:
    """Return the width and height of the smallest code block or precinct."""
    style = segment.content[0]
    # COD begins with style, progression, layers and colour transform; COC with component and style.
    # The rest of both is the same.
    at = 5 if segment.marker == _COD else 2
    if segment.marker == _COC:
        style = segment.content[1]
    levels, width, height = segment.content[at], segment.content[at + 1], segment.content[at + 2]
    sides = [((width & 15) + 2, (height & 15) + 2)]
    if style & 1:
        sizes = segment.content[at + 5 : at + 6 + levels]
        # The side of a precinct doubles with each level when it is mapped to the full image. Small
        # precincts are usual at the coarsest levels, so the mapped sizes are compared.
        sides += [
            ((size & 15) + levels - number, (size >> 4) + levels - number)
            for number, size in enumerate(sizes)
        ]
    return min(((1 << x, 1 << y) for x, y in sides), key=lambda side: side[0] * side[1])


def _segments(data: bytes, at: int) -> Iterator[Segment]:
    """Yield the segments of the main header and of the headers of all tile-parts."""
    part_begin = part_length = 0
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] == _END:
            return
        marker = data[at + 1]
        if marker == _SOD:
            if not part_length:
                return
            at = part_begin + part_length
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        content = data[at + 4 : at + 2 + length]
        if marker == _SOT:
            part_begin, (part_length,) = at, struct.unpack_from(">I", content, 2)
        yield Segment(marker, content)
        at += 2 + max(length, 2)
        if at <= part_begin:
            return
    raise ValueError(f"more than {_MAX_SEGMENTS} segments")
