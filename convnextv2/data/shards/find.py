"""Finds the shards of a `data_dir`, and the split of each."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convnextv2.data.listing import visible_folders
from convnextv2.data.shards.remote import is_remote, remote_tars
from convnextv2.data.split_names import Kind, kind_of
from convnextv2.errors import DataError
from convnextv2.text import counted

ENDING = ".tar"
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BETWEEN = "::"
_MAX_NAMES = 10_000_000


@dataclass(frozen=True)
class ShardSplits:
    """The shards of a data set, by split.

    Attributes:
        training: The training shards; all shards if there are no splits.
        validation: The validation shards; empty if there are none.
        has_splits: Whether the names or folders of the shards name splits.
        notes: Messages to the user about what was found.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    has_splits: bool
    notes: tuple[str, ...] = ()


def are_shards(data_dir: str) -> bool:
    """Return whether `data_dir` names tar files: a file, a folder, a pattern or several of them."""
    if not data_dir:
        return False
    if _BETWEEN in data_dir or is_remote(data_dir) or data_dir.endswith((ENDING, *_PACKED)):
        return True
    root = Path(data_dir)
    if not root.is_dir():
        return False
    folders = visible_folders(root)[0]
    if _tars(root):
        return all(kind_of(name) and _tars(folder) for name, folder in folders.items())
    return bool(folders) and all(
        kind_of(name) and _tars(folder) and not visible_folders(folder)[0]
        for name, folder in folders.items()
    )


def find_shards(
    data_dir: str, train_split: str | None = None, val_split: str | None = None
) -> ShardSplits:
    """Find the shards of a `data_dir`, and the split of each.

    The split of a shard is named by a word of its file name, or otherwise by its folder, as in
    imagenet-train-000017.tar and train/000017.tar.

    Args:
        data_dir: A folder, a tar file, or a pattern with braces such as s-{000..012}.tar; or
            several of these, separated by "::".
        train_split: The user's name of the training split; None to look for usual names.
        val_split: The user's name of the validation split; None likewise.

    Returns:
        The shards. Those of a folder are sorted by name; others keep the given order.

    Raises:
        DataError: A pattern cannot be read, or no shard is for training.
    """
    return by_split(data_dir, _listed(data_dir), train_split, val_split)


def by_split(
    data_dir: str, names: Sequence[str], train_split: str | None, val_split: str | None
) -> ShardSplits:
    """Divide shards into splits; see `find_shards`.

    Args:
        data_dir: The `data_dir` of the user, for error messages.
        names: The paths or addresses of all shards, in order.
        train_split: See `find_shards`.
        val_split: See `find_shards`.
    """
    if train_split == ".":
        return ShardSplits(tuple(names), (), False)
    words: dict[str, list[str]] = {}
    for name in names:
        words.setdefault(_split_word(name, (train_split, val_split)), []).append(name)
    training = _chosen(data_dir, words, "train", train_split)
    validation = _chosen(data_dir, words, "validation", val_split)
    if not training and not validation and set(words) <= {""}:
        return ShardSplits(tuple(names), (), False)
    if not training:
        found = ", ".join(word or "no split" for word in words)
        raise DataError(
            f"{data_dir}: no shard is for training; by their names they belong to: {found}. Set "
            "train_split to the right one, or to . for all."
        )
    left = [word or "others" for word, some in words.items() if some not in (training, validation)]
    note = f"{data_dir}: {counted(len(training), 'shard(s)')} for training"
    note += f", {len(validation):,} for validation" if validation else ""
    note += f"; not used: {', '.join(left)}." if left else "."
    return ShardSplits(tuple(training), tuple(validation), True, (note,))


def expand(pattern: str) -> list[str]:
    """Expand the braces of a pattern as shells do: {a,b}, and {000..012} with leading zeros.

    Raises:
        DataError: A brace is not closed or is empty, or there are too many names.
    """
    parts = _BRACES.split(pattern)
    if any(set(part) & set("{}") for part in parts):
        raise DataError(f"{pattern}: a brace is open or empty. Write {{000..012}} or {{a,b}}.")
    choices = [[part] if i % 2 == 0 else _choices(part) for i, part in enumerate(parts)]
    count = 1
    for some in choices:
        count *= len(some)
    if count > _MAX_NAMES:
        raise DataError(f"{pattern}: stands for {count:,} names, expected at most {_MAX_NAMES:,}.")
    return ["".join(some) for some in itertools.product(*choices)]


def _choices(inner: str) -> Sequence[str]:
    found: list[str] = []
    for part in inner.split(","):
        if match := _RANGE.fullmatch(part.strip()):
            first, last = match.groups()
            width = max(len(first), len(last)) if first.startswith("0") or last[0] == "0" else 0
            step = 1 if int(first) <= int(last) else -1
            if abs(int(last) - int(first)) >= _MAX_NAMES:
                raise DataError(f"{{{inner}}}: stands for more than {_MAX_NAMES:,} names.")
            numbers = range(int(first), int(last) + step, step)
            found += [str(number).zfill(width) for number in numbers]
        else:
            found.append(part)
    return found


def _listed(data_dir: str) -> list[str]:
    names: list[str] = []
    for part in filter(None, data_dir.split(_BETWEEN)):
        for name in expand(part) if "{" in part else [part]:
            if is_remote(name):
                names += [name] if name.endswith(ENDING) else remote_tars(name)
            else:
                names += _of_folder(Path(name)) if os.path.isdir(name) else [name]
    return names


def _of_folder(root: Path) -> list[str]:
    folders = visible_folders(root)[0]
    found = _tars(root) + [path for name in folders for path in _tars(folders[name])]
    if not found:
        raise DataError(f"{root}: holds no {ENDING} files.")
    return found


def _tars(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return [os.path.join(folder, name) for name in sorted(names) if name.endswith(ENDING)]


def _split_word(name: str, given: Sequence[str | None]) -> str:
    """Return the word in the name of a shard or of its folder that names a split, or ""."""
    folder, _, base = name.rpartition("/")
    stem = base.removesuffix(ENDING)
    words = [word for word in re.split(r"[-.\s]+|_(?=\d)", stem) if word]
    for word in words:
        if word in given:
            return word
    above = folder.rpartition("/")[2]
    if above in given:
        return above
    parts = [*words, *(part for word in words for part in word.split("_"))]
    found = next((word for word in parts if kind_of(word)), "")
    return found or (above if kind_of(above) else "")


def _chosen(data_dir: str, words: dict[str, list[str]], kind: Kind, given: str | None) -> list[str]:
    if given is not None:
        alike = [word for word in words if kind_of(word) and kind_of(word) == kind_of(given)]
        found = [given] if given in words else alike
    else:
        found = [word for word in words if kind_of(word) == kind]
    if len(found) > 1:
        knob = "train_split" if kind == "train" else "val_split"
        raise DataError(
            f"{data_dir}: has shards of {' and '.join(found)}. Set {knob} to the right one."
        )
    return words[found[0]] if found else []
