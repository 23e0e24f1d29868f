"""Access to the images of shards by index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.shards.files import ShardFiles
from convnextv2.data.shards.index import Index, hash_of_names
from convnextv2.errors import DataError


class ShardImages(Sequence[str]):
    """The images of shards, or a selection of them. As a sequence, it holds their names.

    A name consists of the name of the shard, a slash, and the name of the image in it. Names are
    built when they are needed, so they take no memory.

    Attributes:
        shard_index: The index of the shards.
        rows: int64 (N,), the selected images in the index, in order; None for all images.
    """

    def __init__(
        self, shard_index: Index, files: ShardFiles, rows: NDArray[np.int64] | None = None
    ) -> None:
        self.shard_index, self._files, self.rows = shard_index, files, rows

    def __len__(self) -> int:
        return len(self.shard_index) if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> ShardImages: ...
    def __getitem__(self, index: int | slice) -> str | ShardImages:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        row = self._row(index)
        shard = self.shard_index.shards[self.shard_index.shard_of(row)]
        return f"{shard.name}/{self.shard_index.name(row)}"

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def member(self, index: int) -> str:
        """Return the name of an image in its shard."""
        return self.shard_index.name(self._row(index))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> ShardImages:
        """Return the images at these indices, in this order."""
        chosen = np.asarray(indices, np.int64)
        rows = chosen if self.rows is None else self.rows[chosen]
        return ShardImages(self.shard_index, self._files, rows)

    def read(self, index: int) -> bytes:
        """Return the bytes of an image file.

        Raises:
            StorageError: The storage of its shard is out of reach.
            DataError: Its shard cannot be read, or is shorter than the index states.
        """
        row = self._row(index)
        size = int(self.shard_index.sizes[row])
        data = self._files.read(
            self.shard_index.shard_of(row), int(self.shard_index.offsets[row]), size
        )
        if len(data) < size:
            raise DataError(
                f"{self[index]}: its tar file is shorter than its index says. Copy it again."
            )
        return data

    def names_sha256(self) -> str:
        """Return the hash of the images' names in the shards; see `index.hash_of_names`."""
        if self.rows is None:
            return self.shard_index.names_sha256
        rows = self.rows

        def listed() -> Iterator[bytes]:
            return (
                self.shard_index.name(row).encode(errors="surrogateescape")
                for row in map(int, rows)
            )

        return hash_of_names(listed)

    def _row(self, index: int) -> int:
        place = range(len(self))[index]  # negative and too large indices behave as in a list
        return place if self.rows is None else int(self.rows[place])
