"""Sources of images in shards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.class_names import class_name_of, is_not_trained
from convnextv2.data.shards.files import LocalFiles, ShardFiles
from convnextv2.data.shards.images import ShardImages
from convnextv2.data.shards.index import Index
from convnextv2.data.shards.index_cache import cached_index
from convnextv2.data.shards.remote import RemoteFiles, is_remote
from convnextv2.data.shards.tar import describe_kinds
from convnextv2.data.source import Source
from convnextv2.errors import DataError
from convnextv2.text import counted, plain

CLASSES = "classes.txt"
"""The file beside shards with the names of the classes, one per line, starting with class 0."""


def shard_source(
    data_dir: str,
    shards: Sequence[str],
    *,
    labelled: bool,
    class_names: Sequence[str] = (),
    label_field: str = "",
    cache_gb: float = 0.0,
) -> Source:
    """List the images of shards, in the order of the shards and of the samples in them.

    Args:
        data_dir: The `data_dir` of the user, for error messages.
        shards: The paths or addresses of the tar files, at least one.
        labelled: Whether each image needs a class.
        class_names: The classes in the order of their indices; empty for those of the shards.
        label_field: The field with the class in a sample's JSON file; "" for the usual ones.
        cache_gb: The largest size of the cache for shards on a server, in 10^9 bytes.

    Raises:
        DataError: A shard cannot be used, there are no images, or an image has no class, or one
            that is not among the given ones.
    """
    files = open_files(shards, cache_gb)
    index = cached_index(files, label_field)
    if not len(index):
        raise DataError(f"{data_dir}: there is no image in {counted(len(shards), 'shard(s)')}.")
    notes = tuple(f"{data_dir}: {note}" for note in index.notes)
    images = ShardImages(index, files)
    if not labelled:
        return Source(images, notes=notes)
    _check_labels(data_dir, index)
    if all(word.isascii() and word.isdigit() for word in index.words):
        names, numbers = _numbered(data_dir, index, class_names or class_file(files))
    else:
        names, numbers = _named(data_dir, index, class_names)
    if absent := np.setdiff1d(np.arange(len(names)), numbers).tolist():
        few = ", ".join(plain(names[number]) for number in absent[:5])
        notes += (
            f"{data_dir}: has no images of {len(absent)} of the {len(names)} classes ({few}).",
        )
    return Source(images, _targets(index, numbers), tuple(names), notes=notes)


def open_files(shards: Sequence[str], cache_gb: float) -> ShardFiles:
    """Build access to shards on a disk or on a server.

    Args:
        shards: Only paths, or only addresses, of tar files.
        cache_gb: The largest size of the cache for shards on a server, in 10^9 bytes.

    Raises:
        DataError: A file is missing.
        MissingPackageError: A package for their addresses is missing.
    """
    remote = [name for name in shards if is_remote(name)]
    if 0 < len(remote) < len(shards):
        raise DataError(f"{remote[0]}: is on a server, but others are not. Use only one kind.")
    return RemoteFiles.of(shards, cache_gb) if remote else LocalFiles.of(shards)


def class_file(files: ShardFiles) -> list[str]:
    """Read `CLASSES` beside shards, or in the parent of their folder.

    Returns:
        The names; empty if there is no such file.

    Raises:
        DataError: The file cannot be read.
    """
    content = files.beside(CLASSES)
    if content is None:
        return []
    where = f"{CLASSES} beside {files.shards[0].name}"
    try:
        names = [line.strip() for line in content.decode().splitlines()]
    except UnicodeDecodeError:
        raise DataError(f"{where}: is not UTF-8. Write it as text.") from None
    if not all(names) or len(set(names)) < len(names):
        raise DataError(f"{where}: a line is empty or repeated. Expected one class per line.")
    return names


def _check_labels(data_dir: str, index: Index) -> None:
    """Check that every image has a class, and that all classes come from one kind of file."""
    kinds = index.kinds
    if len(kinds) > 1:
        counts = "; ".join(
            f"{count:,} from {describe_kinds([kind])}, such as {plain(first)}"
            for kind, (count, first) in kinds.items()
        )
        raise DataError(
            f"{data_dir}: classes come from different places: {counts}. Use one of them."
        )
    if "" in kinds:
        raise DataError(
            f"{data_dir}: no sample has a class. Expected a file .cls, .json or .txt beside each "
            "image, or folders of classes in the tar files."
        )
    if (index.codes < 0).any():
        row = int(np.flatnonzero(index.codes < 0)[0])
        raise DataError(
            f"{data_dir}: its {describe_kinds(list(kinds))} hold too many different texts to be "
            f"classes, such as that of {plain(index.name(row))}. Without labels, pretrain can use "
            "these images."
        )


def _numbered(
    data_dir: str, index: Index, class_names: Sequence[str]
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the classes, and the class index of each word of the index; all words are numbers."""
    numbers = np.array([int(word) for word in index.words], np.int64)
    last = int(numbers.max())
    if class_names and last >= len(class_names):
        raise DataError(
            f"{data_dir}: has the class number {last}, but there are {len(class_names)} classes "
            f"(0 to {len(class_names) - 1}). Correct the labels, or {CLASSES}."
        )
    if not class_names and last > 10 * len(numbers) + 1000:
        raise DataError(
            f"{data_dir}: class numbers go up to {last:,}, but only {len(numbers):,} occur. Number "
            f"the classes from 0, or name them in {CLASSES} beside the shards, one per line."
        )
    return list(class_names) or [str(number) for number in range(last + 1)], numbers


def _named(
    data_dir: str, index: Index, class_names: Sequence[str]
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the classes, and the class index of each word of the index; words are names."""
    words = [class_name_of(word) for word in index.words]
    names = list(class_names) or sorted(set(words))
    number = {class_name_of(name): i for i, name in enumerate(names)}
    if unknown := [word for word in words if word not in number]:
        raise DataError(f"{data_dir}: class {unknown[0]!r} {is_not_trained(names)}.")
    return names, np.array([number[word] for word in words], np.int64)


def _targets(index: Index, numbers: NDArray[np.int64]) -> NDArray[np.integer]:
    """Return the class of each image: the array of the index itself if no renumbering is needed."""
    if (numbers == np.arange(len(numbers))).all():
        return index.codes
    return numbers.astype(np.int32)[index.codes]
