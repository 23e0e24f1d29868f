"""Reads and checks the first directory of TIFF files, before a decoder reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from convnextv2.data.decode.limits import Part
from convnextv2.errors import DataError

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES = 256, 257, 258, 259, 277
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 273, 279, 324, 325
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
NO_DATA = 42113
"""The tag of GDAL for the value that means that there is no measurement, as text."""
_SUB_DIRECTORIES = (34665, 34853, 40965)  # EXIF, GPS, interoperability
_UNKNOWN = 65_000  # private tags, which readers ignore
_MAX_SEGMENTS = 1 << 18
_MAX_SCANS = 16
_JPEG = (6, 7)
_INTEGERS = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}
_BYTES = {"B": 1, "H": 2, "L": 4, "Q": 8}


class Entry(NamedTuple):
    """An entry of a directory.

    Attributes:
        tag: The number of the tag.
        at: The position of the entry in the file.
        code: The format character of `struct` for its values; "" if they are not unsigned integers.
        number: The number of values.
        begin: The position of the values in the file.
    """

    tag: int
    at: int
    code: str
    number: int
    begin: int


class Directory:
    """The first directory of a TIFF file.

    Attributes:
        is_big: Whether it is a BigTIFF.
        order: The byte order for `struct`, ">" or "<".
        entries: The entries, in the order of the file.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.order = ">" if data.startswith(b"MM") else "<"
        self.is_big = 43 in data[2:4]
        self.entries = list(self._read())

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return all values of a tag, including repeated entries; () without any."""
        found: tuple[int, ...] = ()
        for entry in self.entries:
            if entry.tag == tag and entry.code:
                found += self._numbers(entry)
        return found

    def count(self, tag: int) -> int:
        """Return the stated number of values of a tag."""
        return sum(entry.number for entry in self.entries if entry.tag == tag)

    def _numbers(self, entry: Entry) -> tuple[int, ...]:
        size = _BYTES[entry.code]
        there = min(entry.number, (len(self._data) - entry.begin) // size)
        if there < 1:
            return ()
        return struct.unpack_from(f"{self.order}{there}{entry.code}", self._data, entry.begin)

    def _read(self) -> Iterator[Entry]:
        order, data = self.order, self._data
        pointer, counter, line = ("Q", "Q", 20) if self.is_big else ("L", "H", 12)
        inline = _BYTES[pointer]
        (at,) = struct.unpack_from(order + pointer, data, 8 if self.is_big else 4)
        (lines,) = struct.unpack_from(order + counter, data, at)
        at += _BYTES[counter]
        for _ in range(min(lines, 65_535)):
            if at + line > len(data):
                return
            tag, kind, count = struct.unpack_from(f"{order}HH{pointer}", data, at)
            code, begin = _INTEGERS.get(kind, ""), at + line - inline
            if code and count * _BYTES[code] > inline:
                (begin,) = struct.unpack_from(order + pointer, data, begin)
            yield Entry(tag, at, code, count, begin)
            at += line


def parts(data: bytes, name: str) -> Iterator[Part]:
    """Yield the size of the image, and that of its tiles, which may be larger than the image.

    Args:
        data: The content of the file.
        name: The name of the file, for the message.

    Raises:
        DataError: Decoding would take far too long.
        ValueError, struct.error: The file cannot be read.
    """
    directory = Directory(data)
    widths, heights = directory.numbers(_WIDTH), directory.numbers(_HEIGHT)
    if not widths or not heights:
        raise ValueError("no size is stated")
    yield Part("", max(widths), max(heights))
    tiles = [directory.numbers(tag) for tag in (_TILE_WIDTH, _TILE_HEIGHT)]
    if all(tiles):
        yield Part("tiles", max(tiles[0]), max(tiles[1]))
    if max(directory.count(_STRIPS), directory.count(_TILES)) > _MAX_SEGMENTS:
        raise DataError(f"{name}: has more than {_MAX_SEGMENTS} strips or tiles. Save it again.")
    if any(code in _JPEG for code in directory.numbers(_COMPRESSION)):
        _check_scans(data, directory, name)


def _check_scans(data: bytes, directory: Directory, name: str) -> None:
    """Check the number of scans of each strip and tile, which is a JPEG file of its own.

    Strips that overlap are refused, because many strips could then share a few bytes.
    """
    begins = directory.numbers(_STRIPS) + directory.numbers(_TILES)
    lengths = directory.numbers(_STRIP_BYTES) + directory.numbers(_TILE_BYTES)
    spans = set(zip(begins, lengths, strict=False))
    if sum(min(length, len(data)) for _, length in spans) > 2 * len(data):
        raise DataError(f"{name}: has strips or tiles that overlap. Save it again.")
    if any(data.count(b"\xff\xda", at, at + length) > _MAX_SCANS for at, length in spans):
        raise DataError(
            f"{name}: has strips or tiles of more than {_MAX_SCANS} scans, which no camera or "
            "program writes. Save it again."
        )


def without_exif(data: bytes) -> bytes:
    """Return the file with the tags of EXIF and GPS data changed to tags that readers ignore."""
    directory = Directory(data)
    changed = bytearray(data)
    for number, entry in enumerate(directory.entries):
        if entry.tag in _SUB_DIRECTORIES:
            struct.pack_into(f"{directory.order}H", changed, entry.at, _UNKNOWN + number)
    return bytes(changed)


def bits(data: bytes) -> int:
    """Return the number of bits of the values. The default of the format is 1."""
    return max(Directory(data).numbers(_BITS) or (1,))


def is_deep(data: bytes) -> bool:
    """Return whether the values have more than 8 bits."""
    return bits(data) > 8


def is_deep_colour(data: bytes) -> bool:
    """Return whether pixels have several values of more than 8 bits, of which Pillow keeps 8."""
    return is_deep(data) and max(Directory(data).numbers(_SAMPLES) or (1,)) > 1


def is_out_of_pillows_reach(data: bytes) -> bool:
    """Return whether the file is a big-endian BigTIFF, which Pillow cannot read."""
    return data.startswith(b"MM") and 43 in data[2:4]


def no_data_value(text: object) -> float | None:
    """Parse the no-data value of GDAL; return None if it is not a number.

    Args:
        text: The value of the tag `NO_DATA`; None without the tag.
    """
    try:
        return float(str(text).strip("\0 ")) if text is not None else None
    except ValueError:
        return None
