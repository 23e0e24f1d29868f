"""Writes a page for each group of knobs, and one for all recipes."""

from __future__ import annotations

from convnextv2.recipe.files import find_recipe, list_recipes
from convnextv2.recipe.knobs import Recipe, group_of_knob, idle_of, knobs_of
from convnextv2.recipe.values import Option, knob
from convnextv2.verbs.options import VERBS
from reference.markup import cell, escaped, page, slug, toctree
from reference.options import default_text, prose, takes

GROUPS = tuple(dict.fromkeys(group_of_knob(name) for name in Recipe.model_fields))


def knob_index() -> str:
    """List all knobs by group."""
    rows = [
        f"| [{group}]({slug(group)}.md) | "
        + ", ".join(f"{{confval}}`{name}`" for name in knobs_of_group(group))
        + " |"
        for group in GROUPS
    ]
    return page(
        "Knobs of a recipe",
        "A knob means the same in a YAML recipe, on the command line and in a Python call. Names "
        "are written with `_` or `-`, and MindCV's names are accepted everywhere. A knob that a "
        "verb does not use is refused; one that has no effect beside the others is announced.",
        "| group | knobs |\n|---|---|\n" + "\n".join(rows),
        toctree(slug(group) for group in GROUPS),
    )


def group_page(group: str) -> str:
    """Write the page of a group of knobs."""
    return page(f"Knobs: {group}", *(_knob(knob(name)) for name in knobs_of_group(group)))


def knobs_of_group(group: str) -> list[str]:
    """Name the knobs of a group, in their order."""
    return [name for name in Recipe.model_fields if group_of_knob(name) == group]


def _knob(one: Option) -> str:
    """Describe a knob."""
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
    if reasons := "; ".join(escaped(idle.why) for idle in idle_of(one.name)):
        notes.append(f"The run says where it has no effect: {reasons}.")
    head = f":type: {takes(one)}\n:default: {default_text(one)}"
    return f"````{{confval}} {one.name}\n{head}\n\n{prose(one)}\n\n{' '.join(notes)}\n````"


def recipe_page() -> str:
    """Write every recipe with its head and its content, by the folder that it lies in."""
    found = [(name, summary, find_recipe(name)) for name, summary in list_recipes()]
    parts = [
        "`--config NAME` finds these wherever the package is installed. `convnextv2 recipes --copy "
        "NAME` puts one into the working folder. The head of each says how to run it, on what, and "
        "what came out.",
        "| recipe | what it does |\n|---|---|\n"
        + "\n".join(
            f"| [`{name}`](#recipe-{slug(name)}) | {cell(summary)} |" for name, summary, _ in found
        ),
    ]
    for name, _, path in found:
        text = path.read_text(encoding="utf-8").rstrip()
        parts.append(f"(recipe-{slug(name)})=\n## {name}\n\n```yaml\n{text}\n```")
    return page("Recipes", *parts)
