"""Reads and writes MindSpore's .ckpt files without MindSpore.

A file is one protobuf message (proto2, mindspore/train/serialization.py of 2.10.0), written as a
sequence of messages with one value each:

    Checkpoint  { repeated Value value = 1 }
    Value       { string tag = 1; TensorProto tensor = 2; MapTensorProto maptensor = 3 }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3 }

A parameter above 512 MiB is split into values that each have the same tag and the full dims. An
optional checksum follows the message. Files may be larger than 2 GiB, so the bytes are read through
a memory map. Each number of a tensor is copied out of it once, so reading takes less memory than
twice the file's size plus the cost of `_MAX_FIELDS` fields.
"""

from __future__ import annotations

import mmap
import re
import zlib
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.files import replacing

ENCRYPTED = {0x7F3A5ED8: "AES-GCM", 0x7F3A5ED9: "AES-CBC", 0x7F3A5EDA: "SM4-CBC"}
"""The first four bytes of an encrypted file as a little-endian number, and the cipher's mode."""

CHUNK = 512 << 20
"""The most bytes of content in one value."""

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
_MAX_DIMS = 8
_MAX_ENTRIES = 50_000
_MAX_FIELDS = 1_000_000
"""The most fields of all messages in a file. A network with its optimizer has some ten thousand."""
_LONGEST_NAME = 1000
_LONGEST_NOTE = 64 << 10
"""The longest text beside the tensors that is read, in bytes."""
_PIECE = 1 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf wire types


