"""The records of a run's log, metrics.jsonl: one JSON object per line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any


def line_of(record: Mapping[str, Any]) -> str:
    """Return the line of metrics.jsonl that holds a record, with its line break."""
    return json.dumps(record) + "\n"


def whole_records(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Parse lines of metrics.jsonl.

    Args:
        lines: The lines, some of which may be damaged, as after a crash of the machine.

    Returns:
        The records of the lines that are whole, in their order.
    """
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and _is_whole(record):
            records.append(record)
    return records


def _is_whole(record: Mapping[str, Any]) -> bool:
    """Return whether a record has the fields that its readers need, with the right types."""
    kind = record.get("kind")
    if not isinstance(kind, str):
        return False
    needed = ("step", "epoch", "loss") if kind == "train" else ("step", "epoch")
    if not all(isinstance(record.get(name), int | float) for name in needed):
        return False
    if not all(math.isfinite(record[name]) for name in ("step", "epoch")):
        return False
    if kind not in ("train", "eval", "epoch"):
        return True
    # Some figures may be unknown (null), but each that is known is a number.
    figures = record.keys() - {"kind"}
    return not any(isinstance(record[name], str | list | dict) for name in figures)
