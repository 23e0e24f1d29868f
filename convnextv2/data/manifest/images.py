"""Finds the image files of a table by listing each folder once."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.manifest.columns import is_image_name
from convnextv2.data.manifest.content import Content
from convnextv2.data.manifest.listings import Folders, Listing, subfolders
from convnextv2.data.manifest.packed import NameStore, Words, quoted
from convnextv2.data.path_list import PathList
from convnextv2.errors import DataError
from convnextv2.text import typed

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_DRIVE = re.compile(r"[A-Za-z]:/|//")
_MAX_FOLDERS = 1000  # that are searched for the first missing image, to suggest a remedy


@dataclass(frozen=True)
class Found:
    """The images of a table.

    Attributes:
        paths: The paths of the image files, which exist.
        rows: int64 (N,), the row of each image in the content of the table, ascending.
        notes: Messages about changed and skipped rows.
        repeats: Pairs of rows with the same image in the same split: the row that is kept, and one
            that is not.
    """

    paths: PathList
    rows: NDArray[np.int64]
    notes: tuple[str, ...]
    repeats: Sequence[tuple[int, int]] = ()


@dataclass
class _Findings:
    """Collects what is found in all folders, for notes and errors.

    Attributes:
        missing: Rows whose image does not exist.
        adapted: The number of images whose names differ from the table, by kind of difference.
        examples: For each of these kinds, a name in the table and the name of the file.
        repeats: See `Found.repeats`.
        leaked: Pairs of rows with the same image in two splits.
        contradictions: Pairs of rows with the same image and two labels.
    """

    missing: list[int] = field(default_factory=list)
    adapted: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    repeats: list[tuple[int, int]] = field(default_factory=list)
    leaked: list[tuple[int, int]] = field(default_factory=list)
    contradictions: list[tuple[int, int]] = field(default_factory=list)


def find_images(
    path: Path, content: Content, used: NDArray[np.bool_], labels: Words | None, base: Path
) -> Found:
    """Find the images of a table.

    Args:
        path: The table, for error messages.
        content: The rows of the table.
        used: bool (N,), the rows whose images are needed. Other rows are only checked for images
            that are in two splits.
        labels: The labels of the used rows, in order; None if they do not matter.
        base: The folder that relative paths start from.

    Returns:
        The images of the used rows, each once in a split, in the order of the rows.

    Raises:
        DataError: Images do not exist, or have two labels.
    """
    paths = content.paths
    label_of = np.full(len(paths), -1, np.int32)
    if labels is not None:
        label_of[used] = labels.codes
    split_of = content.splits.codes if content.splits else np.zeros(len(paths), np.int32)
    folders = Folders(str(base))
    places, place_of = _places(paths, folders)
    findings = _Findings()
    store, order = NameStore(), []
    for place, rows in _by_place(place_of):
        if place < 0:
            findings.missing += rows[used[rows]].tolist()
            continue
        kept = []
        facts = _facts(rows, used, label_of, split_of)
        for row, name in _images_in(places[place], paths, facts, findings):
            kept.append(row)
            store.append(name)
        order.append(np.array(kept, np.int64))
    _refuse(path, content, labels, label_of, findings, used, base)
    text, starts, lengths = store.finish()
    rows = np.concatenate([*order, np.empty(0, np.int64)])
    ranked = np.argsort(rows, kind="stable")
    rows = rows[ranked]
    return Found(
        PathList(places, place_of[rows], text, starts[ranked], lengths[ranked]),
        rows,
        _notes(path, content, findings, folders, joins=labels is None),
        findings.repeats,
    )


def _images_in(
    folder: str,
    paths: PathList,
    facts: Iterable[tuple[int, bool, int, int]],
    findings: _Findings,
) -> Iterator[tuple[int, str]]:
    """Find the images of the rows in one folder.

    Args:
        folder: The folder.
        paths: The paths in the table.
        facts: The row, whether it is used, its label and its split; see `_facts`.
        findings: Missing, repeated and contradictory images are added to it.

    Yields:
        Each used row that is kept, and the name of its file.
    """
    listing = Listing(folder)
    seen: dict[str, tuple[int, int, int]] = {}  # name -> first row, its label and its split
    again: dict[tuple[str, int], int] = {}  # name and another split -> first row in that split
    for row, is_used, label, split in facts:
        written = paths.name(row)
        name, difference = listing.match(written)
        if not name:
            if is_used:
                findings.missing.append(row)
            continue
        if difference and is_used:
            ending = os.path.splitext(name)[1] if difference == "ending" else ""
            findings.adapted[difference + ending] += 1
            findings.examples.setdefault(difference + ending, (written, name))
        first, first_label, first_split = seen.setdefault(name, (row, label, split))
        if first != row:
            if is_used and first_label >= 0 and first_label != label:
                findings.contradictions.append((first, row))
            kept_row = first if split == first_split else again.get((name, split))
            if kept_row is not None:
                if is_used:
                    findings.repeats.append((kept_row, row))
                continue
            again[name, split] = row
            findings.leaked.append((first, row))
        if is_used:
            yield row, name


def _places(paths: PathList, folders: Folders) -> tuple[list[str], NDArray[np.int32]]:
    """Return the distinct folders on this machine, and the index of the folder of each row.

    The index is -1 if the folder does not exist.
    """
    samples = np.full(len(paths.folders), -1, np.int64)
    samples[paths.codes[::-1]] = np.arange(len(paths))[::-1]  # the first row of each folder
    index: dict[str, int] = {}
    table = []
    for text, row in zip(paths.folders, samples.tolist(), strict=True):
        found = folders.find(text, paths.name(row))
        table.append(-1 if found is None else index.setdefault(found, len(index)))
    return list(index), np.array(table, np.int32)[paths.codes]


def _by_place(place_of: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the index of each folder, and its rows, ascending."""
    order = np.argsort(place_of, kind="stable")
    ordered = place_of[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-2))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        yield int(ordered[start]), order[start:end]


