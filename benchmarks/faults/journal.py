"""Keeps what a study has found so far, so that it can be stopped and started again.

There is one JSON line for each case.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


class Journal:
    """Cases by their key. A case that is in the file already need not be tried again.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.cases: dict[str, dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                case = json.loads(line)
            except json.JSONDecodeError:  # a kill cut it short: the case is tried again
                continue
            self.cases[case["key"]] = case

    def __contains__(self, key: str) -> bool:
        return key in self.cases

    def add(self, key: str, found: dict[str, Any]) -> None:
        """Append a case."""
        self.cases[key] = {"key": key} | found
        with open(self._path, "a") as file:
            file.write(json.dumps(self.cases[key]) + "\n")


def show(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=max(150, Console().width)).print(table)


def median(values: list[float]) -> float:
    """Return the value in the middle; nan if there is none."""
    return sorted(values)[len(values) // 2] if values else float("nan")
