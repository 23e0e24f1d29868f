"""Pages in Markdown, and what in them is reStructuredText."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sphinx.application import Sphinx


def page(title: str, *parts: str) -> str:
    """Join the parts of a page below its title."""
    return "\n\n".join([f"# {title}", *parts]) + "\n"


def toctree(names: Iterable[str]) -> str:
    """Name the pages below this one, which the sidebar shows."""
    return "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```"


def as_rst(text: str) -> str:
    """Let Sphinx read a part of a page as reStructuredText."""
    return f"```{{eval-rst}}\n{text}\n```"


def to_rst(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Make reStructuredText of a docstring, which has code in backquotes and no other markup."""
    lines[:] = with_code(re.sub(r"`+", "`", "\n".join(lines))).split("`")
    for i in range(0, len(lines), 2):
        lines[i] = re.sub(r"(?<=\w)_(?!\w)|[*|]", r"\\\g<0>", lines[i])
    lines[:] = "``".join(lines).split("\n")


def cell(text: str) -> str:
    """Write a text for a cell of a table."""
    return escaped(text).replace("|", "\\|")


def escaped(text: str) -> str:
    """Write a help as Markdown: it has backquotes, but no other markup on purpose."""
    pieces = with_code(text).split("`")
    for i in range(0, len(pieces), 2):
        for sign in "*_<[":
            pieces[i] = pieces[i].replace(sign, f"\\{sign}")
    return "`".join(pieces)


def with_code(text: str) -> str:
    """Put options such as --init, which would become a dash, into backquotes."""
    return re.sub(r"`[^`]*`|--\w+", lambda found: f"`{found[0].strip('`')}`", text)


def slug(text: str) -> str:
    """Turn a name into one for files and links."""
    return text.lower().replace("/", "-").replace("_", "-").replace(" ", "-")