def _facts(
    rows: NDArray[np.int64],
    used: NDArray[np.bool_],
    labels: NDArray[np.int32],
    splits: NDArray[np.int32],
) -> Iterator[tuple[int, bool, int, int]]:
    """Yield each row, whether it is used, its label and its split.

    Arrays are converted to Python numbers in large pieces, which is faster than one at a time.
    """
    for start in range(0, len(rows), 65_536):
        some = rows[start : start + 65_536]
        facts = (array[some].tolist() for array in (used, labels, splits))
        yield from zip(some.tolist(), *facts, strict=True)


# --- errors ---------------------------------------------------------------------------------------


def _refuse(
    path: Path,
    content: Content,
    labels: Words | None,
    label_of: NDArray[np.int32],
    findings: _Findings,
    used: NDArray[np.bool_],
    base: Path,
) -> None:
    if findings.missing:
        raise DataError(_missing(path, content, sorted(findings.missing), int(used.sum()), base))
    if findings.contradictions:
        assert labels is not None
        pairs = sorted(findings.contradictions)
        first, second = pairs[0]
        count = len({first for first, _ in pairs})
        said = " and ".join(
            f"{quoted(labels.words[label_of[row]])} ({content.unit} {content.lines[row]:,})"
            for row in (first, second)
        )
        images = "image has" if count == 1 else "images have"
        raise DataError(
            f"{path}: {count:,} {images} two labels, first {quoted(content.paths[first])}: {said}. "
            "An image has one class here: keep one of its rows, or set labels to multi if an image "
            "may have several."
        )


def _missing(path: Path, content: Content, rows: Sequence[int], count: int, base: Path) -> str:
    """Return the error for missing images: their number, the first three, and a remedy."""
    written = content.paths
    lines = [f"{quoted(written[row])} ({content.unit} {content.lines[row]:,})" for row in rows[:3]]
    folder = written.folders[written.codes[rows[0]]]
    images = f"{len(rows):,} of {count:,} images"
    verb = "is" if len(rows) == 1 else "are"
    if _ADDRESS.match(f"{folder}/"):
        where = f"{verb} on the web: {', '.join(lines)}"
        return f"{path}: {images} {where}. Download them and list the files."
    where = f"{verb} not in {base}/: {', '.join(lines)}"
    return f"{path}: {images} {where}. {_remedy(written[rows[0]], base)}"


