"""Reads several labels for each image: names in one field, or one column for each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.class_names import class_name_of
from convnextv2.data.manifest.content import rows_with
from convnextv2.data.manifest.labels import (
    MISSING,
    check_control_characters,
    likeness_notes,
)
from convnextv2.data.manifest.packed import Words, quoted
from convnextv2.data.manifest.sheet import LIST
from convnextv2.errors import DataError

LabelKind = Literal["auto", "single", "multi"]
"""The kind of labels: one for each image ("single"), any number ("multi"), or detected ("auto")."""

_SURE = "|;"
"""Separators that are rare in names. Others need more evidence, or the user's choice."""

_WORDS = {"|": "vertical bars", ";": "semicolons", ",": "commas", " ": "blanks", LIST: "a list"}


@dataclass(frozen=True, eq=False)
class LabelSets:
    """The labels of images that may have any number of them.

    Attributes:
        classes: The name of each class, K in all.
        values: int8 (N, K): 1 for a label that the image has, 0 for one that it does not have, and
            -1 for an unknown one.
        are_columns: Whether the classes are columns of the table, or are listed in it. Otherwise
            they are the names that occur.
    """

    classes: tuple[str, ...]
    values: NDArray[np.int8]
    are_columns: bool

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> LabelSets:
        """Return the labels of the images at these indices, in this order."""
        return replace(self, values=self.values[np.asarray(rows, np.int64)])

    def joined(self, pairs: Iterable[tuple[int, int]]) -> LabelSets:
        """Merge the labels of rows with the same image.

        Args:
            pairs: Pairs of the row that is kept, and a row whose labels are added to it.

        Returns:
            The labels. 1 in any row wins over 0, and 0 over -1.
        """
        found = np.array(list(pairs), np.int64).reshape(-1, 2)
        if not len(found):
            return self
        values = self.values.copy()
        np.maximum.at(values, found[:, 0], self.values[found[:, 1]])
        return replace(self, values=values)

    def occurring(self) -> list[str]:
        """Return the classes that at least one image has, in the order of the columns."""
        occurs = (self.values == 1).any(axis=0)
        return [name for name, does in zip(self.classes, occurs, strict=True) if does]

    def of_classes(self, classes: Sequence[str]) -> NDArray[np.int8]:
        """Return the labels for the classes of a model.

        Args:
            classes: The classes of the model, in order.

        Returns:
            int8 (N, len(classes)). For a class that is not in the table, the value is -1 if the
            table has one column for each class, and 0 if it lists the names of each image.
        """
        column = {class_name_of(name): i for i, name in enumerate(self.classes)}
        at = [column.get(class_name_of(name), -1) for name in classes]
        other = np.full((len(self), 1), -1 if self.are_columns else 0, np.int8)
        if not self.are_columns and len(self.classes):
            other[(self.values < 0).all(axis=1)] = -1  # the labels of the image are unknown
        return np.concatenate([self.values, other], axis=1)[:, at]


def reads_several(labels: Words, columns: Sequence[str], kind: LabelKind, separator: str) -> bool:
    """Decide whether the images of a table may have several labels.

    Args:
        labels: The texts of the used rows; see `Content.labels`.
        columns: The names of the columns of the classes; empty if a single column has the labels.
        kind: The user's choice.
        separator: The separator that the user named; "" for none.
    """
    if kind != "auto" or separator:
        return kind == "multi" or bool(separator and kind == "auto")
    if columns:
        return any(text.count("1") > 1 or "-" in text for text in labels.counts())
    texts = list(labels.counts())
    return any(text.startswith(LIST) for text in texts) or bool(_found_separator(texts))


def read_sets(
    path: Path,
    labels: Words,
    lines: NDArray[np.int32],
    unit: str,
    *,
    columns: Sequence[str],
    known: Sequence[str],
    separator: str,
) -> tuple[LabelSets, tuple[str, ...]]:
    """Read the labels of images that may have several.

    Args:
        path: The table, for error messages.
        labels: The texts of the used rows; see `Content.labels`.
        lines: int32 (N,), the numbers of their lines.
        unit: The unit of these numbers.
        columns: The names of the columns of the classes; empty if a single column has the labels.
        known: The names of all classes in order, if the table lists them; else empty.
        separator: The separator that the user named; "" to detect it.

    Returns:
        The labels of each row, and notes about guesses.

    Raises:
        DataError: The table does not state which labels images do not have, or names are damaged.
    """
    if columns:
        return _from_columns(path, labels, columns)
    check_control_characters(path, labels, lines, unit, lists=True)
    texts = labels.words
    between = separator or _separator(texts)
    sets = [_names(text, between) for text in texts]
    used = labels.counts()
    found: set[str] = set()
    for text, names in zip(texts, sets, strict=True):
        found.update(names if text in used else ())
    classes = [class_name_of(name) for name in known] or sorted(found)
    if unlisted := sorted(found - set(classes)):
        raise DataError(f"{path}: the labels {_list(unlisted)} are not among its classes.")
    if not classes:
        raise DataError(f"{path}: no image has a label. Give at least one image of each class.")
    index = {name: i for i, name in enumerate(classes)}
    patterns = np.zeros((len(texts), len(classes)), np.int8)
    for row, (text, names) in enumerate(zip(texts, sets, strict=True)):
        if between == LIST and not text:
            patterns[row] = -1
        patterns[row, [index[name] for name in names if name in index]] = 1
    values = patterns[labels.codes]
    note = (
        f"{path}: an image may have several labels, which are read {_separation(between)}: "
        f"{len(classes):,} classes ({_list(classes)}){_unknown_part(values)}."
    )
    return LabelSets(tuple(classes), values, bool(known)), (
        note,
        *likeness_notes(path, classes),
        *_mixed(path, classes, between),
    )


