"""Reads the rows of a table: paths, labels and splits, as they are written."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.manifest.columns import Columns, is_image_name
from convnextv2.data.manifest.packed import NameStore, Words, quoted
from convnextv2.data.manifest.sheet import Row
from convnextv2.data.path_list import PathList
from convnextv2.errors import DataError

TRUE = frozenset(("1", "1.0", "true", "t", "yes", "y"))
FALSE = frozenset(("0", "0.0", "false", "f", "no", "n"))
_LETTERS = {
    **dict.fromkeys(TRUE, "1"),
    **dict.fromkeys(FALSE, "0"),
    **dict.fromkeys(("-1", "-1.0"), "-"),
    **dict.fromkeys(("", "nan"), "?"),
}


@dataclass(frozen=True)
class Content:
    """The rows of a table.

    Attributes:
        lines: int32 (N,), the number of the line of each row.
        unit: The unit of these numbers, "line" or "entry".
        paths: The paths of the images as written, but with "/" between folders and the ending.
        labels: The labels as written; None if they are not needed. With one column for each class,
            a row has one letter for each class: "1", "0", "?" for an empty field, or "-" for -1.
        classes: The names of these columns; empty if a single column has the labels.
        splits: The words in the column of splits; None without one.
        notes: Messages about changes that were made.
    """

    lines: NDArray[np.int32]
    unit: str
    paths: PathList
    labels: Words | None
    splits: Words | None
    notes: tuple[str, ...]
    classes: tuple[str, ...] = ()


class _Codes:
    """Collects a column of `Words`, with codes in the order of first occurrence."""

    def __init__(self) -> None:
        self.code: dict[str, int] = {}
        self.codes = array("i")

    def append(self, text: str) -> None:
        code = self.code.setdefault(text, len(self.code))
        self.codes.append(code)

    def words(self) -> Words:
        return Words(tuple(self.code), np.frombuffer(self.codes, np.int32))


@dataclass
class Mistakes:
    """The lines with mistakes, by kind of mistake."""

    unit: str
    lines: dict[str, list[int]] = field(default_factory=dict)

    def add(self, what: str, line: int) -> None:
        """Record a line with a mistake; see `rows_with` for `what`."""
        self.lines.setdefault(what, []).append(line)

    def raise_first(self, path: Path) -> None:
        """Raise DataError for all lines of the first kind of mistake, if there is one."""
        for what, lines in self.lines.items():
            raise DataError(f"{path}: {rows_with(what, lines, self.unit)}")


def rows_with(what: str, lines: Sequence[int], unit: str) -> str:
    """Describe which rows have a property, as in "12 rows have no label, first in line 7".

    Args:
        what: The end of the sentence "N rows ...". "{have}" in it becomes "has" or "have".
        lines: The numbers of their lines, ascending.
        unit: The unit of these numbers, "line" or "entry".

    Returns:
        The sentence. Further sentences in `what` come after the number of the line.
    """
    count = len(lines)
    claim, dot, remedy = what.partition(". ")
    claim = claim.removesuffix(".").replace("{have}", "has" if count == 1 else "have")
    where = f"{'first ' if count > 1 else ''}in {unit} {lines[0]:,}"
    return f"{count:,} row{'s' * (count != 1)} {claim}, {where}.{dot[1:]}{remedy}"


def read_content(
    path: Path,
    rows: Iterable[Row],
    columns: Columns,
    *,
    base: Path,
    suffix: str,
    unit: str = "line",
) -> Content:
    """Read all rows.

    Args:
        path: The table, for error messages.
        rows: The rows, which are iterated once.
        columns: The roles of the columns.
        base: The folder that relative paths start from.
        suffix: The ending for names without that of an image, such as ".jpg"; "" for none.
        unit: The unit of the numbers of the rows.

    Returns:
        The rows that are not empty.

    Raises:
        DataError: A row has no path or too many fields, or a column of a class has another value
            than 0 and 1.
    """
    lines, names = array("i"), NameStore()
    folders, labels, splits = _Codes(), _Codes(), _Codes()
    mistakes = Mistakes(unit)
    width, path_at, split_at = len(columns.names), columns.path, columns.split
    label_at = columns.label if isinstance(columns.label, int) else None
    one_hot = _OneHot(path, columns, columns.label) if isinstance(columns.label, tuple) else None
    spelling = _Spelling(base, suffix)
    for line, fields in rows:
        count = len(fields)  # a row may have fewer fields than there are columns, or more
        if count > width and any(fields[width:]):
            mistakes.add(_TOO_MANY.format(width=width), line)
            continue
        text = fields[path_at].strip() if count > path_at else ""
        if not text:
            if any(value.strip() for value in fields):
                mistakes.add("{have} no path", line)
            continue
        folder, _, name = spelling(text).rpartition("/")
        lines.append(line)
        folders.append(folder or ("/" if text[0] == "/" else ""))
        names.append(name)
        if label_at is not None:
            labels.append(fields[label_at] if count > label_at else "")
        elif one_hot is not None:
            labels.append(one_hot(line, fields, mistakes.unit))
        if split_at is not None:
            splits.append(fields[split_at] if count > split_at else "")
    mistakes.raise_first(path)
    notes = (f"{path}: backslashes in paths are read as /.",) if spelling.replaces else ()
    packed, starts, lengths = names.finish()
    placed = folders.words()
    return Content(
        lines=np.frombuffer(lines, np.int32),
        unit=unit,
        paths=PathList(placed.words, placed.codes, packed, starts, lengths),
        labels=labels.words() if columns.label is not None else None,
        splits=splits.words() if split_at is not None else None,
        notes=notes,
        classes=one_hot.names if one_hot is not None else (),
    )


_TOO_MANY = (
    "{{have}} more fields than the {width} columns. "
    "Put quotes around a text that contains the separator."
)


class _Spelling:
    """Rewrites paths with "/" between folders and with an ending.

    Attributes:
        replaces: Whether backslashes are replaced; None until a path has one.
    """

    def __init__(self, base: Path, suffix: str) -> None:
        self.replaces: bool | None = None
        self._base = base
        self._suffix = suffix

    def __call__(self, text: str) -> str:
        if "\\" in text:
            if self.replaces is None:  # one check is enough: no table mixes both meanings
                self.replaces = not os.path.lexists(self._base / text)
            if self.replaces:
                text = text.replace("\\", "/")
        if self._suffix and not is_image_name(text):
            text += self._suffix
        return text


class _OneHot:
    """Reads the labels of rows that have one column of 0 and 1 for each class."""

    def __init__(self, path: Path, columns: Columns, indices: Sequence[int]) -> None:
        self._path = path
        self._classes = [(i, columns.names[i]) for i in indices]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(name for _, name in self._classes)

    def __call__(self, line: int, fields: Sequence[str], unit: str) -> str:
        """Return one letter for each class; see `Content.labels`."""
        letters = []
        for i, name in self._classes:
            value = fields[i].strip().lower() if i < len(fields) else ""
            letter = _LETTERS.get(value)
            if letter is None:
                raise DataError(self._no_labels(line, unit, name, fields[i]))
            letters.append(letter)
        return "".join(letters)

    def _names(self) -> str:
        names = ", ".join(quoted(name, 40) for _, name in self._classes[:5])
        return names + ", ..." * (len(self._classes) > 5)

    def _no_labels(self, line: int, unit: str, name: str, value: str) -> str:
        return (
            f"{self._path}: has no column with the labels, nor one with 0 or 1 for each class: "
            f"{unit} {line:,} has {quoted(value, 40)} in {quoted(name, 40)}. Of the columns "
            f"{self._names()}, name the one with the labels: --columns label=COLUMN, or those with "
            "0 and 1: --columns 'label=COLUMN|COLUMN'"
        )
