"""Convert one value of one option to its declared type, and say in words what the option takes.

Every value except a list is converted from its text. So `3e-4`, which PyYAML reads as a string, is
a number, and a YAML value passes exactly the same checks as the same text on the command line.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from os import PathLike, fspath
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from convnextv2.recipe.knobs import Recipe

_EMPTY = ("", "none", "null")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_COMPARISONS = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}


def is_empty(value: Any) -> bool:
    """Return whether a value stands for "nothing": none, null or an empty text."""
    return value is None or str(value).strip().lower() in _EMPTY


@dataclass(frozen=True)
class Option:
    """One option of a verb: a knob of the recipe, or an option that only this verb has.

    Attributes:
        name: The name in Python. The command line also accepts it with - instead of _.
        kind: The type annotation of its values.
        default: The value if the option is not given.
        help: The help text, one or two sentences.
        unit: The unit of its numbers, such as "px".
        bounds: The bounds of its numbers, each as a sign, a comparison and a limit.
    """

    name: str
    kind: Any
    default: Any
    help: str
    unit: str = ""
    bounds: tuple[tuple[str, Callable[[float, float], bool], float], ...] = ()

    def read(self, value: Any) -> Any:
        """Convert a value to the declared type.

        Raises:
            ValueError: The value is not of that type, or is out of bounds.
        """
        if self.name == "label_separator" and value and not str(value).strip(" "):
            return "space"  # a blank, which is an empty value elsewhere
        if self.name == "time" and type(value) in (int, float):
            value = str(value)  # minutes; other knobs that take text ask for quotes
        if self.kind is str and self.default == "" and is_empty(value):
            return ""
        if self.default == () and (is_empty(value) or value in ([], ())):
            return ()
        converted = convert(self.kind, value)
        if isinstance(converted, int | float) and not all(
            holds(converted, limit) for _, holds, limit in self.bounds
        ):
            raise ValueError
        return converted

    @property
    def takes(self) -> str:
        """The values that the option takes, in words.

        Examples are 'a number >= 0 and <= 1', 'one of ce, bce' and 'a whole number >= 1, or none'.
        """
        within = " and".join(f" {sign} {limit:,}" for sign, _, limit in self.bounds)
        words = []
        for part in (
            get_args(self.kind) if get_origin(self.kind) in (Union, UnionType) else (self.kind,)
        ):
            options = [str(option) for option in get_args(part) if option != ""]
            if get_origin(part) is Literal:
                words.append(
                    f"one of {', '.join(options)}" if len(options) > 1 else f"'{options[0]}'"
                )
                words += ["none"] * ("" in get_args(part))
            elif get_origin(part) is tuple:
                noun = {int: "whole numbers", str: "names"}.get(get_args(part)[0], "numbers")
                count = "a list of" if get_args(part)[-1] is Ellipsis else str(len(get_args(part)))
                words.append(f"{count} {noun}")
                if isinstance(self.default, tuple) and self.default:
                    words[-1] += f" such as {show(self.default)}"
            elif get_origin(part) is dict:
                words.append("names with numbers such as cat=2,dog=1")
            else:
                nouns = {
                    bool: "True or False",
                    int: "a whole number",
                    float: "a number",
                    str: "text",
                    NoneType: "none",
                }
                words.append(nouns[part] + (within if part in (int, float) else ""))
        return ", or ".join(words)


def bounds(
    limits: Iterable[tuple[str, float]],
) -> tuple[tuple[str, Callable[[float, float], bool], float], ...]:
    """Make the bounds of an option from their names (ge, gt, le, lt) and limits."""
    return tuple((*_COMPARISONS[name], limit) for name, limit in limits)


def knob(name: str) -> Option:
    """Describe a knob of the recipe as an option."""
    field = Recipe.model_fields[name]
    extra = field.json_schema_extra
    assert isinstance(extra, dict) and field.description is not None
    limits = [
        (key, getattr(bound, key))
        for bound in field.metadata
        for key in _COMPARISONS
        if hasattr(bound, key)
    ]
    return Option(
        name, field.annotation, field.default, field.description, str(extra["unit"]), bounds(limits)
    )


def read_value(name: str, value: Any) -> Any:
    """Convert a value to the type of a knob.

    Args:
        name: The name of the knob.
        value: Text, or a value from YAML or Python.

    Raises:
        ValueError: The value is not of that type, or is out of bounds.
    """
    return knob(name).read(value)


def convert(kind: Any, value: Any) -> Any:
    """Convert a value to a type.

    Args:
        kind: The type annotation of a knob, or a part of it.
        value: Text, or a value from YAML or Python.

    Raises:
        ValueError: The value is not of that type.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _first_that_fits(parts, value)
    if origin is tuple:
        return _items(parts, value)
    if origin is dict:
        return _table(value)
    if isinstance(value, PathLike):
        value = fspath(value)
    if isinstance(value, list | tuple | dict | set) or (kind is str and not isinstance(value, str)):
        raise ValueError
    if kind is str:
        if "\0" in value:  # no path, name or address contains it
            raise ValueError
        return value
    text = str(value).strip().lower()
    if origin is Literal:
        return _choice(parts, text)
    if kind is NoneType and text in _EMPTY:
        return None
    if kind is bool and text in _TRUE + _FALSE:
        return text in _TRUE
    if kind is int and (number := float(text)).is_integer():
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else int(number)  # 1e6 is whole too
    if kind is float and isfinite(number := float(text)):
        return number
    raise ValueError


