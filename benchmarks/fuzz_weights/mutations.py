"""Damage to the bytes of a file, to JSON in it, and to archives and the pickles in them."""

from __future__ import annotations

import io
import json
import random
import zipfile
from typing import Any

OPCODES = (
    b"NKJMG\x88\x89\x8a\x8bX\x8c\x8d\x8eBCUT)(]}tlde012\x85\x86\x87\x8f\x90\x91"
    b"asuhjqr\x94cR\x81\x92bQ\x80\x93\x95\x96oi\x82."
)
"""Opcodes of pickle."""

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    5,
    1e308,
    10**40,
    float("nan"),
    "",
    "x",
    "x\ny",
    [],
    [1],
    ["a"],
    {},
    {"a": 1},
)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Replace one value in JSON by one of another type, or take it out.

    It may lie at any depth, also in text that is itself JSON.
    """
    content = json.loads(data)
    at: Any = content
    while True:
        key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if isinstance(at[key], str) and at[key][:1] == "{":
            at[key] = mutate_json(at[key].encode(), rng).decode()
            break
        if not isinstance(at[key], dict | list) or not at[key] or rng.random() < 0.2:
            if rng.random() < 0.2:
                del at[key]
            else:
                at[key] = rng.choice(ODD)
            break
        at = at[key]
    return json.dumps(content).encode()


def mutate_head(data: bytes, rng: random.Random) -> bytes:
    """Mutate the JSON of a safetensors file.

    Most often this is in the metadata, which hold our description.
    """
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    if "__metadata__" in head and rng.random() < 0.9:
        head["__metadata__"] = json.loads(
            mutate_json(json.dumps(head["__metadata__"]).encode(), rng)
        )
        mutated = json.dumps(head).encode()
    else:
        mutated = mutate_json(json.dumps(head).encode(), rng)
    return len(mutated).to_bytes(8, "little") + mutated + data[8 + length :]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Mutate bytes in one of six ways. Metadata at either end are hit as often as the rest."""
    content = bytearray(data)

    def place() -> int:
        return rng.choice(
            (
                rng.randrange(len(content)),
                rng.randrange(min(2000, len(content))),
                -1 - rng.randrange(min(2000, len(data))),
            )
        )

    kind = rng.randrange(6)
    if kind == 0:
        for _ in range(rng.randint(1, 20)):
            content[place()] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del content[rng.randrange(len(content)) :]
    elif kind == 2:
        at = place() % len(content)
        content[at : at + 8] = rng.choice(
            (b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\0\0\0\0\1\0\0\0", b"\xff\xff\xff\xff\x0f\0\0\0")
        )
    elif kind == 3:
        at, length = place() % len(content), rng.randint(1, 4000)
        content[at:at] = content[at : at + length]
    elif kind == 4:
        at = place() % len(content)
        del content[at : at + rng.randint(1, 4000)]
    else:
        for _ in range(rng.randint(1, 50)):
            content[place()] = rng.randrange(256)
    return bytes(content)


def bomb(data: bytes, rng: random.Random) -> bytes:
    """Make an archive claim that one entry unpacks to 4 GiB, or compress all its entries."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        chosen = rng.choice(source.namelist())
        for entry in source.infolist():
            content = (
                bytes(64 << 20)
                if entry.filename == chosen and rng.random() < 0.2
                else source.read(entry)
            )
            target.writestr(
                entry.filename,
                content,
                compress_type=rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)),
            )
    content = bytearray(out.getvalue())
    if rng.random() < 0.5:  # sizes in the directory that are not true
        at = content.rfind(b"PK\x01\x02")
        content[at + 20 : at + 28] = b"\xff\xff\xff\xff\xff\xff\xff\xff"
    return bytes(content)


def mutate_pickle(data: bytes, rng: random.Random) -> bytes:
    """Change a few bytes or opcodes of the pickle in an archive, which stays whole."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                pickled = bytearray(content)
                for _ in range(rng.choice((1, 1, 2, 5))):
                    pickled[rng.randrange(len(pickled))] = rng.choice(
                        (rng.choice(OPCODES), rng.randrange(256))
                    )
                content = bytes(pickled)
            target.writestr(entry.filename, content)
    return out.getvalue()
