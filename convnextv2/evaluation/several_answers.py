"""Accuracy with several right classes per image, as in "Are we done with ImageNet?" (ReaL).

Photographs often show objects of several classes, all of which are right answers (Beyer et al.
2020, arXiv 2006.07159). The figure is the share of images whose most probable class is one of the
right ones. Images without a right class are left out, as in ReaL.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.evaluation.evaluate import Predictions

Answers = Mapping[int, frozenset[int]]
"""The right classes of each image, by the index of the image in the source."""


class SeveralAnswers(NamedTuple):
    """The share of images whose most probable class is one of the right ones.

    Attributes:
        top1: The share of images.
        images: The number of images with a right class.
    """

    top1: float
    images: int


def read_answers(path: Path, names: Sequence[str], class_names: Sequence[str]) -> Answers:
    """Read the right classes of images.

    Args:
        path: JSON, an object of lists by the path or the name of the image file, or a list of lists
            in the order of the names of the files, as in ReaL's `real.json`; or a CSV file with the
            columns image and classes, with | between classes. Classes are names or numbers.
        names: The names of the images to measure.
        class_names: The classes of the model.

    Raises:
        DataError: The file cannot be read, or names none of the images, or an unknown class.
    """
    content = read_file_of_answers(path)
    listed = _by_order(content, names, path) if isinstance(content, list) else content
    indices = _indices(names)
    rows = {name: row for row, name in enumerate(class_names)}
    found = {
        indices[name]: frozenset(_row(one, rows, path) for one in classes)
        for name, classes in listed.items()
        if name in indices
    }
    if not found:
        raise DataError(
            f"{path}: names none of the {len(names)} images, such as {names[0]}. Expected paths or "
            "names of these files."
        )
    return found


def read_file_of_answers(path: Path) -> dict[str, list[Any]] | list[list[Any]]:
    """Read a file of right classes, without matching it with images.

    Args:
        path: See `read_answers`.

    Returns:
        The classes of each image by its name, or lists in the order of the images.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = _rows_of_csv(text) if path.suffix.lower() == ".csv" else json.loads(text)
        if isinstance(content, list):
            return [_list(classes) for classes in content]
        return {str(name): _list(classes) for name, classes in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(
            f"{path}: cannot be read as right classes of images ({why}). Expected JSON, or CSV "
            "with the columns image and classes."
        ) from error


def measure_answers(predictions: Predictions, answers: Answers, place: Place) -> SeveralAnswers:
    """Count hits over all ranks.

    Args:
        predictions: The predictions of this rank.
        answers: The right classes.
        place: This rank.

    Raises:
        DataError: None of the images has a right class.
    """
    best = zip(predictions.indices.tolist(), predictions.classes[:, 0].tolist(), strict=True)
    judged = [one in answers[index] for index, one in best if answers.get(index)]
    hits, images = place.sum_numbers(sum(judged), len(judged))
    if not images:
        raise DataError("No image has a right class in the file of answers.")
    return SeveralAnswers(hits / images, int(images))


def _rows_of_csv(text: str) -> dict[str, list[str]]:
    for separator in ",;\t":  # Excel writes semicolons in some countries
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        if {"image", "classes"} <= set(rows.fieldnames or ()):
            return {row["image"]: [one for one in row["classes"].split("|") if one] for row in rows}
    raise ValueError("no columns image and classes")


def _by_order(content: list[Any], names: Sequence[str], path: Path) -> dict[str, Any]:
    if len(content) != len(names):
        raise DataError(
            f"{path}: has {len(content):,} lists of classes for {len(names):,} images. Give as "
            "many lists as images, or name the images."
        )
    ordered = sorted(names, key=lambda name: (Path(name).name, name))
    return dict(zip(ordered, content, strict=True))


def _list(classes: object) -> list[Any]:
    if not isinstance(classes, list):
        raise ValueError(f"{classes!r} is not a list of classes")
    return classes


def _indices(names: Sequence[str]) -> dict[str, int]:
    """Return the indices of images by path, and by file name if that is unique."""
    times = Counter(Path(name).name for name in names)
    short = {Path(name).name: i for i, name in enumerate(names) if times[Path(name).name] == 1}
    return short | {name: i for i, name in enumerate(names)}


def _row(one: object, rows: Mapping[str, int], path: Path) -> int:
    """Return the row of a class that is given by its name or its number."""
    if isinstance(one, str) and one in rows:
        return rows[one]
    number = int(one) if isinstance(one, int) or (isinstance(one, str) and one.isdecimal()) else -1
    if 0 <= number < len(rows):
        return number
    near = get_close_matches(str(one), rows, 1)
    hint = (
        f"Did you mean {near[0]!r}?" if near else f"Expected a name, or a number below {len(rows)}."
    )
    raise DataError(f"{path}: {one!r} is not a class of the model. {hint}")
