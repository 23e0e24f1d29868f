"""Images of shards, by index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.shards.files import ShardFiles
from convnextv2.data.shards.index import Index, hash_of_names
from convnextv2.errors import DataError


class ShardImages(Sequence[str]):
    """The images of a set of shards, or some of them; as a sequence, their names.

    A name is that of the shard, a slash, and the image's name in it. It is made when it is asked
    for, so a billion images take no memory.

    Attributes:
        places: Where the images lie.
        rows: int64 (N,), the chosen images of the index, in order; None for all of them.
    """

    def __init__(
        self, places: Index, files: ShardFiles, rows: NDArray[np.int64] | None = None
    ) -> None:
        self.places, self._files, self.rows = places, files, rows

    def __len__(self) -> int:
        return len(self.places) if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> ShardImages: ...
    def __getitem__(self, index: int | slice) -> str | ShardImages:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        row = self._row(index)
        return f"{self.places.shards[self.places.shard_of(row)].name}/{self.places.name(row)}"

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def member(self, index: int) -> str:
        """Return the name of an image in its shard."""
        return self.places.name(self._row(index))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> ShardImages:
        """Return the images at these indices, in this order."""
        chosen = np.asarray(indices, np.int64)
        rows = chosen if self.rows is None else self.rows[chosen]
        return ShardImages(self.places, self._files, rows)

    def read(self, index: int) -> bytes:
        """Read an image whole.

        Raises:
            StorageError: Its shard is out of reach.
            DataError: Its shard cannot be read, or is shorter than it was.
        """
        row = self._row(index)
        size = int(self.places.sizes[row])
        data = self._files.read(self.places.shard_of(row), int(self.places.offsets[row]), size)
        if len(data) < size:
            raise DataError(
                f"{self[index]}: its tar file is shorter than its index says. Copy it again."
            )
        return data

    def names_sha256(self) -> str:
        """Return the hash of the images' names in the shards, see `index.hash_of_names`."""
        if self.rows is None:
            return self.places.names_sha256
        rows = self.rows

        def listed() -> Iterator[bytes]:
            return (
                self.places.name(row).encode(errors="surrogateescape") for row in map(int, rows)
            )

        return hash_of_names(listed)

    def _row(self, index: int) -> int:
        place = range(len(self))[index]  # so that negative and too large ones behave as in a list
        return place if self.rows is None else int(self.rows[place])
