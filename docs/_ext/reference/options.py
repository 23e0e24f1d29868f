"""Describes options in words: their help, the values that they take, and their defaults."""

from __future__ import annotations

import re

from sphinx.errors import ExtensionError

from convnextv2.recipe.options import REQUIRED, OwnOption
from convnextv2.recipe.values import Option, show
from reference.markup import escaped


def prose(one: Option) -> str:
    """Return the help of an option."""
    if not one.help:
        raise ExtensionError(f"{one.name} has no help")
    return escaped(one.help)


def takes(one: Option) -> str:
    """Say which values an option takes."""
    text = "a path, or none" if "Path" in str(one.kind) else one.takes
    text = re.sub("'([^']+)'", r"`\1`", text)
    if isinstance(one, OwnOption) and one.is_many:
        text = "one or more values"
    return f"{text}; in {one.unit}" if one.unit else text


def default_text(one: Option) -> str:
    """Write the default of an option."""
    if one.default is REQUIRED:
        return "none"
    if one.default in ("", None, ()):
        return "empty"
    return f"`{show(one.default)}`"
