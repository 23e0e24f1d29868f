"""Cleans labels and the words of splits: blanks, Unicode forms, flags, and pandas' numbers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.class_names import class_name_of
from convnextv2.data.manifest.content import FALSE, TRUE, rows_with
from convnextv2.data.manifest.packed import Words, quoted
from convnextv2.data.manifest.sheet import LIST
from convnextv2.data.split_names import Kind
from convnextv2.errors import DataError

MISSING = frozenset(("", "nan", "NaN", "#N/A", "#REF!", "#VALUE!", "#NAME?"))
"""Texts that mean a missing value."""


def clean_labels(
    path: Path, labels: Words, lines: NDArray[np.int32], unit: str, *, are_names: bool = False
) -> tuple[Words, tuple[str, ...]]:
    """Clean the labels of a column.

    Args:
        path: The table, for error messages.
        labels: The texts of the used rows.
        lines: int32 (N,), the numbers of their lines.
        unit: The unit of these numbers.
        are_names: Whether the table says that the labels are texts, so that "1.0" stays "1.0".

    Returns:
        The labels in NFC, without blanks at their ends; and notes about changes.

    Raises:
        DataError: A row has no label, or a label with a control character such as a line break.
    """
    texts = {text: class_name_of(text) for text in labels.counts()}
    _check_texts(
        path,
        labels,
        lines,
        unit,
        lambda text: class_name_of(text) in MISSING,
        "{have} no label. Every image needs one class here.",
    )
    check_control_characters(path, labels, lines, unit)
    notes = []
    if merged := _same(texts):
        first, second = merged[0]
        pair = f"{first!r} and {second!r}"
        others = f" and {len(merged) - 1:,} more" if len(merged) > 1 else ""
        why = "they differ only in blanks at their ends or in their Unicode form"
        notes.append(f"{path}: the labels {pair}{others} are one class, since {why}.")
    column = {text: class_name_of(text) for text in labels.words}  # also of rows that are not used
    whole = column if are_names else whole_numbers(column)
    if any(whole[text] != name for text, name in texts.items()):
        texts = {text: whole[text] for text in texts}
        notes.append(f'{path}: the labels are whole numbers; ".0" at their ends is left out.')
    return renamed(labels, texts), (*notes, *likeness_notes(path, texts.values()))


def likeness_notes(path: Path, labels: Iterable[str]) -> tuple[str, ...]:
    """Return notes on labels that differ only in letter case, or in how a number is written."""
    distinct = list(dict.fromkeys(labels))
    cases = _same({label: label.casefold() for label in distinct})
    numbers = _same({label: Decimal(label) for label in distinct if _NUMBER.fullmatch(label)})
    notes = []
    for pairs, how in (
        (cases, "differ only in letter case, but are two"),
        (numbers, "are written differently, so they are two, although they are one number"),
    ):
        if pairs:
            first, second = pairs[0]
            others = f" and {len(pairs) - 1:,} more" if len(pairs) > 1 else ""
            notes.append(f"{path}: the labels {quoted(first)} and {quoted(second)}{others} {how}.")
    return tuple(notes)


_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{0,300})?([eE][+-]?[0-9]{1,4})?")


def check_class_names(path: Path, classes: Sequence[str]) -> None:
    """Check the names of columns of classes, or of the classes that a table lists.

    Args:
        path: The table, for error messages.
        classes: The names.

    Raises:
        DataError: A name is empty or has a control character, or two names are the same.
    """
    first: dict[str, int] = {}
    for i, name in enumerate(map(class_name_of, classes)):
        if not name or _has_control_character(name):
            raise DataError(
                f"{path}: class {i + 1} is called {quoted(name)}, expected a name in one line and "
                "without control characters. Rename it."
            )
        if first.setdefault(name, i) != i:
            raise DataError(
                f"{path}: class {first[name] + 1} and class {i + 1} are both called "
                f"{quoted(name)}, expected different names. Rename one, or remove it."
            )


def check_control_characters(
    path: Path, labels: Words, lines: NDArray[np.int32], unit: str, *, lists: bool = False
) -> None:
    """Raise DataError if labels contain control characters such as line breaks.

    Args:
        path: The table, for the message.
        labels: The texts of the used rows.
        lines: int32 (N,), the numbers of their lines.
        unit: The unit of these numbers.
        lists: Whether a text may be a list of names; see `LIST`.
    """

    def is_broken(text: str) -> bool:
        names = text.split(LIST) if lists and text.startswith(LIST) else [text]
        return any(_has_control_character(class_name_of(name)) for name in names)

    what = "{have} a label with a line break or another control character. Is a quote not closed?"
    _check_texts(path, labels, lines, unit, is_broken, what)


def clean_splits(splits: Words, flag: Kind | None) -> Words | None:
    """Clean the words of a column of splits.

    Args:
        splits: The texts of all rows.
        flag: The split that a true value means; None if the texts are words.

    Returns:
        The words without blanks at their ends; None for a column of flags with other values.
    """
    texts = {text: class_name_of(text) for text in splits.words}
    if flag is None:
        return renamed(splits, whole_numbers(texts))
    true, false = flag_words(flag)
    for text, word in texts.items():
        if word.lower() not in TRUE | FALSE | {""}:  # often only true values are written
            return None
        texts[text] = true if word.lower() in TRUE else false
    return renamed(splits, texts)


def flag_words(flag: Kind) -> tuple[str, str]:
    """Return the words for the values of a column of flags such as "is_valid".

    Args:
        flag: The split that a true value means.

    Returns:
        The words for true and for false.
    """
    words: dict[Kind, str] = {"train": "train", "validation": "val", "test": "test"}
    return words[flag], words["validation" if flag == "train" else "train"]


def whole_numbers(texts: Mapping[str, str]) -> dict[str, str]:
    """Remove ".0" from the values of a mapping, if pandas has added it to all of them.

    pandas writes "3.0" for 3 if a value of the column is missing, and then for every number of the
    column. In a column with both "1" and "1.0", these are names, and stay distinct. So do "01.0"
    and "1.00", which pandas does not write.

    Args:
        texts: The text in the table -> its cleaned form.
    """
    found = [text for text in texts.values() if text not in MISSING]
    if not all(re.fullmatch(r"-?(0|[1-9][0-9]*)\.0", text) for text in found):
        return dict(texts)
    return {key: text.removesuffix(".0") for key, text in texts.items()}


def renamed(words: Words, texts: Mapping[str, str]) -> Words:
    """Replace the texts of a column. Several texts may become the same.

    Args:
        words: The column.
        texts: Text -> new text, for each text with rows.

    Returns:
        The new column.
    """
    new = list(dict.fromkeys(texts.values()))
    index = {text: i for i, text in enumerate(new)}
    table = np.array([index[texts[text]] if text in texts else -1 for text in words.words])
    return Words(new, table.astype(np.int32)[words.codes])


def _check_texts(
    path: Path,
    labels: Words,
    lines: NDArray[np.int32],
    unit: str,
    is_wrong: Callable[[str], bool],
    what: str,
) -> None:
    """Raise DataError if the texts of some rows are wrong."""
    wrong = [i for i, text in enumerate(labels.words) if is_wrong(text)]
    rows = np.flatnonzero(np.isin(labels.codes, wrong)) if wrong else ()
    if len(rows):
        raise DataError(f"{path}: {rows_with(what, lines[rows].tolist(), unit)}")


def _has_control_character(text: str) -> bool:
    return any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)


def _same(texts: Mapping[str, Hashable]) -> list[tuple[str, str]]:
    """Return pairs of different keys that have the same value."""
    first: dict[Hashable, str] = {}
    return [
        (first[value], key) for key, value in texts.items() if first.setdefault(value, key) != key
    ]
