"""Shards on a server, which are read image by image through fsspec and cached on a local disk.

A run reads images in random order, so fetching whole shards in advance would not help. Each image
is fetched with a range request, and stored in a sparse file for its shard. From the second epoch
on, images are read from the disk, as far as they fit.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.notices import notice
from convnextv2.data.shards.files import MAX_OPEN, Shard
from convnextv2.errors import DataError, MissingPackageError, StorageError
from convnextv2.kernels.folders import cache_folders
from convnextv2.text import plain

_STAMPS = ("ETag", "etag", "md5Hash", "md5", "version_aware", "mtime", "LastModified", "created")
_COUNTED_EVERY = 16 * 2**20
"""A process measures the size of the cache again after it has stored this many bytes."""


def is_remote(name: str) -> bool:
    """Return whether a name is an address, such as s3://bucket/train-000.tar."""
    return "://" in name


def remote_tars(address: str) -> list[str]:
    """List the tar files in a folder on a server, and in the folders below it.

    Raises:
        DataError: The folder cannot be read, or has no tar files.
        MissingPackageError: A package for this kind of address is missing.
    """
    with _named(address):
        system, path = _system(address)
        found = sorted(map(str, system.find(path, maxdepth=2)))
        tars = [system.unstrip_protocol(name) for name in found if name.endswith(".tar")]
    if not tars:
        raise DataError(f"{address}: holds no .tar files.")
    return tars


