"""The tar files of a set, on a disk of this machine."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from convnextv2.data.storage import failure
from convnextv2.errors import DataError

MAX_OPEN = 64
"""Files that a process holds open at once."""


class Shard(NamedTuple):
    """A tar file.

    Attributes:
        name: Its path or address.
        size: Its length, in bytes.
        stamp: A value that changes with the content, such as the time of the last change.
    """

    name: str
    size: int
    stamp: str


class ShardFiles(Protocol):
    """Opens shards, and reads parts of them."""

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards, in order."""

    def open(self, number: int) -> IO[bytes]:
        """Open a shard for reading its headers.

        Raises:
            DataError: It cannot be opened.
        """

    def beside(self, name: str) -> bytes | None:
        """Read a small file in the folder of the shards or the one above it; None if none is there.

        Raises:
            DataError: It cannot be read.
        """

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Read a part of a shard. What is returned may be shorter if the shard is.

        Raises:
            StorageError: The shard is out of reach, as others are.
            DataError: It is missing or cannot be read.
        """


class LocalFiles:
    """Shards on a disk of this machine.

    Copies of it, in worker processes, may share open files, because `os.pread` moves no position.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        self._open: OrderedDict[int, int] = OrderedDict()

    def __reduce__(self) -> tuple[type[LocalFiles], tuple[tuple[Shard, ...]]]:
        """Let another process have a copy, which opens its files itself."""
        return LocalFiles, (self.shards,)

    def __del__(self) -> None:
        for descriptor in self.__dict__.get("_open", {}).values():
            os.close(descriptor)

    @classmethod
    def of(cls, paths: Sequence[str]) -> LocalFiles:
        """Look at files, and return them as shards.

        Raises:
            DataError: One is missing or cannot be read.
        """
        return cls([local_shard(path) for path in paths])

    def open(self, number: int) -> IO[bytes]:
        """Open a shard for reading its headers; see `ShardFiles`."""
        name = self.shards[number].name
        try:
            return open(name, "rb")
        except OSError as error:
            raise failure(name, error) from None

    def beside(self, name: str) -> bytes | None:
        """Read a small file beside the shards; see `ShardFiles`."""
        folder = Path(os.path.dirname(self.shards[0].name))
        for place in (folder / name, folder.parent / name):
            try:
                return place.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise failure(str(place), error) from None
        return None

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Read a part of a shard; see `ShardFiles`."""
        try:
            return os.pread(self._descriptor(number), size, offset)
        except OSError as error:
            # An open file of a server that was restarted stays stale for ever.
            if (descriptor := self._open.pop(number, None)) is not None:
                os.close(descriptor)
            raise failure(self.shards[number].name, error, gone=True) from None

    def _descriptor(self, number: int) -> int:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if len(self._open) >= MAX_OPEN:
            os.close(self._open.popitem(last=False)[1])
        descriptor = os.open(self.shards[number].name, os.O_RDONLY | os.O_CLOEXEC)
        self._open[number] = descriptor
        return descriptor


def local_shard(path: str) -> Shard:
    """Look at a file.

    Raises:
        DataError: It is missing or cannot be looked at.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        is_pattern = "*" in path or "?" in path
        remedy = " Name the folder, or a pattern such as train-{000..146}.tar." * is_pattern
        raise DataError(f"{path}: cannot be read ({error.strerror}).{remedy}") from None
    return Shard(path, found.st_size, str(found.st_mtime_ns))
