"""Write the tables and the page of all sections, and name the sections that went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import Row


def cell(value: object) -> str:
    """Write a value for a table: numbers with three significant digits."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        small = value != 0 and abs(value) < 1e-3
        return f"{value:.1e}" if small else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value).replace("|", "\\|")


def table(rows: Sequence[Row]) -> str:
    """Write rows as a table in Markdown. A row need not have all columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[cell(row.get(name, "")) for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(found: dict[str, Any]) -> str:
    """Write everything that was found as a page in Markdown."""
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    parts = [f"# Device\n\n{machine}."]
    for name, section in found["sections"].items():
        text = section.get("failure") or table(section["rows"])
        parts.append(f"## {name}\n\n{text}\n\n{section.get('seconds', 0):.0f} s.")
    return "\n\n".join(parts) + "\n"


def wrong(found: dict[str, Any]) -> list[str]:
    """List the sections that failed, or have a row that is not as it must be."""
    return [
        name
        for name, section in found["sections"].items()
        if "failure" in section
        or any(row.get("right") is False or row.get("repeats") is False for row in section["rows"])
    ]