def _separation(separator: str) -> str:
    """Describe how several labels are separated, as the end of a sentence."""
    if separator == LIST:
        return "as a list"
    return (
        f"separated by {_WORDS.get(separator, quoted(separator))}"
        if separator
        else "one in each row"
    )


def single_names(
    path: Path, labels: Words, lines: NDArray[np.int32], unit: str, columns: Sequence[str]
) -> Words:
    """Read the one class of each row of a table with one column for each class.

    Args:
        path: The table, for error messages.
        labels: The texts of the used rows; see `Content.labels`.
        lines: int32 (N,), the numbers of their lines.
        unit: The unit of these numbers.
        columns: The names of the columns.

    Returns:
        The class of each row.

    Raises:
        DataError: A row has several classes, or none.
    """
    several = [i for i, text in enumerate(labels.words) if text.count("1") > 1 or "-" in text]
    if len(rows := np.flatnonzero(np.isin(labels.codes, several))):
        what = (
            "{have} several classes, or -1. An image has one class here. Set labels to multi if it "
            "may have any number"
        )
        raise DataError(f"{path}: {rows_with(what + '.', lines[rows].tolist(), unit)}")
    lacking = [i for i, text in enumerate(labels.words) if "1" not in text]
    if len(rows := np.flatnonzero(np.isin(labels.codes, lacking))):
        what = "{have} no label. Set labels to multi if an image may have none."
        raise DataError(f"{path}: {rows_with(what, lines[rows].tolist(), unit)}")
    names = [columns[text.index("1")] if "1" in text else "" for text in labels.words]
    distinct = list(dict.fromkeys(names))
    code = {name: i for i, name in enumerate(distinct)}
    table = np.array([code[name] for name in names], np.int32)
    return Words(distinct, table[labels.codes])


def separator_hint(path: Path, labels: Words) -> tuple[str, ...]:
    """Return a note if labels that are read as one name each might be lists of names."""
    texts = list(labels.counts())
    for separator in (*_SURE, ","):
        if _recurring(texts, separator)[1]:
            example = next(text for text in texts if separator in text)
            return (
                f"{path}: a label such as {quoted(example, 40)} is read as one name. If it lists "
                f"several, use: --labels multi --label_separator '{separator}'",
            )
    return ()


def _from_columns(
    path: Path, labels: Words, columns: Sequence[str]
) -> tuple[LabelSets, tuple[str, ...]]:
    """Read the labels of rows with one column of 0 and 1 for each class."""
    code = {"1": 1, "0": 0, "?": -1, "-": -1}
    patterns = np.array([[code[letter] for letter in text] for text in labels.words], np.int8)
    values = patterns[labels.codes]
    if (values < 0).any() and not (values == 0).any():
        raise DataError(
            f"{path}: the columns of the {len(columns)} classes hold no 0, so it is unknown which "
            "labels an image does not have. Write 0 there, and leave a field empty where nothing "
            "is known."
        )
    note = (
        f"{path}: an image may have several labels: has one column for each of {len(columns)} "
        f"classes ({_list(columns)})"
    )
    classes = tuple(class_name_of(name) for name in columns)
    return LabelSets(classes, values, True), (note + _unknown_part(values) + ".",)


def _mixed(path: Path, classes: Sequence[str], between: str) -> tuple[str, ...]:
    """Return a note if a name looks like a list of other names with another separator."""
    known = set(classes)
    for separator in (*_SURE, ","):
        if separator == between:
            continue
        for name in classes:
            parts = _names(name, separator)
            if len(parts) > 1 and known.issuperset(parts):
                return (
                    f"{path}: the label {quoted(name, 40)} is read as one name, though its parts "
                    "are labels too. Use one separator in the whole table.",
                )
    return ()


def _unknown_part(values: NDArray[np.int8]) -> str:
    unknown = int((values < 0).sum())
    if not unknown:
        return ""
    return (
        f"; {unknown:,} of {values.size:,} labels are unknown (empty or -1), and count neither in "
        "the loss nor in the figures"
    )


def _names(text: str, separator: str) -> list[str]:
    """Split a text into distinct names; return none for a missing value."""
    if class_name_of(text) in MISSING:
        return []
    if text.startswith(LIST):
        parts = text.split(LIST)
    else:
        parts = text.split(separator) if separator not in ("", LIST) else [text]
    return list(dict.fromkeys(name for part in parts if (name := class_name_of(part))))


def _separator(texts: Sequence[str]) -> str:
    """Return the separator of names: one that is certain, or else one that occurs at all."""
    if any(text.startswith(LIST) for text in texts):
        return LIST
    found = _found_separator(texts)
    return found or next((each for each in (*_SURE, ",") if any(each in t for t in texts)), "")


def _found_separator(texts: Sequence[str]) -> str:
    """Return the separator that splits texts into names which recur in other texts; else ""."""
    for separator in _SURE:
        if _recurring(texts, separator)[1]:
            return separator
    names, again = _recurring(texts, ",")
    return "," if 2 * again > names and names < len(texts) else ""


def _recurring(texts: Sequence[str], separator: str) -> tuple[int, int]:
    """Count the distinct names after splitting by a separator, and those in several texts.

    Both counts are 0 if no text has several names.
    """
    if not any(len(_names(text, separator)) > 1 for text in texts):
        return 0, 0
    counts = Counter(name for text in texts for name in _names(text, separator))
    return len(counts), sum(count > 1 for count in counts.values())


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(quoted(name, 40) for name in names[:5])
    return shown + ", ..." * (len(names) > 5)