def _first_that_fits(kinds: Sequence[Any], value: Any) -> Any:
    """Convert a value to the first of several types that it fits.

    None comes first, since 'none' is not text if None is allowed.
    """
    for kind in sorted(kinds, key=lambda kind: kind is not NoneType):
        try:
            return convert(kind, value)
        except ValueError:
            continue
    raise ValueError


def _items(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """Convert a list, or a text that lists values, to a tuple.

    Args:
        kinds: The type of each item; or one type and an ellipsis, for any number of items.
        value: The list or the text.

    Raises:
        ValueError: The number of items is another one, or an item is not of its type.
    """
    items = value if isinstance(value, list | tuple) else _split(value)
    if not items:
        raise ValueError
    if kinds[0] is str:  # names, which the command line cannot tell from numbers
        items = [item if isinstance(item, list | dict) else str(item) for item in items]
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(items)
    return tuple(convert(kind, item) for kind, item in zip(kinds, items, strict=True))


def _choice(options: Sequence[Any], text: str) -> Any:
    """Return the option that a text in lower case names. A word for nothing may name an empty one.

    Raises:
        ValueError: There is no such option.
    """
    wanted = "" if text in _EMPTY and "" in options else text
    for option in options:
        if str(option).lower() == wanted:
            return option
    raise ValueError


def _table(value: Any) -> dict[str, float]:
    """Convert a table of names and numbers, given as a mapping or as text "cat=2,dog=1".

    Raises:
        ValueError: The value is not such a table, or a name is given twice.
    """
    if isinstance(value, Mapping):
        pairs = [(str(name), number) for name, number in value.items()]
    else:
        parts = [part.rpartition("=") for part in str(value).split(",")]
        if any(not equals for _, equals, _ in parts):
            raise ValueError
        pairs = [(name.strip(), number) for name, _, number in parts]
    table = {name: convert(float, number) for name, number in pairs}
    if not table or len(table) < len(pairs):
        raise ValueError
    return table


def _split(value: Any) -> list[str]:
    """Split a list that is written as text.

    The forms are '[0.08, 1.0]', '(0.08, 1.0)', '0.08,1.0' and '0.08 1.0'.
    """
    text = str(value).strip()
    if text[:1] + text[-1:] in ("[]", "()"):
        text = text[1:-1]
    return [item.strip("'\"") for item in re.split(r"[,\s]+", text) if item]


def expected(name: str) -> str:
    """Say in words what values a knob takes; see `Option.takes`."""
    return knob(name).takes


_MAX_SHOWN = 300
"""The maximum number of characters of a value in a message."""


def show(value: Any) -> str:
    """Write a value on one line, as in YAML. A long value is cut off."""
    if isinstance(value, list | tuple):
        items = (str(item) if isinstance(item, list) else show(item) for item in value)
        text = f"[{', '.join(items)}]"
    elif isinstance(value, float):
        text = f"{value:.10g}"
    else:
        text = "none" if value is None else str(value)
    shown = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
    return shown if shown and shown.isprintable() else repr(shown)
