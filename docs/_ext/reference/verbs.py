"""Writes a page for each verb, with its options and its answers as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NotRequired, get_args, get_origin, get_type_hints

from sphinx.errors import ExtensionError
from typing_extensions import is_typeddict

from convnextv2.cli import load_verb
from convnextv2.recipe.knobs import group_of_knob
from convnextv2.recipe.options import REQUIRED, Options, OwnOption, borrowed_options, own_options
from convnextv2.recipe.values import Option
from convnextv2.verbs.answers import ANSWERS
from convnextv2.verbs.options import VERBS
from reference.knobs import GROUPS
from reference.markup import cell, escaped, page, toctree
from reference.options import default_text, prose, takes

_FORMS = {
    "object": "one JSON object",
    "array": "a JSON array of objects",
    "lines": "one JSON object a line",
}
_JSON_TYPES = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    Any: "anything",
}
_KNOBS_OF_A_VERB = (
    "These are knobs that a recipe has too. The defaults are those of this verb; each links to the "
    "knob's own entry."
)


def verb_index() -> str:
    """List all verbs."""
    rows = [f"| [`{name}`]({name}.md) | {_line(verb)} |" for name, verb in VERBS.items()]
    return page(
        "Verbs",
        "`convnextv2 VERB ...` on the command line and `convnextv2.VERB(...)` in Python are the "
        "same function with the same options. An option is written with `_` or `-`; a switch alone "
        "(`--ema`) means True.",
        "| verb | what it does |\n|---|---|\n" + "\n".join(rows),
        toctree(VERBS),
    )


def verb_page(options: type[Options]) -> str:
    """Write the page of a verb."""
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
    return page(f"convnextv2 {name}", *parts)


def _argument(one: OwnOption) -> str:
    """Describe an argument that has a place and no name."""
    given = "" if one.default is REQUIRED else " It may be left out."
    many = " Several may be given." if one.is_many else ""
    return f"````{{option}} {one.metavar}\n{prose(one)}{many}{given}\n````"


def _option(one: OwnOption, spelled: str) -> str:
    """Describe an option of a verb's own."""
    facts = f"*Takes* {takes(one)}. *Default:* {default_text(one)}."
    if one.default is REQUIRED:
        facts = f"*Takes* {takes(one)}. *It must be given.*"
    return f"````{{option}} {spelled}\n{prose(one)}\n\n{facts}\n````"


def _of_the_recipe(options: type[Options], borrowed: Iterable[Option]) -> str:
    """List the knobs of a verb that reads a recipe: by group and briefly, as there are many."""
    parts = [
        "## Knobs of the recipe",
        "Each of these may stand in the recipe, on the command line (`--NAME VALUE`) and in the "
        "Python call. The name links to what the knob means.",
    ]
    for group in GROUPS:
        rows = [
            f"| {{confval}}`{one.name}` | {default_text(one)} | {cell(one.help)} |"
            for one in borrowed
            if group_of_knob(one.name) == group
        ]
        if rows:
            head = "| knob | default | meaning |\n|---|---|---|\n"
            parts.append(f"### {group.capitalize()}\n\n" + head + "\n".join(rows))
    return "\n\n".join(parts)


def _borrowed(one: Option) -> str:
    """Describe a knob that a verb without a recipe takes."""
    facts = f"*Takes* {takes(one)}. *Default:* {default_text(one)}. See {{confval}}`{one.name}`."
    return f"````{{option}} --{one.name} V\n{prose(one)}\n\n{facts}\n````"


def _answer(name: str) -> str:
    """Describe what a verb prints with --json."""
    kind, form = ANSWERS[name]
    intro = (
        f"`--json` prints {_FORMS[form]} to stdout; lines for people go to stderr, and exit codes "
        "stay the same. Keys keep their names; later versions may add some."
    )
    head = "Answer as JSON" + (f" (`{name}`)" if " " in name else "")
    return f"## {head}\n\n{intro}\n\n" + "\n\n".join(_tables(kind))


def _tables(kind: Any) -> Iterator[str]:
    """Yield a table of the keys of an answer, and one of each kind of object in it."""
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
        rows.append(f"| `{key}` | {_json_type(declared)}{sometimes} | {cell(meaning)} |")
    yield f"{kind.__name__}:\n\n| key | type | meaning |\n|---|---|---|\n" + "\n".join(rows)
    for one in inner:
        yield from _tables(one)


def _json_type(hint: Any) -> str:
    """Name the type of a value in JSON."""
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


def _line(options: type[Options]) -> str:
    """Return what a verb does, in one line."""
    if not options.__doc__:
        raise ExtensionError(f"the options of {options.command} have no docstring")
    return escaped(" ".join(options.__doc__.split()))


def _usage(name: str, own: Iterable[OwnOption], has_knobs: bool) -> str:
    """Write how a verb is called."""
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
    """Return what stands for the value of an option; a switch that is off by itself has none."""
    return "" if one.kind is bool and not one.default else one.metavar
