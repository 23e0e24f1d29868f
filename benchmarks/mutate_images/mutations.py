"""Damages the bytes of images: anywhere, and by the chunks of their formats."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from originals import FORMATS, originals

Mutation = Callable[[bytearray, np.random.Generator], bytes]


def chunks(data: bytes) -> list[tuple[int, int]]:
    """Find where the chunks, segments or boxes of a file begin and end."""
    found: list[tuple[int, int]] = []
    at = 0
    if data.startswith(b"\x89PNG"):
        at = 8
        while at + 12 <= len(data):
            end = at + 12 + int.from_bytes(data[at : at + 4], "big")
            found.append((at, end))
            at = end
    elif data.startswith(b"RIFF"):
        at = 12
        while at + 8 <= len(data):
            length = int.from_bytes(data[at + 4 : at + 8], "little")
            found.append((at, at + 8 + length + length % 2))
            at = found[-1][1]
    elif data[4:8] == b"ftyp":
        while at + 8 <= len(data):
            end = at + max(8, int.from_bytes(data[at : at + 4], "big"))
            found.append((at, end))
            at = end
    elif data.startswith(b"\xff\xd8"):
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xD9:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if data[at + 1] == 0xDA:
                following = re.compile(rb"\xff[^\x00\xd0-\xd7]").search(data, end)
                end = following.start() if following else len(data)
            found.append((at, end))
            at = end
    elif data[:2] in (b"II", b"MM"):
        order = "<" if data[:1] == b"I" else ">"
        (at,) = struct.unpack_from(order + "I", data, 4)
        (lines,) = struct.unpack_from(order + "H", data, at)
        found = [(at + 2 + 12 * line, at + 14 + 12 * line) for line in range(lines)]
    return found or [(begin, min(begin + 16, len(data))) for begin in range(0, len(data), 16)]


def flip(data: bytearray, rng: np.random.Generator) -> bytes:
    """Turn over one to eight bits anywhere."""
    for at in rng.integers(0, len(data), rng.integers(1, 9)):
        data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


def flip_header(data: bytearray, rng: np.random.Generator) -> bytes:
    """Turn over bits of the first 200 bytes."""
    for at in rng.integers(0, min(200, len(data)), rng.integers(1, 5)):
        data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


def cut(data: bytearray, rng: np.random.Generator) -> bytes:
    """Keep the beginning."""
    return bytes(data[: rng.integers(1, len(data))])


def cut_end(data: bytearray, rng: np.random.Generator) -> bytes:
    """Leave out the last few bytes."""
    return bytes(data[: -int(rng.integers(1, 16))])


def insert(data: bytearray, rng: np.random.Generator) -> bytes:
    """Put some bytes in between."""
    at = int(rng.integers(0, len(data) + 1))
    return bytes(data[:at]) + rng.bytes(int(rng.integers(1, 40))) + bytes(data[at:])


def remove(data: bytearray, rng: np.random.Generator) -> bytes:
    """Leave some bytes out."""
    at = int(rng.integers(0, len(data)))
    return bytes(data[:at] + data[at + int(rng.integers(1, 40)) :])


def remove_chunk(data: bytearray, rng: np.random.Generator) -> bytes:
    """Leave a chunk out."""
    begin, end = chosen(chunks(bytes(data)), rng)
    return bytes(data[:begin] + data[end:])


def double_chunk(data: bytearray, rng: np.random.Generator) -> bytes:
    """Put a chunk in twice, the copy anywhere between others."""
    found = chunks(bytes(data))
    (begin, end), (at, _) = chosen(found, rng), chosen(found, rng)
    return bytes(data[:at] + data[begin:end] + data[at:])


def exchange_chunks(data: bytearray, rng: np.random.Generator) -> bytes:
    """Let two chunks change places."""
    found = chunks(bytes(data))
    (a, b), (c, d) = sorted((chosen(found, rng), chosen(found, rng)))
    return bytes(data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]) if b <= c else bytes(data)


def edit_chunk(data: bytearray, rng: np.random.Generator) -> bytes:
    """Change bytes of a chunk's beginning; the check sum of a PNG chunk is made right again."""
    begin, end = chosen(chunks(bytes(data)), rng)
    end = min(end, len(data))
    for at in rng.integers(begin, min(begin + 40, end), rng.integers(1, 4)):
        data[at] = int(rng.choice([0, 1, 127, 128, 255, rng.integers(256)]))
    if data.startswith(b"\x89PNG") and end - begin >= 12:
        data[end - 4 : end] = zlib.crc32(data[begin + 4 : end - 4]).to_bytes(4, "big")
    return bytes(data)


def edit_number(data: bytearray, rng: np.random.Generator) -> bytes:
    """Replace two or four bytes of the first 200 by a number at an edge."""
    size = int(rng.choice([2, 4]))
    number = int(rng.choice([0, 1, 2, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**32 - 1]))
    at = int(rng.integers(0, max(1, min(200, len(data)) - size)))
    order = "little" if rng.random() < 0.5 else "big"
    data[at : at + size] = (number % 256**size).to_bytes(size, order)  # type: ignore[arg-type]
    return bytes(data)


def chosen(found: list[tuple[int, int]], rng: np.random.Generator) -> tuple[int, int]:
    """Choose one of the places."""
    return found[int(rng.integers(len(found)))]


MUTATIONS: tuple[Mutation, ...] = (
    flip,
    flip_header,
    cut,
    cut_end,
    insert,
    remove,
    remove_chunk,
    double_chunk,
    exchange_chunks,
    edit_chunk,
    edit_number,
)


def mutants(
    kind: str, begin: int, end: int, seed: int, folder: Path | None
) -> Iterator[tuple[int, str, bytes]]:
    """Make some of the mutants of a format. The same seed and number give the same mutant.

    Args:
        kind: The format.
        begin: The number of the first.
        end: The number after the last.
        seed: The seed of all mutants.
        folder: A folder of photographs, which are mutated too; None for none.

    Yields:
        The number, the name of the mutation, and the file.
    """
    sources = originals(kind, folder)
    for number in range(begin, end):
        rng = np.random.default_rng([seed, FORMATS.index(kind), number])
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        source = sources[int(rng.integers(len(sources)))]
        yield number, mutation.__name__, mutation(bytearray(source), rng)
