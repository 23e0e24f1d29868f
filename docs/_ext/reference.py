"""Writes the pages of docs/reference from the declarations of the package, before the build.

A verb's options come from `verbs/options/`, the knobs from `recipe/groups/`, the recipes from
configs/, and the public names from `convnextv2.__all__`. The pages are git-ignored. What has no
docstring or no help fails the build.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NotRequired, get_args, get_origin, get_type_hints

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from typing_extensions import is_typeddict

import convnextv2
from convnextv2 import errors
from convnextv2.cli import load_verb
from convnextv2.recipe.files import find_recipe, list_recipes
from convnextv2.recipe.knobs import Recipe, group_of_knob, idle_of, knobs_of
from convnextv2.recipe.options import (
    REQUIRED,
    Options,
    OwnOption,
    borrowed_options,
    own_options,
)
from convnextv2.recipe.values import Option, knob, show
from convnextv2.verbs.answers import ANSWERS
from convnextv2.verbs.options import VERBS

GROUPS = tuple(dict.fromkeys(group_of_knob(name) for name in Recipe.model_fields))
MEMBERS = {
    "Run": "path, recipe, report, metrics, last_checkpoint, checkpoints",
    "Evaluation": "confusion, to_dict, table",
    "Weights": "lines, provenance",
}
"""The members of classes without a public name that are meant for programs."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension."""
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / "reference"))
    # Before napoleon, which finds types by the colons outside of code.
    app.connect("autodoc-process-docstring", _to_rst, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(folder: Path) -> None:
    """Write all pages; those that stay the same keep their time, so that they are not built again.

    Args:
        folder: docs/reference.
    """
    pages = {
        **{f"verbs/{name}.md": _verb(options) for name, options in VERBS.items()},
        "verbs/index.md": _verbs(),
        **{f"knobs/{_slug(group)}.md": _group(group) for group in GROUPS},
        "knobs/index.md": _knobs(),
        "recipes.md": _recipes(folder),
        **{f"python/{name}.md": _public(name) for name in convnextv2.__all__},
        "python/errors.md": _errors(errors),
        "python/others.md": _others(),
        "python/index.md": _python(),
    }
    for old in ("verbs", "knobs", "python"):
        for path in (folder / old).glob("*.md"):
            if f"{old}/{path.name}" not in pages:
                path.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _verbs() -> str:
    rows = [f"| [`{name}`]({name}.md) | {_line(verb)} |" for name, verb in VERBS.items()]
    return _page(
        "Verbs",
        "`convnextv2 VERB ...` on the command line and `convnextv2.VERB(...)` in Python are the "
        "same "
        "function with the same options. An option is written with `_` or `-`; a switch alone "
        "(`--ema`) means True.",
        "| verb | what it does |\n|---|---|\n" + "\n".join(rows),
        _toctree(VERBS),
    )


def _verb(options: type[Options]) -> str:
    name, own, borrowed = options.command, own_options(options), borrowed_options(options)
    function = load_verb(name)
    parts = [
        _line(options),
        f"```text\nconvnextv2 {_usage(name, own, bool(borrowed))}\n```",
        f"From Python: {{py:func}}`convnextv2.{name}`.",
        f"````{{program}} convnextv2 {name}\n````",
    ]
    if function.__doc__ is None:
        raise ExtensionError(f"convnextv2.{name} has no docstring")
    positional = [one for one in own if one.is_positional]
    named = [one for one in own if not one.is_positional]
    if positional:
        parts.append("## Arguments")
        parts += [_argument(one) for one in positional]
    if named:
        parts.append("## Options of its own")
        parts += [_option(one, f"--{one.name} {_metavar(one)}") for one in named]
    if borrowed and options.takes_recipe:
        parts.append(_of_the_recipe(options, borrowed))
    elif borrowed:
        parts.append("## Knobs of the recipe\n\n" + _KNOBS_OF_A_VERB)
        parts += [_borrowed(one) for one in borrowed]
    parts += [_answer(form) for form in ANSWERS if form.partition(" ")[0] == name]
    return _page(f"convnextv2 {name}", *parts)


_FORMS = {
    "object": "one JSON object",
    "array": "a JSON array of objects",
    "lines": "one JSON object a line",
}


def _answer(name: str) -> str:
    """What a verb prints with --json."""
    kind, form = ANSWERS[name]
    intro = (
        f"`--json` prints {_FORMS[form]} to stdout; lines for people go to stderr, and exit codes "
        "stay the same. Keys keep their names; later versions may add some."
    )
    head = "Answer as JSON" + (f" (`{name}`)" if " " in name else "")
    return f"## {head}\n\n{intro}\n\n" + "\n\n".join(_tables(kind))


def _tables(kind: Any) -> Iterator[str]:
    """A table of the keys of an answer, and one of each kind of object in it."""
    rows, inner = [], []
    for key, hint in get_type_hints(kind, include_extras=True).items():
        optional = get_origin(hint) is NotRequired
        hint = get_args(hint)[0] if optional else hint
        declared, meaning = (
            (hint.__origin__, hint.__metadata__[0].description)
            if get_origin(hint) is Annotated
            else (hint, "")
        )
        inner += [one for one in (declared, *get_args(declared)) if is_typeddict(one)]
        sometimes = "; not always there" if optional else ""
        rows.append(f"| `{key}` | {_json_type(declared)}{sometimes} | {_cell(meaning)} |")
    yield f"{kind.__name__}:\n\n| key | type | meaning |\n|---|---|---|\n" + "\n".join(rows)
    for one in inner:
        yield from _tables(one)


_JSON_TYPES = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    Any: "anything",
}


