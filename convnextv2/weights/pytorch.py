"""Reads PyTorch's checkpoints: the archive that `torch.save` writes since 1.6, and older pickles.

Python's unpickler is not used (see `pickles`). Data are read only for the requested tensors, so an
optimizer beside the weights costs nothing.
"""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.weights.pickle_values import (
    Foreign,
    Global,
    HarmfulError,
    PickleError,
    Record,
    Storage,
)
from convnextv2.weights.pickles import PickleReader
from convnextv2.weights.signatures import archive_of

_MAX_ENTRIES = 50_000
_LONGEST_READ = 8 << 20
"""The most bytes that are read at once, and so the longest directory of an archive."""

_MAGIC = 0x1950A86A20F9469CFC6C
_SPARE = 64 << 20
"""The bytes that tensors may claim beyond the file's size, since some views repeat a number."""


@dataclass(frozen=True)
class TorchFile:
    """A checkpoint whose tensors have not been read yet.

    Attributes:
        path: The file.
        title: The kind of file.
        content: The content of its pickle (see `pickles.PickleReader.read`).
        foreign: Classes and functions that it names and that were not called.
        read: Reads the bytes of storages, by their keys. Each key is read only once, because a
            file may claim any number of lengths and types for it.
    """

    path: Path
    title: str
    content: Any
    foreign: list[str]
    read: Callable[[Iterable[Storage]], dict[str, bytearray]]

    def tensors(self, records: Mapping[str, Record]) -> dict[str, Tensor]:
        """Read tensors, and each storage only once.

        Args:
            records: The tensors to read, by name.

        Returns:
            The tensors by the same names, on the CPU.

        Raises:
            CheckpointError: The numbers are damaged, or the tensors claim far more bytes than the
                file has.
        """
        distinct = dict.fromkeys(records.values())  # in the order of the file
        claimed, size = sum(record.nbytes for record in distinct), self.path.stat().st_size
        if claimed > size + _SPARE:
            raise CheckpointError(
                f"{self.path}: its tensors claim {claimed:,} bytes, but the file has {size:,}. It "
                "is not opened."
            )
        with _complaints(self.path):
            numbers = self.read(dict.fromkeys(record.storage for record in distinct))
            made = {record: _view(record, numbers[record.storage.key]) for record in distinct}
        return {name: made[record] for name, record in records.items()}


def open_torch(path: Path, *, is_archive: bool) -> TorchFile:
    """Open a checkpoint without reading its numbers.

    Args:
        path: The file.
        is_archive: Whether it is a ZIP archive, as `torch.save` writes it since 1.6.

    Returns:
        The opened file.

    Raises:
        CheckpointError: It is damaged, of another program, or made to run commands.
    """
    with _complaints(path):
        return _open_archive(path) if is_archive else _open_pickles(path)


@contextmanager
def _complaints(path: Path) -> Iterator[None]:
    """Turn every error about the bytes into one line with the name of the file."""
    try:
        yield
    except CheckpointError:
        raise
    except HarmfulError as error:
        raise CheckpointError(
            f"{path}: names {error}, so it is made to run commands on the machine of whoever "
            "loads it. None was run; it is not opened. Do not load it with other programs."
        ) from error
    except PickleError as error:
        raise CheckpointError(f"{path}: damaged, or not a PyTorch checkpoint ({error}).") from error
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        NotImplementedError,
        EOFError,
        OverflowError,
    ) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
        raise CheckpointError(
            f"{path}: damaged archive ({why}). Copy or download it again."
        ) from error


