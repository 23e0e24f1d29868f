"""Text for messages: made safe to print, counted, shortened."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePath

_PLURAL = re.compile(r"\((e?s)\)")


def plain(text: object) -> str:
    """Make text stay on its line and change nothing else on the screen.

    Args:
        text: Anything from a file; it is converted with `str`.

    Returns:
        The same text with a Python escape in place of each character that cannot be printed: line
        breaks, terminal sequences, marks that change the direction of writing, invisible characters
        and halves of surrogate pairs.
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def typed(path: PurePath | str) -> str:
    """Write a path as it is typed in a shell: quoted if necessary, and never as an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def counted(number: int, what: str) -> str:
    """Write a count with its noun in the singular or the plural.

    Args:
        number: How many there are.
        what: The noun, with (s) or (es) after it, as in "image(s) without a label map".

    Returns:
        Words such as "1 image without a label map" and "2,000 images without a label map".
    """
    ending = "" if number == 1 else r"\1"
    return f"{number:,} {_PLURAL.sub(ending, what)}"


def brief(names: list[str]) -> str:
    """Name a few things, or the first and the last of many.

    Args:
        names: The names, which may hold any character.

    Returns:
        One line of printable text: all names if there are at most three, else "first ... last
        (count)".
    """
    shown = [
        name if name.isprintable() and len(name) < 100 else ascii(name)[:100]
        for name in names[:3] + names[-1:]
    ]
    return (
        ", ".join(shown[: len(names)])
        if len(names) <= 3
        else f"{shown[0]} ... {shown[-1]} ({len(names)})"
    )
