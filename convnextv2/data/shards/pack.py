"""Writes the images of a source into tar files in the format of WebDataset.

The images of a shard depend only on its number, and its bytes only on these images. Packing may
therefore be interrupted at any time, and produces the same files when it is started again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnextv2.data.array_file import remove_remains
from convnextv2.data.shards.files import LocalFiles
from convnextv2.data.shards.images import ShardImages
from convnextv2.data.shards.index import write_index
from convnextv2.data.shards.index_cache import index_beside
from convnextv2.data.shards.sources import CLASSES
from convnextv2.data.source import Source
from convnextv2.data.storage import read_file
from convnextv2.errors import DataError, RunError
from convnextv2.files import replacing, write_json, write_text
from convnextv2.text import plain

PLAN = "packing.json"
"""The file that states which images are packed into a folder of shards."""

_FORM = 1


class Packed(NamedTuple):
    """The numbers of a finished packing.

    Attributes:
        shards: The number of tar files.
        kept: The number of tar files that existed before.
        images: The number of images.
        size: The size of all tar files, in bytes.
    """

    shards: int
    kept: int
    images: int
    size: int


def pack(
    sources: Mapping[str, Source],
    out: Path,
    images_per_shard: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Packed:
    """Write sources as shards, with their index and the names of their classes.

    Args:
        sources: The prefix of the names of shards, such as "train" -> the images.
        out: The folder to write to. Existing shards of the same packing are kept.
        images_per_shard: The number of images in a shard. The last shard may have fewer.
        progress: Called after each shard with the number of finished shards and of all shards.

    Raises:
        RunError: The folder holds shards of another packing.
        DataError: An image cannot be read, or a class cannot be named in a line of text.
    """
    _prepare(sources, out, images_per_shard)
    total = sum(-(-len(source) // images_per_shard) for source in sources.values())
    done = kept = size = 0
    for prefix, source in sources.items():
        names = _Names(source.names)
        paths: list[str] = []
        for start in range(0, len(source), images_per_shard):
            path = out / f"{prefix}-{len(paths):06d}.tar"
            if path.is_file():  # a shard gets this name only when it is complete
                kept += 1
            else:
                _write_shard(path, source, names, range(len(source))[start:][:images_per_shard])
            paths.append(str(path))
            size += path.stat().st_size
            done += 1
            progress(done, total)
        files = LocalFiles.of(paths)
        place = index_beside(files.shards)
        assert place is not None
        remove_remains(place)
        write_index(place, files)
    return Packed(done, kept, sum(map(len, sources.values())), size)


def _prepare(sources: Mapping[str, Source], out: Path, images_per_shard: int) -> None:
    """Write the plan of the packing, or check that the plan in the folder is the same."""
    plan = {
        "form": _FORM,
        "images_per_shard": images_per_shard,
        "splits": {prefix: _identity(source) for prefix, source in sources.items()},
    }
    try:
        before = json.loads((out / PLAN).read_text("utf-8"))
    except FileNotFoundError:
        before = None
    except (OSError, ValueError) as error:
        raise RunError(f"{out / PLAN}: cannot be read ({error}). Choose another folder.") from None
    if before is not None and before != plan:
        raise RunError(
            f"{out}: holds shards that were packed from other images, or with other options. Give "
            "the same images and options to continue, choose another folder, or remove this one."
        )
    names = sorted(path.name for path in out.iterdir())
    others = [name for name in names if not name.startswith(".")]
    if before is None and others:
        raise RunError(
            f"{out}: holds files that pack_data did not write, such as {plain(others[0])}. Choose "
            "another folder."
        )
    classes = next(iter(sources.values())).class_names
    if bad := [name for name in classes if not name.strip() or len(name.splitlines()) > 1]:
        raise DataError(
            f"class {plain(bad[0])!r}: cannot be named in a line of text. Rename the class."
        )
    write_json(out / PLAN, plan)  # written first, so that the folder is recognised later
    if classes:
        write_text(out / CLASSES, "".join(f"{name}\n" for name in classes))


def _identity(source: Source) -> dict[str, object]:
    digest = hashlib.sha256()
    for name in source.names:
        digest.update(name.encode(errors="surrogateescape") + b"\0")
    if source.targets is not None:
        digest.update(np.ascontiguousarray(source.targets, "<i8").data)
    return {"images": len(source), "sha256": digest.hexdigest()}


def _write_shard(path: Path, source: Source, names: _Names, rows: range) -> None:
    with (
        replacing(path) as temporary,
        tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for row in rows:
            key, ending = names[row]
            _add(tar, key + ending, read_file(source.names, row))
            if source.targets is not None:
                _add(tar, f"{key}.cls", str(int(source.targets[row])).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # owner, time and mode have fixed defaults
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


class _Names(Sequence[tuple[str, str]]):
    """The names of images in shards, each as a unique key and an ending.

    A name is the path below the common folder of all images. In WebDataset, a key ends at the first
    dot of the last part of the path, so other dots in that part are written as %2E. If two images
    of one folder differ only in their endings, the ending becomes a part of the key.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        if not isinstance(names, ShardImages):
            ends = [min(names), max(names)] if len(names) else []
            self._cut = len(os.path.commonprefix(ends).rpartition("/")[0])
        hashes = np.fromiter(map(_hash, self._keys()), np.uint64, len(names))
        values, counts = np.unique(hashes, return_counts=True)
        self._repeated = frozenset(values[counts > 1].tolist())

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: int) -> tuple[str, str]:  # type: ignore[override]  # no slices
        key, ending = self._parts(row)
        if _hash(key) in self._repeated:
            return f"{key}%2E{ending.removeprefix('.')}", ending
        return key, ending

    def _keys(self) -> Iterator[str]:
        return (self._parts(row)[0] for row in range(len(self._names)))

    def _parts(self, row: int) -> tuple[str, str]:
        if isinstance(self._names, ShardImages):
            path = self._names.member(row)
        else:
            path = self._names[row][self._cut :].lstrip("/")
        folder, slash, base = path.rpartition("/")
        stem, ending = os.path.splitext(base)
        if "." in stem or "%2" in stem:
            stem = stem.replace("%2", "%252").replace(".", "%2E")
        return folder + slash + stem, ending


def _hash(key: str) -> int:
    data = key.encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