class _Bounded:
    """A file that cannot be read in huge pieces, since `zipfile` reads a directory as a whole."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, length: int = -1) -> bytes:
        content = self._file.read(min(length, _LONGEST_READ) if length >= 0 else _LONGEST_READ)
        if length > _LONGEST_READ or len(content) == _LONGEST_READ:
            raise zipfile.BadZipFile(f"a directory of more than {_LONGEST_READ >> 20} MiB")
        return content


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with open(path, "rb") as file, zipfile.ZipFile(_Bounded(file)) as archive:
        yield archive


def _open_archive(path: Path) -> TorchFile:
    with _archive(path) as archive:
        _check_archive(archive, path)
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickled = next(
            (name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")), None
        )
        if pickled is None:
            raise CheckpointError(
                f"{path}: is a ZIP archive that torch.save did not write (no data.pkl in it)."
            )
        folder = pickled.removesuffix("data.pkl")
        order = entries.get(f"{folder}byteorder")
        if order and order.file_size < 100 and archive.read(order).strip() != b"little":
            raise CheckpointError(
                f"{path}: was written on a big-endian machine. Save it again on a little-endian "
                "one."
            )
        reader = PickleReader(_entry(archive, entries[pickled]))
        content, _ = reader.read()

    def read(storages: Iterable[Storage]) -> dict[str, bytearray]:
        # Opening an archive reads its whole directory, so it is opened once for all storages.
        numbers: dict[str, bytearray] = {}
        with _archive(path) as archive:
            for storage in storages:
                found = entries.get(f"{folder}data/{storage.key}")
                if found is None or found.file_size != storage.nbytes:
                    raise PickleError(
                        f"storage {storage.key[:60]} is missing, or not {storage.nbytes:,} bytes "
                        "long"
                    )
                if storage.key not in numbers:
                    numbers[storage.key] = _entry(archive, found)
        return numbers

    return TorchFile(path, "PyTorch checkpoint", content, list(reader.foreign), read)


def _check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Raise CheckpointError for an archive that `torch.save` cannot have written."""
    entries = archive.infolist()
    if len(entries) > _MAX_ENTRIES:
        raise CheckpointError(
            f"{path}: {len(entries):,} entries in the archive, expected at most {_MAX_ENTRIES:,}."
        )
    if other := archive_of([entry.filename for entry in entries], path):
        raise CheckpointError(f"{path}: {other}")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(
            f"{path}: has compressed entries, which PyTorch never writes. It is not opened."
        )
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(
            f"{path}: its entries claim more bytes than the file has. It is not opened."
        )


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytearray:
    """Read a stored entry; `zipfile` verifies its checksum at its end."""
    content, at = bytearray(entry.file_size), 0
    with archive.open(entry) as source:
        while piece := source.read(1 << 20):
            content[at : at + len(piece)] = piece
            at += len(piece)
    if at != len(content):
        raise zipfile.BadZipFile(f"{entry.filename[:60]} is cut short")
    return content


def _open_pickles(path: Path) -> TorchFile:
    """Open a file from before 1.6.

    It has five pickles (a magic number, the version, the machine, the content, the keys of the
    storages), which are followed by the numbers.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = PickleReader(data)
        magic, at = reader.read()
        if magic != _MAGIC:
            raise CheckpointError(f"{path}: {_other_pickle(magic)}")
        version, at = reader.read(at)
        if version != 1001:
            raise PickleError("of an unknown version")
        _, at = reader.read(at)
        content, at = reader.read(at)
        keys, at = reader.read(at)
        places = _places(data, at, keys, reader.storages)

    def read(storages: Iterable[Storage]) -> dict[str, bytearray]:
        numbers: dict[str, bytearray] = {}
        with open(path, "rb") as file:
            for storage in storages:
                start, length = places[storage.key]
                if storage.nbytes > length:
                    raise PickleError("a storage is longer than its data in the file")
                if storage.key in numbers:
                    continue
                numbers[storage.key] = bytearray(length)
                file.seek(start)
                if file.readinto(numbers[storage.key]) != length:
                    raise PickleError("cut short")
        return numbers

    return TorchFile(path, "PyTorch checkpoint (before 1.6)", content, list(reader.foreign), read)


def _places(
    data: mmap.mmap, at: int, keys: Any, storages: Mapping[str, Storage]
) -> dict[str, tuple[int, int]]:
    """Find the start and length of each storage's bytes, which follow its number of elements."""
    if not isinstance(keys, list) or not all(
        isinstance(key, str) and key in storages for key in keys
    ):
        raise PickleError("without the keys of its storages")
    places = {}
    for key in keys:
        count, length = int.from_bytes(data[at : at + 8], "little"), storages[key].nbytes
        if count != storages[key].count or at + 8 + length > len(data):
            raise PickleError("cut short, or a storage of another length than its tensors have")
        places[key] = (at + 8, length)
        at += 8 + length
    return places


def _other_pickle(content: Any) -> str:
    """Describe a pickle that PyTorch did not write."""
    named = f" of {content.name[:100]}" if isinstance(content, Foreign | Global) else ""
    return (
        f"is a Python pickle{named}, not a PyTorch checkpoint. Where it was made, save the tensors "
        "with torch.save or as safetensors instead."
    )


def _view(record: Record, numbers: bytearray) -> Tensor:
    """Make a tensor from the bytes of its storage."""
    if 0 in record.size:
        return torch.empty(record.size, dtype=record.dtype)
    flat = torch.frombuffer(
        numbers, dtype=record.dtype, count=len(numbers) // record.dtype.itemsize
    )
    return flat.as_strided(record.size, record.stride, record.offset)
