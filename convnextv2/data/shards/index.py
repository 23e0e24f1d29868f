"""The index of shards: the position of each image, and its class.

It is built once from the headers of the tar files, and stored in one file. It is valid as long as
the size and the modification time of every shard stay the same.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.array_file import ArrayFileWriter, open_arrays
from convnextv2.data.shards.files import Shard, ShardFiles
from convnextv2.data.shards.tar import Sample, TarSamples
from convnextv2.errors import DataError
from convnextv2.text import plain

_FORM = 1
_TYPES = {
    "offsets": "int64",
    "sizes": "uint32",
    "codes": "int32",
    "name_ends": "int64",
    "names": "uint8",
}
_AT_ONCE = 50_000
_MAX_WORDS = 200_000
"""The largest number of distinct class names. More distinct texts than this must be captions."""


@dataclass(frozen=True, eq=False)
class Index:
    """The index of S shards with N images.

    Attributes:
        path: The file of the index.
        shards: The shards, in order.
        starts: int64 (S + 1,), the index of the first image of each shard; at the end N.
        offsets: int64 (N,), the position of each image in its shard, in bytes.
        sizes: uint32 (N,), the size of each image, in bytes.
        codes: int32 (N,), the index in `words` of the class of each image; -1 without a class.
        names: uint8, the names of the images in their shards, joined, in UTF-8.
        name_ends: int64 (N,), the end of each name in `names`.
        words: The distinct classes as written in the shards, sorted; as numbers if all are numbers.
        kinds: The kind of file that states the class (see `tar.Sample`) -> the number of samples,
            and the name of the first.
        names_sha256: The hash of all names; see `hash_of_names`.
        notes: Messages about files that were skipped.
    """

    path: Path
    shards: tuple[Shard, ...]
    starts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.uint32]
    codes: NDArray[np.int32]
    names: NDArray[np.uint8]
    name_ends: NDArray[np.int64]
    words: tuple[str, ...]
    kinds: dict[str, tuple[int, str]]
    names_sha256: str
    notes: tuple[str, ...]

    def __reduce__(self) -> tuple[Callable[..., Index], tuple[Path, tuple[Shard, ...]]]:
        """Send only the path to another process, which opens the index itself."""
        return _reopened, (self.path, self.shards)

    def __len__(self) -> int:
        return len(self.offsets)

    def of(self, shards: tuple[Shard, ...]) -> Index:
        """Return the same index for shards that have been moved."""
        return replace(self, shards=shards)

    def shard_of(self, image: int) -> int:
        """Return the index of the shard that contains an image."""
        return int(np.searchsorted(self.starts, image, "right")) - 1

    def name(self, image: int) -> str:
        """Return the name of an image in its shard."""
        start = int(self.name_ends[image - 1]) if image else 0
        return bytes(self.names[start : int(self.name_ends[image])]).decode(
            errors="surrogateescape"
        )


def open_index(path: Path) -> Index:
    """Open an index.

    Raises:
        ValueError: The file is not an index, is damaged, or was written by another version.
        OSError: The file cannot be read.
    """
    header, arrays = open_arrays(path)
    if header.get("form") != _FORM or arrays.keys() != _TYPES.keys():
        raise ValueError("is not an index of shards")
    counts = [count for *_, count in header["shards"]]
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
    if any(len(arrays[name]) != starts[-1] for name in _TYPES if name != "names"):
        raise ValueError("is not a whole index")
    return Index(
        path,
        tuple(Shard._make(shard[:3]) for shard in header["shards"]),
        starts,
        words=tuple(header["words"]),
        kinds={kind: (count, first) for kind, (count, first) in header["kinds"].items()},
        names_sha256=header["names_sha256"],
        notes=tuple(header["notes"]),
        **arrays,
    )


def _reopened(path: Path, shards: tuple[Shard, ...]) -> Index:
    return open_index(path).of(shards)


def write_index(path: Path, files: ShardFiles, label_field: str = "") -> None:
    """Read the headers of shards, and write their index.

    The memory does not grow with the number of images.

    Args:
        path: The file to write.
        files: The shards.
        label_field: See `TarSamples`.

    Raises:
        DataError: A shard cannot be used.
    """
    with ArrayFileWriter(path, _TYPES) as writer:
        build = _Build(writer)
        counts = []
        for number, shard in enumerate(files.shards):
            with files.open(number) as file:
                samples = TarSamples(file, shard.size, shard.name, label_field)
                counts.append(build.add(samples))
            build.passed_over += samples.passed_over
            build.links += samples.links
        words = build.sort_words()
        writer.finish(
            {
                "form": _FORM,
                "shards": [
                    [*shard, count] for shard, count in zip(files.shards, counts, strict=True)
                ],
                "words": words,
                "kinds": build.kinds,
                "names_sha256": hash_of_names(build.names()),
                "notes": build.notes(),
            }
        )


class _Build:
    """Builds an index while the shards are read."""

    def __init__(self, writer: ArrayFileWriter) -> None:
        self.kinds: dict[str, list[Any]] = {}
        self.passed_over: Counter[str] = Counter()
        self.links = 0
        self._writer = writer
        self._words: dict[str, int] = {}
        self._end = 0

    def add(self, samples: TarSamples) -> int:
        """Append the samples of one shard, and return how many there are."""
        count, of_shard = 0, iter(samples)
        while chunk := list(islice(of_shard, _AT_ONCE)):
            self._append(chunk)
            count += len(chunk)
        return count

    def _append(self, chunk: Sequence[Sample]) -> None:
        for sample in chunk:
            if sample.size >= 2**32:
                raise DataError(f"{plain(sample.member)}: has {sample.size:,} bytes, too many.")
            self.kinds.setdefault(sample.kind, [0, sample.member])[0] += 1
        names = [sample.member.encode(errors="surrogateescape") for sample in chunk]
        ends = self._end + np.cumsum([len(name) for name in names], dtype=np.int64)
        self._end = int(ends[-1])
        self._writer.append("offsets", np.array([sample.offset for sample in chunk]))
        self._writer.append("sizes", np.array([sample.size for sample in chunk]))
        self._writer.append("codes", np.array([self._code(sample.label) for sample in chunk]))
        self._writer.append("name_ends", ends)
        self._writer.append("names", b"".join(names))

    def _code(self, word: str) -> int:
        if not word or (word not in self._words and len(self._words) >= _MAX_WORDS):
            return -1
        return self._words.setdefault(word, len(self._words))

    def sort_words(self) -> list[str]:
        """Sort the words, renumber the codes in that order, and return the words."""
        if all(word.isascii() and word.isdigit() for word in self._words):
            words = sorted(self._words, key=lambda word: (int(word), word))
        else:
            words = sorted(self._words)
        new = np.full(len(words) + 1, -1, np.int32)  # the last one is for images without a class
        for number, word in enumerate(words):
            new[self._words[word]] = number
        codes = self._writer.written("codes")
        for start in range(0, len(codes), 2**20):
            codes[start : start + 2**20] = new[codes[start : start + 2**20]]
        return words

    def names(self) -> Callable[[], Iterator[bytes]]:
        """Return a function that yields all names, and can be called several times."""
        ends, text = self._writer.written("name_ends"), self._writer.written("names")

        def listed() -> Iterator[bytes]:
            start = 0
            for first in range(0, len(ends), _AT_ONCE):
                part = ends[first : first + _AT_ONCE].tolist()
                content, base = text[start : part[-1]].tobytes(), start
                for end in part:
                    yield content[start - base : end - base]
                    start = end

        return listed

    def notes(self) -> list[str]:
        """Return messages about files that were skipped."""
        if not self.passed_over and not self.links:
            return []
        kinds = [
            f"{kind or 'without an ending'} {n:,}" for kind, n in self.passed_over.most_common(9)
        ]
        kinds += [f"links {self.links:,}"] if self.links else []
        return [f"skipped files that are not images ({', '.join(map(plain, kinds))})."]


def hash_of_names(listed: Callable[[], Iterator[bytes]]) -> str:
    """Return the SHA-256 of names relative to their common folder.

    Shards have the same hash as the folder that was packed into them, so that a run may be resumed
    with either; see `training.conditions`.

    Args:
        listed: Returns an iterator over the names. It is called several times.
    """
    first = min(listed(), default=b"")
    last = max(listed(), default=b"")
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    # The names of a folder of images begin with the slash after their common folder.
    cut = (b"/" + first)[: shared + 1].rfind(b"/")
    digest = hashlib.sha256()
    for name in listed():
        digest.update((b"/" + name)[cut:] + b"\0")
    return digest.hexdigest()
