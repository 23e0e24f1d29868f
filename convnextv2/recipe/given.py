"""The settings that a user gave, before they become a recipe: values, sources and mistakes."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NamedTuple, get_args

from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.mindcv import keys
from convnextv2.recipe.values import expected, show
from convnextv2.text import plain

COMMAND = "this command"
"""The source of values from a command line or a Python call."""

_MAX_LINE = 2000
"""Maximum length of a line about a mistake, in characters, because values may be long."""
_MAX_PROPOSALS = 3
"""The maximum number of names that are proposed in place of an unknown one."""


class Given(NamedTuple):
    """A knob that was given.

    Attributes:
        key: Its name as it was spelled.
        value: Its value as it was given: text, or any other type.
        source: Where it was given: the name of a file, or `COMMAND`.
    """

    key: str
    value: Any
    source: str


class Mistake(NamedTuple):
    """A line about a mistake, and the source that contains the mistake."""

    source: str
    line: str


class Idle(NamedTuple):
    """A key that has no effect here, and the reason."""

    key: str
    why: str


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return a question with the nearest names, or an empty text if no name is near.

    A compound name is also near if one of its parts is the word: `image_size` for `size`.
    """
    names = list(names)
    near = get_close_matches(word, names, n=1, cutoff=0.8)
    if not near:
        near = [name for name in names if word in name.split("_")]
    if not 0 < len(near) <= _MAX_PROPOSALS:
        near = get_close_matches(word, names, n=1)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def wrong_value(name: str, item: Given) -> str:
    """Describe what a knob expects in place of the value that was given."""
    field = Recipe.model_fields[name]
    options = [*keys.VALUES.get(item.key, ())] if item.key != name else []
    wanted = f"one of {', '.join(options)}" if options else expected(name)
    kinds = (field.annotation, *get_args(field.annotation))
    remedy = did_you_mean(
        str(item.value), options or [str(option) for kind in kinds for option in get_args(kind)]
    )
    if str in kinds and isinstance(item.value, int | float):
        remedy = f" Put it in quotes: {str(item.value)!r}."
    if not remedy and not wanted.startswith("one of"):
        remedy = f" {field.description}"
    return f"{item.key} = {show(item.value)}: expected {wanted}.{remedy}"


def report(mistakes: list[Mistake]) -> str:
    """Join all mistakes into one message.

    Each source gets a header of its own. A single mistake in the command is just one line. Values
    may hold any characters, so each line is made printable.
    """
    mistakes = [Mistake(source, _printable(line)) for source, line in mistakes]
    if len(mistakes) == 1 and mistakes[0].source == COMMAND:
        return mistakes[0].line
    lines = []
    for source in dict.fromkeys(mistake.source for mistake in mistakes):
        mine = [mistake.line for mistake in mistakes if mistake.source == source]
        lines += [
            f"{source} has {len(mine)} error{'s' * (len(mine) != 1)}:",
            *(f"  {line}" for line in mine),
        ]
    return "\n".join(lines)


def _printable(line: str) -> str:
    line = plain(line)
    return line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]}..."
