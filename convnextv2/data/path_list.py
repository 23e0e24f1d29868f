"""A compact list of paths, in which millions of names share a few objects."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class PathList(Sequence[str]):
    """Paths of files, read-only, in the order in which they were added.

    Each folder is stored only once, and all names are bytes in one buffer. Ten million paths take
    about a third of the memory of as many strings. Forked worker processes share this memory,
    because reading a path changes no reference count, and so copies no page.

    Attributes:
        folders: The distinct folders. "" stands for names without a folder.
        codes: int32 (N,), the index in `folders` of the folder of each path.
        names: The last parts of all paths, one after another, in the encoding of the file system;
            as bytes, or uint8 mapped from a file.
        starts: int64 (N,), the position in `names` at which each name begins.
        lengths: int32 (N,), the length of each name in bytes.
    """

    def __init__(
        self,
        folders: Sequence[str],
        codes: NDArray[np.int32],
        names: bytes | NDArray[np.uint8],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int32],
    ) -> None:
        self.folders, self.codes = tuple(folders), codes
        self.names, self.starts, self.lengths = names, starts, lengths

    @classmethod
    def of(cls, paths: Iterable[str]) -> PathList:
        """Build a list that returns exactly these paths."""
        builder = PathListBuilder()
        for path in paths:
            folder, name = os.path.split(path)
            if joined(folder, name) == path:
                builder.add(folder, [name])
            else:  # such as a//b, which must be returned unchanged
                builder.add("", [path])
        return builder.build()

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> PathList: ...
    def __getitem__(self, index: int | slice) -> str | PathList:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return joined(self.folders[self.codes[index]], self.name(index))

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def name(self, index: int) -> str:
        """Return the last part of a path, without its folder."""
        start = int(self.starts[index])
        return os.fsdecode(bytes(self.names[start : start + int(self.lengths[index])]))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> PathList:
        """Return the paths at these indices, in this order."""
        codes, starts, lengths = self.codes[indices], self.starts[indices], self.lengths[indices]
        return PathList(self.folders, codes, self.names, starts, lengths)


class PathListBuilder:
    """Collects the paths of a `PathList`, folder by folder."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._runs: list[tuple[int, int]] = []
        self._names = bytearray()
        self._lengths: list[NDArray[np.int32]] = []

    def add(self, folder: str, names: Sequence[str]) -> None:
        """Append files of one folder. "" stands for names without a folder."""
        encoded = [os.fsencode(name) for name in names]
        number = self._numbers.setdefault(folder, len(self._numbers))
        self._runs.append((number, len(names)))
        self._names += b"".join(encoded)
        self._lengths.append(np.fromiter(map(len, encoded), np.int32, len(encoded)))

    def build(self) -> PathList:
        """Return the list of the paths that were added."""
        lengths = np.concatenate(self._lengths) if self._lengths else np.empty(0, np.int32)
        numbers, counts = np.array(self._runs, np.int32).reshape(-1, 2).T
        return PathList(
            list(self._numbers),
            np.repeat(numbers, counts),
            bytes(self._names),
            np.cumsum(lengths, dtype=np.int64) - lengths,
            lengths,
        )


def joined(folder: str, name: str) -> str:
    """Join a folder and a name into a path."""
    return folder + name if not folder or folder.endswith("/") else f"{folder}/{name}"
