"""Writes predictions to a file, for spreadsheets and programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convnextv2.errors import RecipeError
from convnextv2.files import replacing
from convnextv2.places import check_folder_place, check_place, exists_already, start_of

SUFFIXES = (".csv", ".json", ".jsonl")
_KEYS = ('"predictions": ', '"scores": ', '"threshold": ')
"""A JSON object with predictions has one of these keys near its start, beside the image."""
_UNKNOWN = ("possible", "foreign", "foreignness")


def check_prediction_file(path: Path) -> None:
    """Check before any work is done that predictions can be written to a file of this name.

    Raises:
        RecipeError: The ending is unknown, there is a folder or another file of this name, or
            nothing can be written there.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise RecipeError(f"out = {path}: expected a file that ends in {', '.join(SUFFIXES)}.")
    if path.is_dir():
        raise RecipeError(f"out = {path}: is a folder. Give a file such as {path}/shoes.csv.")
    _check_replaced(path)
    check_place(path)


def check_folder(path: Path, kind: str) -> None:
    """Check that the predictions of a segmentor or a detector can go to a folder of this name.

    Raises:
        RecipeError: There is a file of this name, the name is that of a file of predictions, or
            nothing can be written there.
    """
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        what = "a segmentor" if kind == "segmentation" else "a detector"
        raise RecipeError(
            f"out = {path}: the predictions of {what} are pictures and data in a folder. Give the "
            f"name of a folder, such as {path.with_suffix('')}."
        )
    check_folder_place(path)


def _check_replaced(path: Path) -> None:
    """Raise RecipeError if a file exists that holds something other than predictions.

    Tables of labels often have a column `image` too, and losing one is worse than an error.
    """
    if not (head := start_of(path).decode(errors="replace")):
        return
    if path.suffix.lower() == ".csv":
        line, is_whole, _ = head.partition("\n")
        is_ours = line.startswith("image,") and (line.rstrip().endswith(",error") or not is_whole)
    else:
        is_empty = head.strip() == "[]"
        is_ours = is_empty or ('"image": ' in head and any(key in head for key in _KEYS))
    if not is_ours:
        raise RecipeError(f"out = {path}: {exists_already('a file of predictions')}")


def write_predictions(
    path: Path, results: Sequence[Mapping[str, Any]], failures: Mapping[str, str]
) -> None:
    """Write predictions in one atomic step.

    A CSV file has one row for each image: image, class_1, prob_1, class_2, prob_2 and so on, and
    error. If the model was fitted with a coverage, there are also possible, the names of the
    classes separated by |, foreign and foreignness. If an image may have any number of labels, the
    columns are image, the labels separated by |, the probability of each class under its name, and
    error. JSON holds the results as `predict` returns them; an image that failed has no predictions
    and the key "error". Images that failed come last.

    Args:
        path: The file; its ending is one of `SUFFIXES`. Missing folders are made.
        results: What `predict` returns for each image.
        failures: Image -> why there are no predictions.
    """
    has_labels = any("labels" in result for result in results)
    nothing: dict[str, Any] = {"labels": []} if has_labels else {"predictions": []}
    rows: list[dict[str, Any]] = [
        *map(dict, results),
        *({"image": name, **nothing, "error": why} for name, why in failures.items()),
    ]
    # File names that are not UTF-8 are written as the bytes that they are. JSON escapes them.
    with (
        replacing(path, makes_folder=True) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        if path.suffix.lower() == ".csv":
            csv.writer(file).writerows(_table_of_labels(rows) if has_labels else _table(rows))
        elif path.suffix.lower() == ".json":
            json.dump(rows, file, indent=2)
            file.write("\n")
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Return the rows of a CSV file with their head. Images with fewer classes have empty cells."""
    most = max((len(row["predictions"]) for row in rows), default=0)
    head = ["image", *(f"{what}_{i + 1}" for i in range(most) for what in ("class", "prob"))]
    more = _UNKNOWN if any("possible" in row for row in rows) else ()
    table: list[list[Any]] = [[*head, *more, "error"]]
    for row in rows:
        cells = [value for one in row["predictions"] for value in (one["class"], one["prob"])]
        cells += [""] * (2 * most - len(cells))
        if more:
            cells.append("|".join(row.get("possible", ())))
            cells += [row.get(name, "") for name in _UNKNOWN[1:]]
        table.append([row["image"], *cells, row.get("error", "")])
    return table


def _table_of_labels(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Return the rows of a CSV file with their head, for images with any number of labels."""
    classes = list(next(row["scores"] for row in rows if "scores" in row))
    table: list[list[Any]] = [["image", "labels", *classes, "error"]]
    for row in rows:
        names = "|".join(label["name"] for label in row.get("labels", ()))
        scores = [row["scores"][name] if "scores" in row else "" for name in classes]
        table.append([row["image"], names, *scores, row.get("error", "")])
    return table
