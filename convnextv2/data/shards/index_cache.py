"""A cache of the indices of shards, with checks whether an index is still valid."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from convnextv2.data.array_file import remove_remains
from convnextv2.data.notices import notice
from convnextv2.data.shards.files import Shard, ShardFiles
from convnextv2.data.shards.index import Index, open_index, write_index
from convnextv2.data.shards.remote import is_remote
from convnextv2.kernels.folders import cache_folders

ENDING = ".index"
_WORTH_A_LINE_S = 2.0

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def cached_index(files: ShardFiles, label_field: str = "") -> Index:
    """Return the index of shards. It is built if there is no valid one.

    An index beside the shards, which `pack_data` writes, is used if it is valid. All others are
    stored in the user's cache folder.

    Args:
        files: The shards, at least one.
        label_field: See `TarSamples`.

    Raises:
        DataError: A shard cannot be used.
    """
    beside = None if label_field else index_beside(files.shards)
    on_server = is_remote(files.shards[0].name)
    if beside and not on_server and (index := _valid_index(beside, files.shards)):
        return index
    # On a server, the stamp changes with the content, so it is a part of the key.
    names = "\0".join(
        [
            label_field,
            *(
                f"{shard.name}\0{shard.stamp}" if on_server else os.path.abspath(shard.name)
                for shard in files.shards
            ),
        ]
    )
    key = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()[:32]
    path = _cache() / f"{key}{ENDING}"
    if index := _valid_index(path, files.shards, stamped=not on_server):
        return index
    with _locked(path) as alone:  # other ranks of this machine wait, and then use the new index
        if index := _valid_index(path, files.shards, stamped=not on_server):
            return index
        if alone:
            remove_remains(path)
        if beside and on_server and (content := files.beside(beside.name)):
            path.write_bytes(content)
            # The modification times of the server differ, so only the sizes are compared.
            if index := _valid_index(path, files.shards, stamped=False):
                return index
        started = time.monotonic()
        write_index(path, files, label_field)
        index = open_index(path)
        if (seconds := time.monotonic() - started) > _WORTH_A_LINE_S:
            notice(
                f"The index of {len(files.shards):,} shards ({len(index):,} images) was built in "
                f"{seconds:.0f} s. It is kept in {path}."
            )
    return index


def index_beside(shards: Sequence[Shard]) -> Path | None:
    """Return the path of an index beside shards; None if they differ in folder or prefix."""
    folders = {os.path.dirname(shard.name) for shard in shards}
    stems = {os.path.basename(shard.name).rpartition("-")[0] for shard in shards}
    if len(folders) > 1 or len(stems) > 1 or stems == {""}:
        return None
    return Path(folders.pop()) / f"{stems.pop()}{ENDING}"


def _valid_index(path: Path, shards: tuple[Shard, ...], *, stamped: bool = True) -> Index | None:
    """Open an index; return None if it does not exist or does not match the shards.

    Args:
        path: The index.
        shards: The shards.
        stamped: Whether the stamps must be equal too, not only the sizes.
    """
    try:
        index = open_index(path)
    except (OSError, ValueError, KeyError, TypeError):  # it does not exist, or it is damaged
        return None
    if len(index.shards) != len(shards):
        return None
    for kept, now in zip(index.shards, shards, strict=True):
        # Only the last parts of the names are compared, because shards may have been moved.
        same_name = os.path.basename(kept.name) == os.path.basename(now.name)
        if not same_name or kept.size != now.size or (stamped and kept.stamp != now.stamp):
            return None
    return index.of(shards)


def _cache() -> Path:
    for folder in cache_folders(notice):
        if os.access(folder, os.W_OK):
            return folder / "shards"
    return Path(tempfile.mkdtemp(prefix="convnextv2-shards-"))


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Run the block under a lock of this machine. Yields whether the lock is held."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        alone = False
        if fcntl is not None:
            with suppress(
                OSError
            ):  # the file system has no locks, so each process builds its own index
                fcntl.lockf(lock, fcntl.LOCK_EX)
                alone = True
        yield alone
