"""Open the Jinja templates of pages and sections."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template


@cache
def open_template(package: str | None, name: str, **names: Any) -> Template:
    """Open a template in which every value is escaped and a missing value is an error.

    Args:
        package: The package that contains the file.
        name: The name of the file.
        **names: Functions and values that the template may use, besides its arguments.
    """
    assert package is not None
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    return environment.from_string(text, globals=names)


def readable(value: Any) -> str:
    """Return the value of a knob as readable text."""
    if value is None or value == "":
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(readable(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
