"""Writes a page for each public name of the package, and those of other classes and errors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_args, get_type_hints

from sphinx.errors import ExtensionError

import convnextv2
from convnextv2.cli import load_verb
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.options import Options
from convnextv2.verbs.options import VERBS
from reference.markup import as_rst, cell, page, toctree

MEMBERS = {
    "Run": "path, recipe, report, metrics, last_checkpoint, checkpoints",
    "Evaluation": "confusion, to_dict, table",
    "Weights": "lines, provenance",
}
"""The members of classes without a public name that are meant for programs."""
_RECIPE = "One run, described completely and frozen, with an attribute for each knob."


def python_index() -> str:
    """List the public names."""
    rows = [
        f"| [`{name}`]({name}.md) | {cell(_first_sentence(getattr(convnextv2, name), name))} |"
        for name in convnextv2.__all__
    ]
    return page(
        "Python",
        "Everything that the package offers to programs, as `convnextv2.NAME`. Importing the "
        "package is cheap: PyTorch is loaded when one of these is used.",
        "| name | what it is |\n|---|---|\n" + "\n".join(rows),
        "What they take and return beside these stands under [other classes](others.md), and what "
        "they raise under [errors](errors.md).",
        toctree([*convnextv2.__all__, "others", "errors"]),
    )


def public_page(name: str) -> str:
    """Write the page of a public name."""
    found = getattr(convnextv2, name)
    _first_sentence(found, name)
    if inspect.isclass(found):
        for member, value in vars(found).items():
            if callable(value) and not member.startswith("_") and not inspect.getdoc(value):
                raise ExtensionError(f"convnextv2.{name}.{member} has no docstring")
        directive = f".. autoclass:: convnextv2.{name}\n   :members:\n   :special-members: __call__"
        if issubclass(found, Exception):
            directive = f".. autoexception:: convnextv2.{name}"
    else:
        directive = f".. autofunction:: convnextv2.{name}"
    verb = f"The options are explained at [`convnextv2 {name}`](../verbs/{name}.md)."
    return page(f"convnextv2.{name}", *([verb] if name in VERBS else []), as_rst(directive))


def other_page() -> str:
    """Describe the classes that public functions take and return, and that have no public name."""
    functions = [load_verb(verb) for verb in VERBS]
    for name in convnextv2.__all__:
        if inspect.isclass(found := getattr(convnextv2, name)):
            functions += [one for one in vars(found).values() if inspect.isfunction(one)]
    found = {
        one.__name__: one
        for function in functions
        if not function.__name__.startswith("_")
        for annotation in get_type_hints(inspect.unwrap(function)).values()
        for one in _classes(annotation)
        if one.__name__ not in convnextv2.__all__ and not issubclass(one, Options)
    }
    parts = [
        as_rst(
            f".. autoclass:: {one.__module__}.{name}()"
            + (f"\n   :members: {MEMBERS[name]}" if name in MEMBERS else "")
        )
        for name, one in sorted(found.items())
    ]
    knobs = f".. py:class:: {Recipe.__module__}.Recipe\n\n   {_RECIPE}"
    return page(
        "Other classes",
        "The functions and classes of the package take and return these. Programs get them from "
        "there, and need not import them.",
        *parts,
        as_rst(knobs),
    )


def _classes(annotation: Any) -> Iterator[type]:
    """Yield the classes of this package that occur in an annotation."""
    if getattr(annotation, "__module__", "").startswith("convnextv2."):
        yield annotation
    for part in get_args(annotation):
        yield from _classes(part)


def error_page(module: ModuleType) -> str:
    """Write the page of the errors."""
    found = [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]
    parts = [as_rst(f".. autoexception:: {module.__name__}.{name}") for name in found]
    return page(
        "Errors",
        "Every error that a user can cause and fix is a `ConvNeXtV2Error`. Its message is one "
        "line: what, its value, what was expected, and the remedy.",
        *parts,
    )


def _first_sentence(found: Any, name: str) -> str:
    """Return the first paragraph of a docstring, in one line."""
    text = inspect.getdoc(found)
    if not text:
        raise ExtensionError(f"convnextv2.{name} has no docstring")
    return " ".join(text.split("\n\n")[0].split())
