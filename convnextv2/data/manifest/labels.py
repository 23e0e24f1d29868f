"""Labels and words of splits, from what people and programs write for them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.class_names import class_name_of
from convnextv2.data.manifest.content import FALSE, TRUE, rows_with
from convnextv2.data.manifest.packed import Words, quoted
from convnextv2.data.split_names import Kind
from convnextv2.errors import DataError

MISSING = frozenset(("", "nan", "NaN", "#N/A", "#REF!", "#VALUE!", "#NAME?"))
"""Texts that stand for nothing."""


def clean_labels(
    path: Path, labels: Words, lines: NDArray[np.int32], unit: str
) -> tuple[Words, tuple[str, ...]]:
    """Make labels of what stands in the column.

    Args:
        path: The table, for messages.
        labels: The texts of the rows that are used.
        lines: int32 (N,), the numbers of their lines.
        unit: What these numbers count.

    Returns:
        The labels in NFC, without blanks at their ends, and what was adapted.

    Raises:
        DataError: Rows have no label, or one with a line break.
    """
    texts = {text: class_name_of(text) for text in labels.counts()}
    _check(
        path,
        labels,
        lines,
        unit,
        lambda text: class_name_of(text) in MISSING,
        "{have} no label. Every image needs one class here.",
    )
    broken = "{have} a label with a line break or another control character. Is a quote not closed?"
    _check(path, labels, lines, unit, _is_broken, broken)
    notes = []
    if merged := _same(texts):
        first, second = merged[0]
        pair = f"{first!r} and {second!r}"
        others = f" and {len(merged) - 1:,} more" if len(merged) > 1 else ""
        why = "they differ only in blanks at their ends or in their Unicode form"
        notes.append(f"{path}: the labels {pair}{others} are one class, since {why}.")
    whole = whole_numbers(texts)
    if whole != texts:
        texts = whole
        notes.append(f'{path}: the labels are whole numbers; ".0" at their ends is left out.')
    if differing := _same({label: label.casefold() for label in texts.values()}):
        first, second = differing[0]
        pair = f"{quoted(first)} and {quoted(second)}"
        others = f" and {len(differing) - 1:,} more" if len(differing) > 1 else ""
        notes.append(f"{path}: the labels {pair}{others} differ only in letter case, but are two.")
    return renamed(labels, texts), tuple(notes)


def clean_splits(splits: Words, flag: Kind | None) -> Words | None:
    """Make words of what stands in the column of splits.

    Args:
        splits: The texts of all rows.
        flag: The split that a true value stands for, or None if the texts are words.

    Returns:
        The words without blanks at their ends; None for a column of flags that has other values.
    """
    texts = {text: class_name_of(text) for text in splits.words}
    if flag is None:
        return renamed(splits, whole_numbers(texts))
    true, false = flag_words(flag)
    for text, word in texts.items():
        if word.lower() not in TRUE | FALSE | {""}:  # people mark what is true, and leave the rest
            return None
        texts[text] = true if word.lower() in TRUE else false
    return renamed(splits, texts)


def flag_words(flag: Kind) -> tuple[str, str]:
    """Name the splits of a column such as "is_valid".

    Args:
        flag: The split that a true value stands for.

    Returns:
        The words for true and for false.
    """
    words: dict[Kind, str] = {"train": "train", "validation": "val", "test": "test"}
    return words[flag], words["validation" if flag == "train" else "train"]


def whole_numbers(texts: Mapping[str, str]) -> dict[str, str]:
    """Undo what pandas does to a column of whole numbers in which one is missing: "3.0" for 3.

    Args:
        texts: Any text -> what is made of it.

    Returns:
        The same, without ".0" where all are whole numbers.
    """
    if not all(re.fullmatch(r"-?\d+(\.0+)?", text) for text in texts.values() if text):
        return dict(texts)
    return {key: text.partition(".")[0] for key, text in texts.items()}


def renamed(words: Words, texts: Mapping[str, str]) -> Words:
    """Replace texts, where several may become the same.

    Args:
        words: The column.
        texts: Text -> new text, for each that has rows.

    Returns:
        The new column.
    """
    new = list(dict.fromkeys(texts.values()))
    index = {text: i for i, text in enumerate(new)}
    table = np.array([index[texts[text]] if text in texts else -1 for text in words.words])
    return Words(new, table.astype(np.int32)[words.codes])


def _is_broken(text: str) -> bool:
    return any(unicodedata.category(letter) in ("Cc", "Cs") for letter in class_name_of(text))


def _check(
    path: Path,
    labels: Words,
    lines: NDArray[np.int32],
    unit: str,
    is_wrong: Callable[[str], bool],
    what: str,
) -> None:
    """Raise DataError where texts that have rows are wrong."""
    wrong = [i for i, text in enumerate(labels.words) if is_wrong(text)]
    rows = np.flatnonzero(np.isin(labels.codes, wrong)) if wrong else ()
    if len(rows):
        raise DataError(f"{path}: {rows_with(what, lines[rows].tolist(), unit)}")


def _same(texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs of different keys that have one value."""
    first: dict[str, str] = {}
    return [
        (first[value], key) for key, value in texts.items() if first.setdefault(value, key) != key
    ]
