"""The values that an interpreted pickle may hold, and the few functions that it may call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

_MAX_DIMS = 64


class PickleError(Exception):
    """A pickle cannot be read. The message says why; the caller adds the name of the file."""


class HarmfulError(PickleError):
    """A pickle that would run commands where it is unpickled."""


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function, which is never looked up."""

    name: str


@dataclass(slots=True, eq=False)
class Foreign:
    """Stands for an object of another class, a long text or bytes, without keeping its content.

    Attributes:
        name: The class or function, such as "numpy.dtype"; or "text", "bytes", "set", "integer".
    """

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A block of numbers in the file, which tensors are views of.

    Attributes:
        key: Its name in the file.
        dtype: The type of its elements; None for a storage of bytes.
        count: The number of elements, or of bytes.
    """

    key: str
    dtype: torch.dtype | None
    count: int

    @property
    def nbytes(self) -> int:
        """The length in the file, in bytes."""
        return self.count * (self.dtype.itemsize if self.dtype else 1)


@dataclass(frozen=True, slots=True)
class Record:
    """A strided tensor, which is a view of a storage.

    Attributes:
        storage: The storage of its numbers.
        dtype: The type of its elements.
        offset: The position of its first element in the storage, in elements.
        size: Its shape.
        stride: The step from one element to the next along each dimension, in elements.
    """

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size of a copy of the tensor, in bytes."""
        return prod(self.size) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class OddTensor:
    """A tensor that is not read, such as a sparse or quantised one; `kind` says what it is."""

    kind: str


class Entries(dict[Any, Any]):
    """A dictionary of any class, with the attributes that were set on it, or None."""

    __slots__ = ("attributes",)

    def __init__(self) -> None:
        super().__init__()
        self.attributes: Entries | None = None


STORAGE_DTYPES: dict[str, torch.dtype | None] = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
        "QInt8": torch.int8,
        "QUInt8": torch.uint8,
        "QInt32": torch.int32,
        "QUInt4x2": torch.uint8,
        "QUInt2x4": torch.uint8,
        "Untyped": None,
    }.items()
} | {"torch.storage.UntypedStorage": None}
"""The dtype of each class of storage by its name; None for a storage of bytes."""

_DTYPES = {f"torch.{n}": kind for n, kind in vars(torch).items() if isinstance(kind, torch.dtype)}


def is_count(value: Any) -> bool:
    """Return whether a value is an integer that can be a count."""
    return type(value) is int and 0 <= value < 2**62


def _counts(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > _MAX_DIMS or not all(map(is_count, value)):
        raise PickleError("its pickle is damaged (the shape of a tensor)")
    return value


def _strided_tensor(
    arguments: tuple[Any, ...], dtype: Any = None, metadata: Any = None
) -> Record | OddTensor:
    """Return the tensor that a call of `torch._utils._rebuild_tensor*` describes.

    It must lie within its storage.
    """
    storage, offset, *sides = arguments[:4]
    size, stride = map(_counts, sides)
    dtype = dtype or (storage.dtype if isinstance(storage, Storage) else None)
    if (
        not isinstance(storage, Storage)
        or not isinstance(dtype, torch.dtype)
        or not is_count(offset)
    ):
        raise PickleError("its pickle is damaged (a tensor without a storage)")
    if metadata:
        return OddTensor("a lazy conjugate or negative")
    if len(size) != len(stride) or prod(max(side, 1) for side in size) >= 2**59:
        raise PickleError("its pickle is damaged (the shape of a tensor)")
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if 0 not in size and (last + 1) * dtype.itemsize > storage.nbytes:
        raise PickleError("its pickle is damaged (a tensor exceeds its storage)")
    return Record(storage, dtype, offset, size, stride)


def _version_3(arguments: tuple[Any, ...]) -> Record | OddTensor:
    kind = arguments[6]
    dtype = _DTYPES.get(kind.name) if isinstance(kind, Global) else None
    if dtype is None:
        raise PickleError("its pickle is damaged (a tensor of unknown type)")
    return _strided_tensor(arguments, dtype, arguments[7] if len(arguments) > 7 else None)


def of_subclass(arguments: tuple[Any, ...]) -> Any:
    """Return the plain tensor inside a tensor of a subclass or with attributes."""
    rebuild, inner = arguments[0], arguments[2]
    if isinstance(rebuild, Global) and rebuild.name in KNOWN_CALLS and isinstance(inner, tuple):
        return KNOWN_CALLS[rebuild.name](inner)
    return OddTensor("of another class")


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    given = arguments[0] if arguments else ()
    return _counts(tuple(given) if isinstance(given, list) else given)


KNOWN_CALLS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _strided_tensor,
    "torch._utils._rebuild_tensor_v2": lambda found: _strided_tensor(
        found, metadata=found[6] if len(found) > 6 else None
    ),
    "torch._utils._rebuild_tensor_v3": _version_3,
    "torch._utils._rebuild_parameter": lambda found: found[0],
    "torch._utils._rebuild_parameter_with_state": lambda found: found[0],
    "torch.nn.parameter.Parameter": lambda found: found[0],
    "torch.nn.Parameter": lambda found: found[0],
    "torch.Size": _size,
    "torch._utils._rebuild_sparse_tensor": lambda found: OddTensor("sparse"),
    "torch._utils._rebuild_sparse_csr_tensor": lambda found: OddTensor("sparse"),
    "torch._utils._rebuild_qtensor": lambda found: OddTensor("quantised"),
    "torch._utils._rebuild_nested_tensor": lambda found: OddTensor("nested"),
    "torch._utils._rebuild_meta_tensor_no_storage": lambda found: OddTensor("without data"),
    "torch._utils._rebuild_wrapper_subclass": lambda found: OddTensor("of another class"),
}
