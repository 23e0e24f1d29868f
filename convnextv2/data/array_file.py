"""Files of large arrays that are written piece by piece and read without being loaded.

A file begins with a magic number, the length of a JSON header, and that header. The arrays follow,
each at a multiple of 64 bytes. They are memory-mapped when the file is opened, so that opening a
large file takes no longer than a small one, and all processes on one machine share one copy.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from convnextv2.files import sync_folder

_MARK = b"CNXARRY1"
_ALIGNED = 64
_MAX_HEADER = 2**30
_LARGE = 2**30
"""Files of more bytes than this are read without reading ahead. Entries are read in random order,
and a disk may read ahead by megabytes for each."""


class ArrayFileWriter:
    """Writes a file of one-dimensional arrays, in bounded memory.

    Use it in a `with` block. The arrays are collected in temporary files beside the target, which
    `finish` joins; until then, no file has the target's name.
    """

    def __init__(self, path: Path, types: Mapping[str, str]) -> None:
        """Create a temporary file for each array.

        Args:
            path: The file to write.
            types: The name of each array -> the name of its dtype, such as "int64".
        """
        self.path, self._types = path, dict(types)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._parts: dict[str, IO[bytes]] = {}
        for name in types:
            self._parts[name] = tempfile.TemporaryFile(dir=path.parent)

    def __enter__(self) -> ArrayFileWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for part in self._parts.values():
            part.close()

    def append(self, name: str, values: NDArray[Any] | bytes) -> None:
        """Append values to an array. Bytes can be appended to an array of uint8."""
        if not isinstance(values, bytes):
            values = np.ascontiguousarray(values, self._types[name]).tobytes()
        self._parts[name].write(values)

    def written(self, name: str) -> NDArray[Any]:
        """Return the values that have been appended to an array, memory-mapped and writable."""
        part = self._parts[name]
        part.flush()
        if not part.tell():
            return np.empty(0, self._types[name])
        return np.memmap(part, self._types[name], "r+")

    def finish(self, header: Mapping[str, Any]) -> None:
        """Write the file in one atomic step, and flush it to the disk.

        Args:
            header: Further content of the header, for `json.dumps`.
        """
        arrays, position = {}, 0
        for name, part in self._parts.items():
            size = part.tell()
            arrays[name] = [
                self._types[name],
                position,
                size // np.dtype(self._types[name]).itemsize,
            ]
            position += -(-size // _ALIGNED) * _ALIGNED
        text = json.dumps({"arrays": arrays, **header}).encode()
        text += b" " * (-(len(_MARK) + 8 + len(text)) % _ALIGNED)
        # Several ranks may write the same file, so each uses its own temporary name.
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(_MARK + len(text).to_bytes(8, "little") + text)
                for part in self._parts.values():
                    size = part.tell()
                    part.seek(0)
                    shutil.copyfileobj(part, file, 2**20)
                    file.write(bytes(-size % _ALIGNED))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(self.path.parent)


def remove_remains(path: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote a file.

    No other process may write the file at the same time.
    """
    for temporary in path.parent.glob(f"{path.name}.*.tmp"):
        temporary.unlink(missing_ok=True)


def open_arrays(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Open a file of arrays.

    Returns:
        The header, and the arrays by name, read-only and memory-mapped.

    Raises:
        ValueError: The file is not a file of arrays, or is cut short.
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(len(_MARK) + 8)
        length = int.from_bytes(start[len(_MARK) :], "little")
        if start[: len(_MARK)] != _MARK or length > _MAX_HEADER:
            raise ValueError("is not a file of arrays")
        text = file.read(length)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(mapped) > _LARGE and hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    header = json.loads(text)
    if len(text) < length or not isinstance(header, dict):
        raise ValueError("is cut short")
    first = len(_MARK) + 8 + length
    arrays: dict[str, NDArray[Any]] = {}
    for name, (kind, position, count) in header.pop("arrays").items():
        dtype = np.dtype(kind)
        if min(position, count) < 0 or first + position + count * dtype.itemsize > len(mapped):
            raise ValueError("is cut short")
        arrays[name] = np.frombuffer(mapped, dtype, count, first + position)
    return header, arrays