def _json_type(hint: Any) -> str:
    if hint in _JSON_TYPES:
        return _JSON_TYPES[hint]
    if is_typeddict(hint):
        return str(hint.__name__)
    inner = [_json_type(one) for one in get_args(hint)]
    if get_origin(hint) is list:
        return f"list of {inner[0]}"
    if get_origin(hint) is dict:
        return f"object of {inner[1]}"
    return " or ".join(inner)


_KNOBS_OF_A_VERB = (
    "These are knobs that a recipe has too. The defaults are those of this verb; each links to the "
    "knob's own entry."
)


def _of_the_recipe(options: type[Options], borrowed: Iterable[Option]) -> str:
    """The knobs of a verb that reads a recipe: by group and briefly, as there are many."""
    parts = [
        "## Knobs of the recipe",
        "Each of these may stand in the recipe, on the command line (`--NAME VALUE`) and in the "
        "Python call. The name links to what the knob means.",
    ]
    for group in GROUPS:
        rows = [
            f"| {{confval}}`{one.name}` | {_default(one)} | {_cell(one.help)} |"
            for one in borrowed
            if group_of_knob(one.name) == group
        ]
        if rows:
            head = "| knob | default | meaning |\n|---|---|---|\n"
            parts.append(f"### {group.capitalize()}\n\n" + head + "\n".join(rows))
    return "\n\n".join(parts)


def _knobs() -> str:
    rows = [
        f"| [{group}]({_slug(group)}.md) | "
        + ", ".join(f"{{confval}}`{name}`" for name in _names(group))
        + " |"
        for group in GROUPS
    ]
    return _page(
        "Knobs of a recipe",
        "A knob means the same in a YAML recipe, on the command line and in a Python call. Names "
        "are written with `_` or `-`, and MindCV's names are accepted everywhere. A knob that a "
        "verb does not use is refused; one that has no effect beside the others is announced.",
        "| group | knobs |\n|---|---|\n" + "\n".join(rows),
        _toctree(_slug(group) for group in GROUPS),
    )


def _group(group: str) -> str:
    return _page(f"Knobs: {group}", *(_knob(knob(name)) for name in _names(group)))


def _names(group: str) -> list[str]:
    return [name for name in Recipe.model_fields if group_of_knob(name) == group]


