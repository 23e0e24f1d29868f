"""Reads a table of images with labels and splits."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.manifest.columns import Columns, choose_columns, has_names, rate
from convnextv2.data.manifest.content import Content, read_content
from convnextv2.data.manifest.images import find_images
from convnextv2.data.manifest.label_sets import (
    LabelKind,
    LabelSets,
    read_sets,
    reads_several,
    separator_hint,
    single_names,
)
from convnextv2.data.manifest.labels import (
    check_class_names,
    clean_labels,
    clean_splits,
    flag_words,
)
from convnextv2.data.manifest.packed import Words, count_words, quoted
from convnextv2.data.manifest.sheet import Row, Sheet, open_sheet
from convnextv2.data.path_list import PathList
from convnextv2.data.split_names import kind_of
from convnextv2.errors import DataError


@dataclass(frozen=True, eq=False)
class Table:
    """The images of a table.

    Attributes:
        paths: The paths of the image files, which exist. Each image occurs once in a split.
        labels: The label of each image, in NFC and without blanks at its ends; None if labels are
            not needed, or if images may have several.
        splits: The word of each image in the column of splits; None without such a column.
        notes: Messages about guesses, changes and skipped rows.
        sets: The labels of images that may have several; None if each image has one.
        classes: The names of all classes in order, if the table lists them.
    """

    paths: PathList
    labels: Words | None
    splits: Words | None
    notes: tuple[str, ...] = ()
    sets: LabelSets | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Table:
        """Select images.

        Args:
            rows: The indices of the images, in the new order.
        """
        labels = None if self.labels is None else self.labels.take(rows)
        splits = None if self.splits is None else self.splits.take(rows)
        sets = None if self.sets is None else self.sets.take(rows)
        return Table(self.paths.take(rows), labels, splits, self.notes, sets, self.classes)

    def of_splits(self, words: Collection[str]) -> Table:
        """Select the images of some splits.

        Args:
            words: The words of these splits, as in `splits`.
        """
        assert self.splits is not None
        wanted = np.array([word in words for word in self.splits.words], bool)
        return self.take(np.flatnonzero(wanted[self.splits.codes]))


def read_table(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    images_dir: str | Path | None = None,
    suffix: str = "",
    labelled: bool = True,
    kind: LabelKind = "auto",
    separator: str = "",
    wanted: Callable[[Mapping[str, int]], Collection[str]] | None = None,
) -> Table:
    """Read a table of images: CSV, TSV, text, JSON or JSONL.

    The memory is about 60 bytes for each row, and the names of the images.

    Args:
        path: The file.
        columns: Role (path, label or split) -> the name of its column, or its number from 1, for
            columns without a usual name. "" for split states that there is no such column.
        images_dir: The folder that relative paths start from. If it does not exist, it is searched
            beside the table. None for the folder of the table.
        suffix: The ending to add to names without that of an image, such as ".jpg".
        labelled: Whether labels are needed.
        kind: How many labels an image has.
        separator: The separator of several names in one label; "" to detect it.
        wanted: Maps the words in the column of splits and their numbers of rows to the words whose
            rows are used. Other rows may lack labels and images. None uses all rows.

    Returns:
        The images of the used rows, in the order of the table.

    Raises:
        DataError: The table cannot be read, a used row has no label or no image, or rows contradict
            each other. The message counts all rows with the same mistake.
    """
    path = Path(path)
    columns = columns or {}
    sheet = open_sheet(path, lambda fields: rate(fields, columns))
    base = _base(path, images_dir)
    exists = any(os.path.isfile(base / field.strip()) for field in sheet.first if field.strip())
    chosen = choose_columns(path, sheet, columns, labelled=labelled, exists=exists)
    content = _content(path, sheet, chosen, base, suffix, lists=kind != "single")
    splits, notes = _splits(path, content, chosen)
    content = replace(content, splits=splits)
    used = np.ones(len(content.paths), bool)
    if splits is not None and wanted is not None:
        words = wanted(splits.counts())
        used = np.array([word in words for word in splits.words], bool)[splits.codes]
    are_names = sheet.has_types or has_names(chosen)
    labels, sets, said = _labels(path, content, used, sheet.classes, kind, separator, are_names)
    found = find_images(path, content, used, labels, base)
    place = np.cumsum(used) - 1  # the index of each row among the used ones
    if labels is not None:
        labels = labels.take(place[found.rows])
    if sets is not None:
        _check_confidence(path, chosen, bool(found.repeats))
        sets = sets.joined((place[kept], place[other]) for kept, other in found.repeats)
        sets = sets.take(place[found.rows])
    return Table(
        found.paths,
        labels,
        None if splits is None else splits.take(found.rows),
        (*sheet.notes, *chosen.notes, *content.notes, *notes, *said, *found.notes),
        sets,
        sheet.classes,
    )


def _check_confidence(path: Path, columns: Columns, is_long: bool) -> None:
    """Raise DataError if a column may state that an image does not have the label of its row."""
    doubtful = [name for name in columns.names if name.lower() in ("confidence", "is_present")]
    if is_long and doubtful:
        raise DataError(
            f"{path}: has the column {quoted(doubtful[0])}, which may say that an image does not "
            "have the label of a row. Keep the rows of labels that images have, and leave that "
            "column out."
        )


def _labels(
    path: Path,
    content: Content,
    used: NDArray[np.bool_],
    known: tuple[str, ...],
    kind: LabelKind,
    separator: str,
    are_names: bool,
) -> tuple[Words | None, LabelSets | None, tuple[str, ...]]:
    """Read one label for each used row, or several. Also returns notes."""
    if content.labels is None:
        return None, None, ()
    check_class_names(path, content.classes or known)
    rows = np.flatnonzero(used)
    texts, lines, unit = content.labels.take(rows), content.lines[rows], content.unit
    if reads_several(texts, content.classes, kind, separator):
        sets, notes = read_sets(
            path, texts, lines, unit, columns=content.classes, known=known, separator=separator
        )
        return None, sets, notes
    notes = ()
    if content.classes:
        texts = single_names(path, texts, lines, unit, content.classes)
        count = len(content.classes)
        names = ", ".join(quoted(name, 40) for name in content.classes[:5])
        names += ", ..." * (count > 5)
        notes = (f"{path}: has one column for each of {count} classes ({names}).",)
    elif kind == "auto":
        notes = separator_hint(path, texts)
    labels, said = clean_labels(path, texts, lines, unit, are_names=are_names)
    return labels, None, (*notes, *said)


def _base(path: Path, images_dir: str | Path | None) -> Path:
    """Return the folder that relative paths start from."""
    if not images_dir:
        return path.parent
    try:
        folder = Path(images_dir).expanduser()
    except RuntimeError:  # ~USER, who is unknown here
        folder = Path(images_dir)
    for place in (folder, path.parent / folder):
        if place.is_dir():
            return place
    raise DataError(f"images_dir = {folder}: no such folder, neither here nor beside {path}.")


def _content(
    path: Path, sheet: Sheet, columns: Columns, base: Path, suffix: str, *, lists: bool
) -> Content:
    label = columns.label
    labels = label if isinstance(label, tuple) else () if label is None else (label,)
    used = {columns.path, *labels} | ({columns.split} if columns.split is not None else set())
    rows: Iterable[Row] = sheet.rows(used, labels if lists else ())
    if not columns.has_header:
        rows = _with_first(sheet, rows)
    if suffix and not suffix.startswith("."):
        suffix = f".{suffix}"
    content = read_content(path, rows, columns, base=base, suffix=suffix, unit=sheet.unit)
    if not len(content.paths):
        raise DataError(f"{path}: lists no images.")
    return content


def _with_first(sheet: Sheet, rows: Iterable[Row]) -> Iterator[Row]:
    yield sheet.first_line, sheet.first
    yield from rows


def _splits(path: Path, content: Content, columns: Columns) -> tuple[Words | None, tuple[str, ...]]:
    """Return the words in the column of splits, and notes; no words if it is not one of splits."""
    if content.splits is None or columns.split is None:
        return None, ()
    name = quoted(columns.names[columns.split])
    splits = clean_splits(content.splits, columns.flag)
    if splits is None or (columns.is_weak and not any(map(kind_of, splits.words))):
        found = count_words((splits or content.splits).counts(), max_words=5)
        return None, (f"{path}: the column {name} is not taken for a split; it has {found}.",)
    if columns.flag:
        true, false = flag_words(columns.flag)
        said = f"true in the column {name} is read as the split {true}, false as {false}"
        return splits, (f"{path}: {said}.",)
    if columns.is_weak:
        return splits, (f"{path}: split is read from the column {name}.",)
    return splits, ()
