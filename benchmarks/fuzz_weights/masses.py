"""Files that are to cost memory: pickles that allocate, and .ckpt files of masses of entries."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from mutations import OPCODES, mutate

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "weights"))
from bombs import as_archive, as_old, large_bombs, small_bombs


def pickle_bomb(rng: random.Random, scratch: Path) -> bytes:
    """Make an archive or old checkpoint whose pickle calls what allocates, with mutated opcodes.

    Args:
        rng: The random numbers.
        scratch: A file to write.
    """
    small = small_bombs()
    if rng.random() < 0.95:
        pickled = bytearray(rng.choice(list(small.values())))
    else:
        pickled = bytearray(
            rng.choice(list(large_bombs(rng.choice((10_000, 100_000, 1_000_000))).values()))
        )
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(pickled) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            pickled[at:at] = bytes(rng.choices(OPCODES, k=rng.randint(1, 8)))
        elif kind == 1:
            del pickled[at : at + rng.randint(1, 8)]
        elif kind == 2:
            pickled[at:at] = rng.choice(list(small.values()))
        else:
            pickled[at:at] = pickled[at : at + rng.randint(1, 40)] * rng.choice((1, 2, 10, 1000))
    return (as_old if rng.random() < 0.3 else as_archive)(bytes(pickled), scratch).read_bytes()


def varint(value: int) -> bytes:
    """Write a number as protobuf does."""
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    """Write bytes as protobuf does."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def entry(tag: bytes, rng: random.Random) -> bytes:
    """Make an entry of a .ckpt whose sides seldom fit its content."""
    numbers = [
        varint(rng.choice((0, 1, 2, 255, 2**31, 2**62, 2**63, 2**64 - 1)))
        for _ in range(rng.randrange(12))
    ]
    sides = (
        field(1, b"".join(numbers))
        if rng.random() < 0.2
        else b"".join(b"\x08" + number for number in numbers[:4])
    )
    kind = rng.choice((b"Float32", b"Int8", b"str", b"BFloat16"))
    return field(
        1,
        field(1, tag)
        + field(2, sides + field(2, kind) + field(3, bytes(rng.choice((0, 0, 1, 4, 8))))),
    )


def entries_bomb(rng: random.Random) -> bytes:
    """Make a .ckpt of masses of entries, fields or sides."""
    count = rng.choice((10, 1000, 20_000, 60_000))
    one = [entry(b"feature.%d" % i, rng) for i in range(20)]
    plain = field(2, field(2, b"Int8") + b"\x08\0")
    masses = (
        lambda: b"".join(one) * (count // 20),
        lambda: field(1, b"") * (2 * count),
        lambda: b"\x78\x05" * (10 * count),
        lambda: field(1, field(1, b"a" * count) + field(2, b"")),
        lambda: field(1, field(1, b"a") + field(2, field(1, b"\1" * count))),
        lambda: b"".join(field(1, field(1, b"%d" % i) + plain) for i in range(count)),
    )
    content = b"".join(rng.choice(masses)() for _ in range(rng.randint(1, 2)))[: 2 << 20]
    return mutate(content, rng) if content and rng.random() < 0.5 else content