def read_ckpt(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a MindSpore checkpoint, without its entries of text.

    Args:
        path: The file.

    Returns:
        The tensors by tag, on the CPU, in the order of the file.

    Raises:
        CheckpointError: The file cannot be read; see `read_ckpt_and_notes`.
    """
    return read_ckpt_and_notes(path)[0]


def read_ckpt_and_notes(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a MindSpore checkpoint, and its entries that hold text.

    Args:
        path: The file.

    Returns:
        The tensors by tag, on the CPU, in the order of the file; and the texts by tag.

    Raises:
        CheckpointError: The file is missing, encrypted or damaged. If it has a checksum, the
            checksum is verified.
    """
    try:
        with open(path, "rb") as file:
            # The map is not closed explicitly, since the frames of an error still refer to it.
            return _read(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file.") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error
    except _DamagedError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except ValueError as error:  # mmap raises it for an empty file
        raise CheckpointError(f"{path}: not a MindSpore checkpoint ({error}).") from error


def write_ckpt(
    path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> None:
    """Write a checkpoint as MindSpore does, without a checksum, in one atomic step.

    Args:
        path: The file to replace or create.
        tensors: The tensors by tag, on any device. Scalars are written without dims.
        notes: Texts by tag, written after the tensors. Empty ones are left out, since MindSpore
            cannot read them.

    Raises:
        OSError: The system cannot write the file.
    """
    entries: dict[str, Tensor | str] = {
        **tensors,
        **{tag: text for tag, text in (notes or {}).items() if text},
    }
    with replacing(path) as temporary, open(temporary, "wb") as file:
        for tag, entry in entries.items():
            _write_entry(file, tag, entry)


def _write_entry(file: IO[bytes], tag: str, entry: Tensor | str) -> None:
    """Write one tensor or text as one value, or as several if it is longer than `CHUNK`."""
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
        name, length = _field(1, tag.encode()), len(head) + len(part)
        value = len(name) + 1 + len(_varint(length)) + length
        file.write(b"\x0a" + _varint(value) + name + b"\x12" + _varint(length) + head)
        file.write(part)


class _DamagedError(Exception):
    """Says what is wrong with the bytes. The caller adds the name of the file."""


class _Allowance:
    """The number of fields that a file's messages may still have. Each costs time and memory."""

    def __init__(self) -> None:
        self._left = _MAX_FIELDS

    def take_one(self) -> None:
        """Count a field; raise `_DamagedError` if the file has too many."""
        self._left -= 1
        if self._left < 0:
            raise _DamagedError(
                f"has more than {_MAX_FIELDS:,} fields, which no network has. It is not opened."
            )


def _read(data: memoryview) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a whole file; see `read_ckpt_and_notes`."""
    data, allowance = _message(data), _Allowance()
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    contents: dict[str, list[memoryview]] = {}
    entries = 0
    for number, value in _fields(data, allowance):
        if number != 1 or not isinstance(value, memoryview):
            continue
        entries += 1
        if entries > _MAX_ENTRIES:
            raise _DamagedError(
                f"has more than {_MAX_ENTRIES:,} entries, which no network has. It is not opened."
            )
        tag, tensor = _tag_and_tensor(value, allowance)
        if not tag or tensor is None:  # hash embeddings (maptensor) are not part of the network
            continue
        dims, kind, content = _tensor(tensor, allowance)
        if shapes.setdefault(tag, (dims, kind)) != (dims, kind):
            raise _DamagedError(
                f"{tag} is stored twice with different shapes or types: the file is damaged."
            )
        contents.setdefault(tag, []).append(content)
    if not contents:
        raise _DamagedError("contains no tensors: not a MindSpore checkpoint.")
    # The type of a text is that of NumPy's kind U, such as "str" or "str12".
    notes = {tag for tag, (_, kind) in shapes.items() if re.fullmatch(r"str\d*", kind)}
    tensors = {
        tag: _join(tag, dims, kind, contents[tag])
        for tag, (dims, kind) in shapes.items()
        if tag not in notes
    }
    texts = {tag: text for tag in sorted(notes) if (text := _note(contents[tag])) is not None}
    return tensors, texts


def _message(data: memoryview) -> memoryview:
    """Return the bytes of the message in a file, after verifying any checksum that follows it."""
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
    return data


def _tag_and_tensor(value: memoryview, allowance: _Allowance) -> tuple[str, memoryview | None]:
    """Read the tag and the tensor's message of a value; the tensor is None if there is none."""
    tag, tensor = "", None
    for number, item in _fields(value, allowance):
        if number == 1 and isinstance(item, memoryview):
            tag = _text(item)
        elif number == 2 and isinstance(item, memoryview):
            tensor = item
    return tag, tensor


def _checksum(data: memoryview) -> int:
    value = 0
    for start in range(0, len(data), _PIECE):
        value = zlib.crc32(data[start : start + _PIECE], value)
    return value


def _note(parts: list[memoryview]) -> str | None:
    """Decode the text of an entry; None if it is longer than `_LONGEST_NOTE`."""
    if sum(map(len, parts)) > _LONGEST_NOTE:
        return None
    return str(b"".join(parts), "utf-32-le", "replace").rstrip("\0")


def _tensor(message: memoryview, allowance: _Allowance) -> tuple[tuple[int, ...], str, memoryview]:
    """Read a tensor's message; return its dims, its type and its content."""
    dims: list[int] = []
    kind, content = "", message[:0]
    for number, item in _fields(message, allowance):
        if number == 1 and isinstance(item, int):
            dims.append(item)
        elif number == 1 and isinstance(item, memoryview):  # protobuf may pack the dims
            at = 0
            while at < len(item) and len(dims) <= _MAX_DIMS:
                value, at = _read_varint(item, at)
                dims.append(value)
        elif number == 2 and isinstance(item, memoryview):
            kind = _text(item)
        elif number == 3 and isinstance(item, memoryview):
            content = item
        if len(dims) > _MAX_DIMS:
            raise _DamagedError(
                f"a tensor has more than {_MAX_DIMS} dimensions: the file is damaged."
            )
    return tuple(dims), kind, content


def _join(tag: str, dims: tuple[int, ...], kind: str, parts: list[memoryview]) -> Tensor:
    """Make a tensor from the parts of its content, which must have the size that dims imply."""
    if kind not in _TYPES:
        raise _DamagedError(f"{tag} is of type {kind!r}, expected one of {', '.join(_TYPES)}.")
    dtype = _TYPES[kind]
    size = sum(map(len, parts))
    if dims == (0,) and size:  # older versions write scalars this way
        dims = ()
    # The sides of an empty tensor may have any length, as long as PyTorch can multiply them.
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


def _fields(message: memoryview, allowance: _Allowance) -> Iterator[tuple[int, int | memoryview]]:
    """Walk through the fields of a message.

    Args:
        message: Its bytes.
        allowance: The number of fields that the file may still have.

    Yields:
        The number and the value of each field.

    Raises:
        _DamagedError: A length points beyond the message, or there are too many fields.
    """
    at, end = 0, len(message)
    while at < end:
        allowance.take_one()
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
    """Read a varint of protobuf; return its value and the position after it."""
    if at < len(message) and (value := message[at]) < 0x80:  # most numbers are this short
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
    """Decode a name, which must be printable."""
    try:
        text = str(content, "utf-8") if len(content) <= _LONGEST_NAME else "\0"
    except UnicodeDecodeError:
        text = "\0"
    if not text.isprintable():
        raise _DamagedError("damaged (a name is not text).")
    return text
