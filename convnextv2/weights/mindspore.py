"""MindSpore's .ckpt: read and written without MindSpore.

The file is one protobuf message (proto2, mindspore/train/serialization.py of 2.10.0), written as a row of one-value messages:

    Checkpoint  { repeated Value value = 1 }
    Value       { string tag = 1; TensorProto tensor = 2; MapTensorProto maptensor = 3 }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3 }

A parameter above 512 MiB is cut into values with one tag and the full dims each. An optional checksum follows the message. Files
pass 2 GiB, so the bytes are walked in a memory map. Each number of a tensor is copied out of it once, so reading takes less than
twice the file's size and what `_MOST_FIELDS` fields may cost.
"""

from __future__ import annotations

import mmap
import re
import zlib
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.files import replacing

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
_MOST_ENTRIES = 50_000
_MOST_FIELDS = 1_000_000
"""Of all messages in a file; a network and its optimizer have some ten thousand."""
_LONGEST_NAME = 1000
_LONGEST_NOTE = 64 << 10
_PIECE = 1 << 20
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


def write_ckpt(
    path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> None:
    """Write tensors, and after them `notes` as entries of text, as MindSpore does, without a checksum, in one atomic step.
    Scalars have no dims. Empty notes are left out: MindSpore cannot read them."""
    entries: dict[str, Tensor | str] = {
        **tensors,
        **{tag: text for tag, text in (notes or {}).items() if text},
    }
    with replacing(path) as temporary, open(temporary, "wb") as file:
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
                file.write(
                    b"\x0a"
                    + _varint(value)
                    + name
                    + b"\x12"
                    + _varint(len(head) + len(part))
                    + head
                )
                file.write(part)


class _DamagedError(Exception):
    """What is wrong with the bytes; the reader adds the file's name."""


def _read(data: memoryview) -> tuple[dict[str, Tensor], dict[str, str]]:
    mode = ENCRYPTED.get(int.from_bytes(data[:4], "little"))
    if mode:
        raise _DamagedError(
            f"is encrypted ({mode}). Save it in MindSpore without enc_key, then try again."
        )
    if bytes(data[-17:-10]) == b"crc_num":
        if _checksum(data[:-17]) != int.from_bytes(data[-10:], "big"):
            raise _DamagedError(
                "its checksum does not match: the file is damaged. Copy or download it again."
            )
        data = data[:-17]
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    contents: dict[str, list[memoryview]] = {}
    left = [_MOST_FIELDS]
    entries = 0
    for number, value in _fields(data, left):
        if number != 1 or not isinstance(value, memoryview):
            continue
        entries += 1
        if entries > _MOST_ENTRIES:
            raise _DamagedError(
                f"more than {_MOST_ENTRIES:,} entries in it, which no network has: not opened."
            )
        tag, tensor = "", None
        for inner, item in _fields(value, left):
            if inner == 1 and isinstance(item, memoryview):
                tag = _text(item)
            elif inner == 2 and isinstance(item, memoryview):
                tensor = item
        if not tag or tensor is None:  # hash embeddings (maptensor) are no part of this network
            continue
        dims, kind, content = _tensor(tensor, left)
        if shapes.setdefault(tag, (dims, kind)) != (dims, kind):
            raise _DamagedError(
                f"{tag} is stored twice with different shapes or types: the file is damaged."
            )
        contents.setdefault(tag, []).append(content)
    if not contents:
        raise _DamagedError("no tensor in it: not a MindSpore checkpoint.")
    notes = {
        tag for tag, (_, kind) in shapes.items() if re.fullmatch(r"str\d*", kind)
    }  # of NumPy's kind U
    return (
        {
            tag: _join(tag, dims, kind, contents[tag])
            for tag, (dims, kind) in shapes.items()
            if tag not in notes
        },
        {tag: note for tag in sorted(notes) if (note := _note(contents[tag])) is not None},
    )


def _checksum(data: memoryview) -> int:
    value = 0
    for start in range(0, len(data), _PIECE):
        value = zlib.crc32(data[start : start + _PIECE], value)
    return value


def _note(parts: list[memoryview]) -> str | None:
    """Text, or None for more of it than a note has."""
    if sum(map(len, parts)) > _LONGEST_NOTE:
        return None
    return str(b"".join(parts), "utf-32-le", "replace").rstrip("\0")


def _tensor(message: memoryview, left: list[int]) -> tuple[tuple[int, ...], str, memoryview]:
    dims: list[int] = []
    kind, content = "", message[:0]
    for number, item in _fields(message, left):
        if number == 1 and isinstance(item, int):
            dims.append(item)
        elif number == 1 and isinstance(item, memoryview):  # packed
            at = 0
            while at < len(item) and len(dims) <= _MOST_DIMS:
                value, at = _read_varint(item, at)
                dims.append(value)
        elif number == 2 and isinstance(item, memoryview):
            kind = _text(item)
        elif number == 3 and isinstance(item, memoryview):
            content = item
        if len(dims) > _MOST_DIMS:
            raise _DamagedError(
                f"a tensor of more than {_MOST_DIMS} dimensions: the file is damaged."
            )
    return tuple(dims), kind, content


def _join(tag: str, dims: tuple[int, ...], kind: str, parts: list[memoryview]) -> Tensor:
    if kind not in _TYPES:
        raise _DamagedError(f"{tag} is of type {kind!r}, expected one of {', '.join(_TYPES)}.")
    dtype = _TYPES[kind]
    size = sum(map(len, parts))
    if dims == (0,) and size:  # how older versions write a scalar
        dims = ()
    # An empty tensor may have sides as long as any, as long as PyTorch can multiply them.
    if prod(dims) * dtype.itemsize != size or prod(max(side, 1) for side in dims) >= 2**59:
        raise _DamagedError(
            f"{tag} of shape {dims} and type {kind} has {size} bytes: the file is damaged."
        )
    if not size:
        return torch.empty(dims, dtype=dtype)
    content, at = bytearray(size), 0
    target = memoryview(content)
    for part in parts:
        target[at : at + len(part)] = part
        at += len(part)
    return torch.frombuffer(content, dtype=dtype).reshape(dims)


def _fields(message: memoryview, left: list[int]) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field; every length must stay inside the message. left: how many more fields a file may have."""
    at, end = 0, len(message)
    while at < end:
        left[0] -= 1
        if left[0] < 0:
            raise _DamagedError(
                f"more than {_MOST_FIELDS:,} fields in it, which no network has: not opened."
            )
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
            raise _DamagedError(
                "not a MindSpore checkpoint, or damaged (an unknown kind of field)."
            )
        if at + length > end:
            raise _DamagedError("cut short or damaged (a length points beyond the end).")
        yield number, message[at : at + length]
        at += length


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    if at < len(message) and (value := message[at]) < 0x80:  # most of them
        return value, at + 1
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
        text = str(content, "utf-8") if len(content) <= _LONGEST_NAME else "\0"
    except UnicodeDecodeError:
        text = "\0"
    if not text.isprintable():
        raise _DamagedError("damaged (a name is no text).")
    return text
