"""Images listed in a CSV or JSONL file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from convnextv2.data.source import Source
from convnextv2.errors import DataError


def manifest(path: Path, *, split: str | None = None, class_names: Sequence[str] | None = None, labelled: bool = True) -> Source:
    """Images listed in a CSV file with a header, or in JSONL: `path` (from the manifest's folder on), `label`, and perhaps
    `split`.

    split: only rows of this split, where the manifest has that column. Raises DataError with the line's number."""
    rows = list(_rows(path))
    if split is not None and any("split" in row for _, row in rows):
        rows = [(line, row) for line, row in rows if row.get("split") == split]
    if not rows:
        raise DataError(f"{path}: lists no images" + (f" of the split {split!r}." if split else "."))
    names, labels = [], []
    for line, row in rows:
        if not row.get("path"):
            raise DataError(f"{path}, line {line}: has no path. Expected the columns path and label.")
        if labelled and row.get("label") in (None, ""):
            raise DataError(f"{path}, line {line}: has no label.")
        image = path.parent / str(row["path"])
        if not image.is_file():
            raise DataError(f"{path}, line {line}: {image} does not exist.")
        names.append(str(image))
        labels.append(str(row.get("label", "")))
    if not labelled:
        return Source(names)
    classes = list(class_names) if class_names else sorted(set(labels))
    if unknown := [(line, label) for (line, _), label in zip(rows, labels, strict=True) if label not in classes]:
        raise DataError(f"{path}, line {unknown[0][0]}: class {unknown[0][1]!r} is not among the {len(classes)} trained ones.")
    number = {name: i for i, name in enumerate(classes)}
    return Source(names, np.array([number[label] for label in labels], dtype=np.int64), tuple(classes))


def has_split(path: Path) -> bool:
    """Whether a manifest has a column split."""
    return any("split" in row for _, row in _rows(path))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and content of each row of a manifest."""
    kind: Literal["csv", "jsonl"] | str = path.suffix.lower().lstrip(".")
    if kind not in ("csv", "jsonl"):
        raise DataError(f"{path}: a file, but no manifest. Expected a folder, or a .csv or .jsonl file.")
    with open(path, encoding="utf-8-sig", newline="") as file:
        if kind == "csv":
            reader = csv.DictReader(file)
            yield from ((reader.line_num, row) for row in reader)
            return
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: is not JSON ({error.msg}).") from None
            if not isinstance(row, dict):
                raise DataError(f'{path}, line {number}: expected an object such as {{"path": "a.jpg", "label": "cat"}}.')
            yield number, row