def _knob(one: Option) -> str:
    extra = Recipe.model_fields[one.name].json_schema_extra
    assert isinstance(extra, dict)
    verbs = ", ".join(
        f"[{name}](../verbs/{name}.md)" for name, verb in VERBS.items() if one.name in verb.knobs
    )
    notes = [f"Used by {verbs}."]
    if extra["mindcv"]:
        notes.append(f"MindCV calls it `{extra['mindcv']}`.")
    if extra["only"]:
        other = "pretrain" if extra["only"] == "train" else "train"
        assert one.name not in knobs_of(other)
        notes.append(f"`{other}` has no use for it and refuses it.")
    if reasons := "; ".join(_escaped(idle.why) for idle in idle_of(one.name)):
        notes.append(f"The run says where it has no effect: {reasons}.")
    head = f":type: {_takes(one)}\n:default: {_default(one)}"
    return f"````{{confval}} {one.name}\n{head}\n\n{_prose(one)}\n\n{' '.join(notes)}\n````"


def _argument(one: OwnOption) -> str:
    given = "" if one.default is REQUIRED else " It may be left out."
    many = " Several may be given." if one.is_many else ""
    return f"````{{option}} {one.metavar}\n{_prose(one)}{many}{given}\n````"


def _option(one: OwnOption, spelled: str) -> str:
    facts = f"*Takes* {_takes(one)}. *Default:* {_default(one)}."
    if one.default is REQUIRED:
        facts = f"*Takes* {_takes(one)}. *It must be given.*"
    return f"````{{option}} {spelled}\n{_prose(one)}\n\n{facts}\n````"


def _borrowed(one: Option) -> str:
    facts = f"*Takes* {_takes(one)}. *Default:* {_default(one)}. See {{confval}}`{one.name}`."
    return f"````{{option}} --{one.name} V\n{_prose(one)}\n\n{facts}\n````"


def _recipes(folder: Path) -> str:
    """Every recipe with its head and its content, by the folder that it lies in."""
    found = [(name, summary, find_recipe(name)) for name, summary in list_recipes()]
    parts = [
        "`--config NAME` finds these wherever the package is installed. `convnextv2 recipes --copy "
        "NAME` puts one into the working folder. The head of each says how to run it, on what, and "
        "what came out.",
        "| recipe | what it does |\n|---|---|\n"
        + "\n".join(
            f"| [`{name}`](#recipe-{_slug(name)}) | {_cell(summary)} |"
            for name, summary, _ in found
        ),
    ]
    for name, _, path in found:
        text = path.read_text(encoding="utf-8").rstrip()
        parts.append(f"(recipe-{_slug(name)})=\n## {name}\n\n```yaml\n{text}\n```")
    return _page("Recipes", *parts)


def _python() -> str:
    rows = [
        f"| [`{name}`]({name}.md) | {_cell(_first_sentence(getattr(convnextv2, name), name))} |"
        for name in convnextv2.__all__
    ]
    return _page(
        "Python",
        "Everything that the package offers to programs, as `convnextv2.NAME`. Importing the "
        "package is cheap: PyTorch is loaded when one of these is used.",
        "| name | what it is |\n|---|---|\n" + "\n".join(rows),
        "What they take and return beside these stands under [other classes](others.md), and what "
        "they raise under [errors](errors.md).",
        _toctree([*convnextv2.__all__, "others", "errors"]),
    )


def _public(name: str) -> str:
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
    return _page(f"convnextv2.{name}", *([verb] if name in VERBS else []), _rst(directive))