class RemoteFiles:
    """Shards on a server; see `files.ShardFiles`."""

    def __init__(self, shards: Sequence[Shard], cache: Path | None, limit: int) -> None:
        """Prepare the cache. Connections are opened by `read`.

        Args:
            shards: The shards.
            cache: The folder of the cache; None for no cache.
            limit: The largest size of the cache, in bytes.
        """
        self.shards = tuple(shards)
        self._cache, self._limit = cache, limit
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._left = 0

    def __reduce__(self) -> tuple[type[RemoteFiles], tuple[Any, ...]]:
        """Copy only the settings to another process, which opens its own connections."""
        return RemoteFiles, (self.shards, self._cache, self._limit)

    @classmethod
    def of(cls, addresses: Sequence[str], cache_gb: float) -> RemoteFiles:
        """Build the shards of tar files on a server.

        Args:
            addresses: The addresses of the files.
            cache_gb: The largest size of the cache, in 10^9 bytes; 0 for no cache.

        Raises:
            DataError: A file is missing or cannot be read.
            MissingPackageError: A package for this kind of address is missing.
        """
        shards = []
        for address in addresses:
            with _named(address):
                system, path = _system(address)
                found = system.info(path)
            stamp = next((str(found[key]) for key in _STAMPS if found.get(key)), "")
            shards.append(Shard(address, int(found["size"] or 0), stamp))
        limit = int(cache_gb * 1e9)
        cache = _cache_folder() if limit else None
        if cache is not None:
            _make_room(cache, {_key(shard) for shard in shards}, limit, sum(s.size for s in shards))
        return cls(shards, cache, limit)

    def open(self, number: int) -> IO[bytes]:
        """Open a shard for reading its headers; see `ShardFiles`."""
        name = self.shards[number].name
        with _named(name):
            system, path = _system(name)
            opened: IO[bytes] = system.open(path, "rb")
            return opened

    def beside(self, name: str) -> bytes | None:
        """Read a small file beside the shards; see `ShardFiles`."""
        folder = self.shards[0].name.rpartition("/")[0]
        for address in (f"{folder}/{name}", f"{folder.rpartition('/')[0]}/{name}"):
            with _named(address):
                system, path = _system(address)
                if system.exists(path):
                    content: bytes = system.cat_file(path)
                    return content
        return None

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Read a part of a shard; see `ShardFiles`."""
        kept = self._kept_of(number)
        if kept is not None and (data := kept.get(offset, size)) is not None:
            return data
        name = self.shards[number].name
        with _named(name):
            system, path = _system(name)
            fetched: bytes = system.cat_file(path, start=offset, end=offset + size)
        if kept is not None and len(fetched) == size and self._has_room(size):
            kept.put(offset, fetched)
        return fetched

    def _kept_of(self, number: int) -> _Kept | None:
        if self._cache is None:
            return None
        if number not in self._kept:
            if len(self._kept) >= MAX_OPEN:
                self._kept.popitem(last=False)
            shard = self.shards[number]
            try:
                self._kept[number] = _Kept(self._cache / _key(shard), shard.size)
            except OSError as error:
                notice(f"{self._cache}: cannot be used as a cache ({error.strerror}).")
                self._cache = None
                return None
        return self._kept[number]

    def _has_room(self, size: int) -> bool:
        """Return whether this many more bytes may be stored.

        The size of the cache is measured only now and then. Together, the processes may therefore
        exceed the limit by `_COUNTED_EVERY` each.
        """
        if self._left < size:
            assert self._cache is not None
            room = self._limit - _used(self._cache)
            if room < size:
                return False
            self._left = max(size, min(_COUNTED_EVERY, room))
        self._left -= size
        return True


class _Kept:
    """The cached part of one shard: a sparse file, and a table of the members in it.

    The content of a tar member begins at a multiple of 512 bytes, and the table has one row for
    each of these positions. A row holds 1 + the CRC-32 of the content that begins there, or 0 if it
    is not cached. Content with another checksum, for example after a power failure, is fetched
    again. The processes share both files. If two of them write a member at the same time, they
    write the same bytes.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._data = os.open(path.with_suffix(".data"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        rows = size // 512 + 1
        table = os.open(path.with_suffix(".table"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            if os.fstat(table).st_size < 8 * rows:
                os.truncate(table, 8 * rows)
            self._map = mmap.mmap(table, 8 * rows)
        finally:
            os.close(table)
        self._sums: NDArray[np.uint64] = np.frombuffer(self._map, np.uint64)

    def __del__(self) -> None:
        if (data := self.__dict__.get("_data")) is not None:
            os.close(data)

    def get(self, offset: int, size: int) -> bytes | None:
        """Return a cached member; None if it is not cached or damaged."""
        wanted = int(self._sums[offset // 512])
        if not wanted or offset % 512:
            return None
        data = os.pread(self._data, size, offset)
        return data if len(data) == size and zlib.crc32(data) + 1 == wanted else None

    def put(self, offset: int, data: bytes) -> None:
        """Store a member, unless the disk is full."""
        if offset % 512:
            return
        with contextlib.suppress(OSError):
            if os.pwrite(self._data, data, offset) == len(data):
                self._sums[offset // 512] = zlib.crc32(data) + 1


def _key(shard: Shard) -> str:
    return hashlib.sha256("\0".join(map(str, shard)).encode()).hexdigest()[:32]


def _cache_folder() -> Path | None:
    for folder in cache_folders(notice):
        if os.access(folder, os.W_OK):
            place = folder / "remote"
            place.mkdir(exist_ok=True)
            return place
    return None


def _files(cache: Path) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(cache) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # another process removed it
                yield entry.path, entry.stat()


def _used(cache: Path) -> int:
    """Return the size of the cache on the disk, in bytes, without holes of sparse files."""
    return sum(found.st_blocks * 512 for _, found in _files(cache))


def _make_room(cache: Path, own: Iterable[str], limit: int, wanted: int) -> None:
    """Remove cached shards of other data sets, the oldest first, until this one fits."""
    kept = set(own)
    others = sorted(
        ((found.st_mtime, path, found.st_blocks * 512) for path, found in _files(cache)),
    )
    others = [each for each in others if Path(each[1]).stem not in kept]
    used = sum(size for _, _, size in others)
    for _, path, size in others:
        if used + min(wanted, limit) <= limit:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
        used -= size


def _system(address: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path in it.

    fsspec caches its file systems and their connections, separately in each process.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingPackageError("fsspec", "remote") from None
    system, path = url_to_fs(address)
    return system, str(path)


@contextmanager
def _named(address: str) -> Iterator[None]:
    """Turn the errors of file systems into errors of this package that name the address."""
    try:
        yield
    except (DataError, MissingPackageError):
        raise
    except FileNotFoundError:
        raise DataError(f"{address}: does not exist. Check the address.") from None
    except ImportError as error:  # a package is missing; the message of fsspec names it
        remedy = "For all such packages, in the project's checkout: pip install '.[remote]'"
        raise DataError(f"{address}: cannot be read ({_reason(error)}). {remedy}.") from None
    except (PermissionError, ValueError) as error:  # or fsspec does not know the protocol
        raise DataError(f"{address}: cannot be read ({_reason(error)}).") from None
    except Exception as error:  # a network error, whose type depends on the library
        raise StorageError(f"{address}: is out of reach ({_reason(error)}).") from None


def _reason(error: Exception) -> str:
    return plain(str(error) or type(error).__name__)[:200]
