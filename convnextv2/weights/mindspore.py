"""MindSpore's .ckpt: read and written without MindSpore.

The file is one protobuf message (proto2, mindspore/train/serialization.py of 2.10.0), written as a row of one-value messages:

    Checkpoint  { repeated Value value = 1 }
    Value       { string tag = 1; TensorProto tensor = 2; MapTensorProto maptensor = 3 }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3 }

A parameter above 512 MiB is cut into values with one tag and the full dims each. An optional checksum follows the message. Files
pass 2 GiB, so the bytes are walked in a memory map; nothing is allocated that the file does not hold.
"""

from __future__ import annotations

import mmap
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError

ENCRYPTED = {0x7F3A5ED8: "AES-GCM", 0x7F3A5ED9: "AES-CBC", 0x7F3A5EDA: "SM4-CBC"}
"""First four bytes, little-endian, of an encrypted file."""

CHUNK = 512 << 20
"""Bytes of content in one value."""

_TYPES = {
    "Int8": torch.int8,
    "UInt8": torch.uint8,
    "Int16": torch.int16,
    "UInt16": torch.uint16,
    "Int32": torch.int32,
    "UInt32": torch.uint32,
    "Int64": torch.int64,
    "UInt64": torch.uint64,
    "Float16": torch.float16,
    "Float32": torch.float32,
    "Float64": torch.float64,
    "Bool": torch.bool,
    "BFloat16": torch.bfloat16,
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_MOST_DIMS = 8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf wire types


def read_ckpt(path: Path) -> dict[str, Tensor]:
    """The tensors of a MindSpore checkpoint by tag, in file order. Entries that hold text, not numbers, are left out.

    Raises CheckpointError as `read_ckpt_and_notes` does."""
    return read_ckpt_and_notes(path)[0]


def read_ckpt_and_notes(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a MindSpore checkpoint, and its entries that hold text.

    Raises CheckpointError where it is encrypted, damaged (a checksum is verified where there is one), or no such file."""
    try:
        with open(path, "rb") as file:
            # Not closed by hand: the frames of an error still point into it.
            return _read(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file.") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error
    except _DamagedError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except ValueError as error:  # of mmap, for an empty file
        raise CheckpointError(f"{path}: not a MindSpore checkpoint ({error}).") from error


def write_ckpt(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
    """Write tensors, and after them `notes` as entries of text, as MindSpore does, without a checksum, in one atomic step.
    Scalars have no dims. Empty notes are left out: MindSpore cannot read them."""
    entries: dict[str, Tensor | str] = {**tensors, **{tag: text for tag, text in (notes or {}).items() if text}}
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        for tag, entry in entries.items():
            if isinstance(entry, str):
                kind, content = b"str", memoryview(entry.encode("utf-32-le"))
                shape: tuple[int, ...] = (0,)
            else:
                entry = entry.detach().cpu().contiguous()
                kind, shape = _NAMES[entry.dtype].encode(), tuple(entry.shape)
                content = entry.reshape(-1).view(torch.uint8).numpy().data
            dims = b"".join(b"\x08" + _varint(side) for side in shape)
            for start in range(0, max(len(content), 1), CHUNK):
                part = content[start : start + CHUNK]
                head = dims + _field(2, kind) + b"\x1a" + _varint(len(part))
                name = _field(1, tag.encode())
                value = len(name) + 1 + len(_varint(len(head) + len(part))) + len(head) + len(part)
                file.write(b"\x0a" + _varint(value) + name + b"\x12" + _varint(len(head) + len(part)) + head)
                file.write(part)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class _DamagedError(Exception):
    """What is wrong with the bytes; the reader adds the file's name."""


def _read(data: memoryview) -> tuple[dict[str, Tensor], dict[str, str]]:
    mode = ENCRYPTED.get(int.from_bytes(data[:4], "little"))
    if mode:
        raise _DamagedError(f"is encrypted ({mode}). Save it in MindSpore without enc_key, then try again.")
    if bytes(data[-17:-10]) == b"crc_num":
        if zlib.crc32(data[:-17]) != int.from_bytes(data[-10:], "big"):
            raise _DamagedError("its checksum does not match: the file is damaged. Copy or download it again.")
        data = data[:-17]
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    contents: dict[str, list[memoryview]] = {}
    for number, value in _fields(data):
        if number != 1 or not isinstance(value, memoryview):
            continue
        tag, tensor = "", None
        for inner, item in _fields(value):
            if inner == 1 and isinstance(item, memoryview):
                tag = _text(item)
            elif inner == 2 and isinstance(item, memoryview):
                tensor = item
        if not tag or tensor is None:  # hash embeddings (maptensor) are no part of this network
            continue
        dims, kind, content = _tensor(tensor)
        if shapes.setdefault(tag, (dims, kind)) != (dims, kind):
            raise _DamagedError(f"{tag} is stored twice with different shapes or types: the file is damaged.")
        contents.setdefault(tag, []).append(content)
    if not contents:
        raise _DamagedError("no tensor in it: not a MindSpore checkpoint.")
    notes = {tag for tag, (_, kind) in shapes.items() if re.fullmatch(r"str\d*", kind)}  # of NumPy's kind U
    return (
        {tag: _join(tag, dims, kind, contents[tag]) for tag, (dims, kind) in shapes.items() if tag not in notes},
        {tag: str(b"".join(contents[tag]), "utf-32-le", "replace").rstrip("\0") for tag in sorted(notes)},
    )


def _tensor(message: memoryview) -> tuple[tuple[int, ...], str, memoryview]:
    dims: list[int] = []
    kind, content = "", message[:0]
    for number, item in _fields(message):
        if number == 1 and isinstance(item, int):
            dims.append(item)
        elif number == 1 and isinstance(item, memoryview):  # packed
            at = 0
            while at < len(item):
                value, at = _read_varint(item, at)
                dims.append(value)
        elif number == 2 and isinstance(item, memoryview):
            kind = _text(item)
        elif number == 3 and isinstance(item, memoryview):
            content = item
        if len(dims) > _MOST_DIMS:
            raise _DamagedError(f"a tensor of more than {_MOST_DIMS} dimensions: the file is damaged.")
    return tuple(dims), kind, content


def _join(tag: str, dims: tuple[int, ...], kind: str, parts: list[memoryview]) -> Tensor:
    if kind not in _TYPES:
        raise _DamagedError(f"{tag} is of type {kind!r}, expected one of {', '.join(_TYPES)}.")
    dtype = _TYPES[kind]
    size = sum(map(len, parts))
    if dims == (0,) and size:  # how older versions write a scalar
        dims = ()
    if prod(dims) * dtype.itemsize != size:
        raise _DamagedError(f"{tag} of shape {dims} and type {kind} has {size} bytes: the file is damaged.")
    if not size:
        return torch.empty(dims, dtype=dtype)
    return torch.frombuffer(bytearray(b"".join(parts)), dtype=dtype).reshape(dims)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field; every length must stay inside the message."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _read_varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _read_varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise _DamagedError("not a MindSpore checkpoint, or damaged (an unknown kind of field).")
        if at + length > len(message):
            raise _DamagedError("cut short or damaged (a length points beyond the end).")
        yield number, message[at : at + length]
        at += length


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise _DamagedError("cut short or damaged (it ends inside a number).")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _DamagedError("not a MindSpore checkpoint, or damaged (a number is too long).")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | _BYTES]) + _varint(len(content)) + content


def _text(content: memoryview) -> str:
    try:
        text = str(content, "utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if not text.isprintable():
        raise _DamagedError("damaged (a name is no text).")
    return text