def _to_rst(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Make reStructuredText of a docstring, which has code in backquotes and no other markup."""
    lines[:] = _with_code(re.sub(r"`+", "`", "\n".join(lines))).split("`")
    for i in range(0, len(lines), 2):
        lines[i] = re.sub(r"(?<=\w)_(?!\w)|[*|]", r"\\\g<0>", lines[i])
    lines[:] = "``".join(lines).split("\n")


def _others() -> str:
    """The classes that public functions take and return, and that have no public name."""
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
        _rst(
            f".. autoclass:: {one.__module__}.{name}()"
            + (f"\n   :members: {MEMBERS[name]}" if name in MEMBERS else "")
        )
        for name, one in sorted(found.items())
    ]
    knobs = f".. py:class:: {Recipe.__module__}.Recipe\n\n   {_RECIPE}"
    return _page(
        "Other classes",
        "The functions and classes of the package take and return these. Programs get them from "
        "there, and need not import them.",
        *parts,
        _rst(knobs),
    )


_RECIPE = "One run, described completely and frozen, with an attribute for each knob."


def _classes(annotation: Any) -> Iterator[type]:
    """The classes of this package that occur in an annotation."""
    if getattr(annotation, "__module__", "").startswith("convnextv2."):
        yield annotation
    for part in get_args(annotation):
        yield from _classes(part)


def _errors(module: ModuleType) -> str:
    found = [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]
    parts = [_rst(f".. autoexception:: {module.__name__}.{name}") for name in found]
    return _page(
        "Errors",
        "Every error that a user can cause and mend is a `ConvNeXtV2Error`. Its message is one "
        "line: "
        "what, its value, what was expected, and the remedy.",
        *parts,
    )


def _rst(text: str) -> str:
    return f"```{{eval-rst}}\n{text}\n```"


def _first_sentence(found: Any, name: str) -> str:
    text = inspect.getdoc(found)
    if not text:
        raise ExtensionError(f"convnextv2.{name} has no docstring")
    return " ".join(text.split("\n\n")[0].split())


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *parts]) + "\n"


def _toctree(names: Iterable[str]) -> str:
    return "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```"


def _line(options: type[Options]) -> str:
    if not options.__doc__:
        raise ExtensionError(f"the options of {options.command} have no docstring")
    return _escaped(" ".join(options.__doc__.split()))


def _usage(name: str, own: Iterable[OwnOption], has_knobs: bool) -> str:
    words = [name]
    for one in own:
        if one.is_positional:
            word = f"{one.metavar} ..." if one.is_many else one.metavar
            words.append(word if one.default is REQUIRED else f"[{word}]")
        elif one.default is REQUIRED:
            words.append(f"--{one.name} {one.metavar}")
    optional = any(not one.is_positional and one.default is not REQUIRED for one in own)
    return " ".join([*words, *["[options]"] * (optional or has_knobs)])


def _metavar(one: OwnOption) -> str:
    return "" if one.kind is bool else one.metavar


def _prose(one: Option) -> str:
    if not one.help:
        raise ExtensionError(f"{one.name} has no help")
    return _escaped(one.help)


def _takes(one: Option) -> str:
    text = "a path, or none" if "Path" in str(one.kind) else one.takes
    text = re.sub("'([^']+)'", r"`\1`", text)
    if isinstance(one, OwnOption) and one.is_many:
        text = "one or more values"
    return f"{text}; in {one.unit}" if one.unit else text


def _default(one: Option) -> str:
    if one.default is REQUIRED:
        return "none"
    if one.default in ("", None, ()):
        return "empty"
    return f"`{show(one.default)}`"


def _cell(text: str) -> str:
    return _escaped(text).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Help as Markdown: it has backquotes, but no other markup on purpose."""
    pieces = _with_code(text).split("`")
    for i in range(0, len(pieces), 2):
        for sign in "*_<[":
            pieces[i] = pieces[i].replace(sign, f"\\{sign}")
    return "`".join(pieces)


def _with_code(text: str) -> str:
    """Put options such as --init, which would become a dash, into backquotes."""
    return re.sub(r"`[^`]*`|--\w+", lambda found: f"`{found[0].strip('`')}`", text)


def _slug(text: str) -> str:
    return text.lower().replace("/", "-").replace("_", "-").replace(" ", "-")
