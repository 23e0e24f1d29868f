"""Match the rows of a classifier with the classes of the data.

Weights from other tools often have no class names. Their rows then have the order in which that
tool sorted the folders. This is either text order (torchvision's ImageFolder, and thus the official
code) or natural order, with digits as numbers (timm's readers). A wrong order would give the
accuracy of chance, so the user has to state the order if it cannot be determined.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnextv2.data import imagenet
from convnextv2.data.class_names import class_name_of
from convnextv2.errors import DataError
from convnextv2.weights.description import Description
from convnextv2.weights.names import library_of
from convnextv2.weights.opened import OURS

ORDERS = ("auto", "text", "natural", "number")
"""The words that `class_order` accepts instead of a file."""

_SHOWN = 3


@dataclass(frozen=True)
class RowMatch:
    """The rows of a head for the classes of the data.

    Attributes:
        rows: The row of each class; None for a class without a row.
        how: The rule by which the rows were matched, as the end of a sentence.
    """

    rows: tuple[int | None, ...]
    how: str

    @property
    def found(self) -> int:
        """The number of classes that have a row."""
        return sum(row is not None for row in self.rows)


def match_rows(
    classes: Sequence[str], names: Sequence[str], rows: int, *, format: str, order: str = "auto"
) -> RowMatch | str:
    """Match the classes of the data with the rows of a head.

    Args:
        classes: The names of the data's classes, each once.
        names: The class names in the weights; empty if they have none.
        rows: The number of rows in the head.
        format: The format of the weights, as in `Origin.format`. It decides the order of rows.
        order: The user's choice: one of `ORDERS`, or a file with the names of the rows.

    Returns:
        The rows, at least one of which is matched, or the reason why they cannot be matched.

    Raises:
        DataError: `order` is a file that cannot be used.
    """
    if order not in ORDERS:
        names = read_class_names(Path(order))
        if len(names) != rows:
            raise DataError(
                f"class_order = {order}: names {len(names)} classes, the weights have {rows}."
            )
        return _by_name(classes, names) or f"none of its classes is in {order}"
    if order != "auto":
        return _in_order(classes, rows, order)
    if len(names) == rows and list(names) != [str(row) for row in range(rows)]:
        return _by_given_name(classes, names, rows, format)
    if _are_numbers(classes, rows):
        return _in_order(classes, rows, "number")
    if rows == imagenet.CLASSES and (known := imagenet.imagenet_rows(classes)):
        return RowMatch(tuple(known), "as ImageNet's classes")
    if len(classes) != rows:
        return f"it has {rows} rows without names"
    return _in_order(classes, rows, "natural" if library_of(format) == "timm" else "text")


def order_of(description: Description) -> str:
    """Return the format whose conventions decide the order of rows.

    It is the format from which the weights were first read, or ours. A run of this package has
    class names, whatever weights it started from.
    """
    return str(description.provenance.get("format", OURS))


def pairs(classes: Sequence[str], match: RowMatch) -> str:
    """Return the first few classes with their rows, such as "cat = 0, dog = 1, ..."."""
    rows = ["new" if row is None else row for row in match.rows]
    shown = [f"{name} = {row}" for name, row in zip(classes, rows, strict=True)][:_SHOWN]
    return ", ".join(shown) + ", ..." * (len(classes) > _SHOWN)


def read_class_names(path: Path) -> list[str]:
    """Read the class names of the rows, in order.

    Args:
        path: A text file with one name per line, a JSON list of names, or a JSON object that
            maps row numbers to names.

    Raises:
        DataError: The file cannot be read, or has another format.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"class_order = {path}: cannot be read ({error}). Expected {', '.join(ORDERS)}, or a "
            "file with one class name per line."
        ) from None
    if text.lstrip()[:1] not in ("[", "{"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        found = json.loads(text)
        if isinstance(found, dict):
            found = [found[str(row)] for row in range(len(found))]
    except (ValueError, KeyError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise DataError(f"class_order = {path}: expected a JSON list of class names, row by row.")
    return found


def natural_key(name: str) -> list[str | int]:
    """Return a sort key that reads digits as numbers and ignores case, as timm's readers do."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _by_given_name(
    classes: Sequence[str], names: Sequence[str], rows: int, format: str
) -> RowMatch | str:
    """Match rows by class names. Folders that are numbers may still stand for rows."""
    found = _by_name(classes, names)
    if found and found.found == len(classes):
        return found
    if format != OURS and _are_numbers(classes, rows):
        # With rows named 1, 2, 3 and folders named 0, 1, 2, names and numbers contradict.
        either = "the data's classes match some of its names, and the numbers of its rows as well"
        return either if found else _in_order(classes, rows, "number")
    if rows == imagenet.CLASSES and _mostly_imagenet(names):
        known = imagenet.imagenet_rows(classes)
        if known:
            return RowMatch(tuple(known), "as ImageNet's classes")
    return found or "it names its classes differently"


def _by_name(classes: Sequence[str], names: Sequence[str]) -> RowMatch | None:
    rows: dict[str, int | None] = {}
    for row, name in enumerate(names):
        # If two rows have the same name, the name is ambiguous.
        rows[class_name_of(name)] = None if class_name_of(name) in rows else row
    found = tuple(rows.get(class_name_of(name)) for name in classes)
    return RowMatch(found, "by name") if any(row is not None for row in found) else None


def _in_order(classes: Sequence[str], rows: int, order: str) -> RowMatch | str:
    if order == "number":
        numbers = [int(name) if re.fullmatch(r"[0-9]{1,9}", name) else rows for name in classes]
        if max(numbers) >= rows or len(set(numbers)) < len(numbers):
            return f"not all of the data's classes are numbers from 0 to {rows - 1}"
        return RowMatch(tuple(numbers), "the folders' names are row numbers")
    if len(classes) != rows:
        return f"it has {rows} rows, the data have {len(classes)} classes"
    key: Callable[[str], Any] = natural_key if order == "natural" else str
    ordered = sorted(sorted(classes), key=key)  # names with equal keys are sorted as text
    ranked = {name: row for row, name in enumerate(ordered)}
    how = "sorted naturally, as timm does" if order == "natural" else "sorted as text"
    return RowMatch(tuple(ranked[name] for name in classes), how)


def _are_numbers(names: Sequence[str], rows: int) -> bool:
    """Return whether the names are the numbers of the rows, with or without leading zeros."""
    if len(names) != rows or not all(re.fullmatch(r"[0-9]{1,9}", name) for name in names):
        return False
    return set(map(int, names)) == set(range(rows))


def _mostly_imagenet(names: Sequence[str]) -> bool:
    """Return whether the names of 1,000 rows are ImageNet's classes in ImageNet's order.

    Transformers lists all synonyms ("tench, Tinca tinca"), and some tools rename a few classes.
    """
    firsts = [class_name_of(re.split(r"[,(]", name)[0]) for name in names]
    same = sum(a == class_name_of(b) for a, b in zip(firsts, imagenet.categories(), strict=True))
    ids = sum(a == b for a, b in zip(names, imagenet.synsets(), strict=True))
    return max(same, ids) > imagenet.CLASSES // 2
