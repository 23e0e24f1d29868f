"""Reads PNG files: removes chunks that the pixels do not need, and reads 16-bit colours."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from convnextv2.errors import DataError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 200_000  # each takes the decoder some microseconds
_LONGEST_TEXT = 1 << 20
_TURNING_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")
"""The keywords of texts that may contain the orientation."""


class Chunk(NamedTuple):
    """A chunk of a PNG file.

    Attributes:
        kind: The type, four letters. The first is upper case if the chunk is critical.
        content: The content, without length and CRC.
        whole: All bytes, with length and CRC.
        is_sound: Whether the CRC is right. It is not checked for critical chunks.
    """

    kind: bytes
    content: memoryview
    whole: memoryview
    is_sound: bool


def essence(data: bytes, name: str) -> bytes:
    """Return a PNG file without texts, profiles and animation, which may be large or damaged.

    The orientation is kept, and moved before the pixels. Damage in a critical chunk is left to the
    decoder.

    Args:
        data: The content of the file.
        name: The name of the file, for the message.

    Raises:
        DataError: There are too many chunks.
    """
    before: list[bytes | memoryview] = []
    pixels: list[bytes | memoryview] = []
    texts: list[memoryview] = []
    rest = memoryview(data)[len(_SIGNATURE) :]
    for number, chunk in enumerate(_chunks(data)):
        if number >= _MAX_CHUNKS:
            raise DataError(f"{name}: has more than {_MAX_CHUNKS} chunks. Save it again.")
        rest = rest[len(chunk.whole) :]
        if chunk.kind == b"IDAT":
            pixels.append(chunk.whole)
        elif not chunk.kind[0] & 32 or chunk.kind == b"tRNS":
            (pixels if pixels else before).append(chunk.whole)
        elif _turns(chunk):
            texts.append(chunk.whole)
        if chunk.kind == b"IEND":
            rest = rest[:0]
            break
    if not pixels:  # the pixels may be those of an animation's first frame
        return data
    if rest[4:5].tobytes().islower():  # the file ends in an ancillary chunk
        rest = rest[:0]
    return b"".join((_SIGNATURE, *before, *texts, *pixels, rest))


def _chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the complete chunks."""
    view, at = memoryview(data), len(_SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        if end > len(data):
            return
        kind, content = bytes(view[at + 4 : at + 8]), view[at + 8 : end - 4]
        if not kind.isalpha():
            return
        # Only ancillary chunks are checked; a check of the pixels would take as long as decoding.
        is_sound = not kind[0] & 32 or zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(
            view[end - 4 : end], "big"
        )
        yield Chunk(kind, content, view[at:end], is_sound)
        at = end


def _turns(chunk: Chunk) -> bool:
    """Return whether a chunk may contain the orientation, and is safe and fast to read."""
    if not chunk.is_sound:
        return False
    if chunk.kind == b"eXIf":
        return True
    if chunk.kind not in (b"tEXt", b"zTXt", b"iTXt") or len(chunk.content) > _LONGEST_TEXT:
        return False
    keyword, _, text = bytes(chunk.content).partition(b"\0")
    if keyword not in _TURNING_TEXTS or not text:
        return False
    if chunk.kind == b"tEXt":
        return True
    is_packed = chunk.kind == b"zTXt" or text[:1] != b"\0"
    packed = text[1:] if chunk.kind == b"zTXt" else text[2:].split(b"\0", 2)[-1]
    return not is_packed or _unpacks(packed)


def _unpacks(packed: bytes) -> bool:
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, _LONGEST_TEXT)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail


def is_wide(image: ImageFile.ImageFile) -> bool:
    """Return whether an image, not loaded yet, has 16-bit colours, of which Pillow keeps 8 bits."""
    if (
        image.format != "PNG" or not image.tile or image.mode.startswith("I")
    ):  # Pillow keeps 16-bit grey
        return False
    return str(image.tile[0][3]).endswith(";16B")


def wide_values(image: ImageFile.ImageFile, data: bytes, name: str) -> NDArray[np.uint16]:
    """Return the 16-bit colours of a PNG file.

    Pillow can read the high or the low byte of each value, so the file is decoded twice.

    Args:
        image: An image for which `is_wide` is true.
        data: The content of the file.
        name: The name of the file, for the message.

    Returns:
        uint16 (H, W, C).
    """
    mode = image.mode
    if image.tile[0][3] != f"{mode};16B":
        raise DataError(
            f"{name}: is grey with transparency in 16 bits. Expected 8 bits, or grey alone."
        )
    values = np.asarray(image).astype(np.uint16)
    values <<= 8
    again = Image.open(io.BytesIO(data), formats=("PNG",))
    again.tile = [tile._replace(args=f"{mode};16L") for tile in again.tile]
    values |= np.asarray(again)
    return values
