"""The shards (tar files) of a data set, opened and read on a disk of this machine."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from convnextv2.data.storage import failure
from convnextv2.errors import DataError

MAX_OPEN = 64
"""The largest number of shards that a process keeps open."""


class Shard(NamedTuple):
    """A tar file of a data set.

    Attributes:
        name: The path or the address of the file.
        size: The size of the file, in bytes.
        stamp: A value that changes with the content, such as the modification time.
    """

    name: str
    size: int
    stamp: str


class ShardFiles(Protocol):
    """Access to shards, on a disk or on a server."""

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards, in order."""

    def open(self, number: int) -> IO[bytes]:
        """Open a shard, to read its headers.

        Args:
            number: The index of the shard.

        Raises:
            DataError: The shard cannot be opened.
        """

    def beside(self, name: str) -> bytes | None:
        """Read a small file in the folder of the shards, or in the parent of that folder.

        Args:
            name: The name of the file.

        Returns:
            The content; None if there is no such file.

        Raises:
            DataError: The file cannot be read.
        """

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Read a part of a shard.

        Args:
            number: The index of the shard.
            offset: The position of the first byte.
            size: The number of bytes.

        Returns:
            The bytes. There are fewer if the shard is too short.

        Raises:
            StorageError: The storage of the shard is out of reach.
            DataError: The shard is missing or cannot be read.
        """


class LocalFiles:
    """Shards on a disk of this machine.

    Forked copies in worker processes may share open files, because `os.pread` has no file position.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        self._open: OrderedDict[int, int] = OrderedDict()

    def __reduce__(self) -> tuple[type[LocalFiles], tuple[tuple[Shard, ...]]]:
        """Copy only the list of shards to another process, which opens its own files."""
        return LocalFiles, (self.shards,)

    def __del__(self) -> None:
        for descriptor in self.__dict__.get("_open", {}).values():
            os.close(descriptor)

    @classmethod
    def of(cls, paths: Sequence[str]) -> LocalFiles:
        """Build the shards of tar files.

        Raises:
            DataError: A file is missing or cannot be read.
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
            # A file handle that was opened before a server was restarted stays stale.
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
    """Return the shard of a tar file, with its size and modification time.

    Raises:
        DataError: The file is missing or cannot be read.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        is_pattern = "*" in path or "?" in path
        remedy = " Name the folder, or a pattern such as train-{000..146}.tar." * is_pattern
        raise DataError(f"{path}: cannot be read ({error.strerror}).{remedy}") from None
    return Shard(path, found.st_size, str(found.st_mtime_ns))