def _remedy(text: str, base: Path) -> str:
    """Return the remedy for the first missing image, such as the option that would find it."""
    if _DRIVE.match(text):
        return "Give the folder on this machine that holds the images: --images_dir FOLDER"
    folder, name = os.path.split(text)
    for other in dict.fromkeys((base.resolve().parent, Path.cwd())):
        if os.path.isfile(other / text):
            return f"It is found from another folder: --images_dir {typed(other)}"
    below = _search(base, text)
    if below is not None:
        return f"Found with: --images_dir {typed(below)}"
    place = base / folder
    if os.path.isdir(place):
        stem = os.path.splitext(name)[0] if is_image_name(name) else name
        names = sorted(other for other in Listing(str(place)).names if is_image_name(other))
        same = [other for other in names if os.path.splitext(other)[0] == stem]
        if len(same) > 1 and stem == name:
            ending = os.path.splitext(same[0])[1]
            both = " and ".join(map(quoted, same[:2]))
            return f"There are {both}: choose an ending, such as --image_suffix {typed(ending)}"
        if same:
            return f"There is {quoted(same[0])}: correct the table."
    return "Correct the table, or give the folder that paths start from: --images_dir FOLDER"


def _search(base: Path, text: str) -> Path | None:
    """Find a folder below the base in which a path exists, breadth-first."""
    queue, looked = [str(base)], 0
    for folder in queue:
        looked += 1
        if looked > _MAX_FOLDERS:
            return None
        head, name = os.path.split(os.path.join(folder, text))
        if folder != str(base) and os.path.isdir(head) and Listing(head).match(name)[0]:
            return Path(folder)
        queue += [os.path.join(folder, child) for child in sorted(subfolders(folder))]
    return None


# --- notes ----------------------------------------------------------------------------------------


def _notes(
    path: Path, content: Content, findings: _Findings, folders: Folders, *, joins: bool
) -> tuple[str, ...]:
    notes = []
    if folders.dropped:
        dropped = quoted(folders.dropped)
        notes.append(f"the folder {dropped} does not exist, so paths are read without it.")
    differs = {"form": "Unicode form", "case": "letter case"}
    for kind, (written, found) in folders.adapted.items():
        same = f"({written!r} is {found!r})" if kind == "case" else f"({quoted(found)})"
        notes.append(f"folders differ from those on disk in their {differs[kind]} only {same}.")
    for kind, count in findings.adapted.items():
        written, found = findings.examples[kind]
        images = f"{count:,} image" + ("s are" if count > 1 else " is")
        if kind.startswith("ending"):
            ending = kind.removeprefix("ending")
            notes.append(f"{images} found with the ending {ending} ({written!r} is {found!r}).")
        else:
            same = f"{written!r} is {found!r}" if kind == "case" else quoted(found)
            notes.append(f"{images} found in another {differs[kind]} ({same}).")
    if count := len(findings.repeats):
        if joins and content.labels is not None:
            one = "1 row repeats an image, and its labels are added."
            several = f"{count:,} rows repeat images, and their labels are added."
        else:
            one = "1 row repeats an image and its label, and is skipped."
            several = f"{count:,} rows repeat images and their labels, and are skipped."
        notes.append(one if count == 1 else several)
    if findings.leaked:
        assert content.splits is not None
        first, second = min(findings.leaked)
        count = len({row for row, _ in findings.leaked})
        words = " and ".join(quoted(content.splits[row]) for row in (first, second))
        images = f"{count:,} image" + ("s are" if count > 1 else " is")
        example = f"first {quoted(content.paths[first])}, in {words}"
        notes.append(
            f"{images} in more than one split ({example}): such images are not new to the model."
        )
    return tuple(f"{path}: {note}" for note in notes)
