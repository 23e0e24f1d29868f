"""Read recipes from a YAML file, a command line or a Python call, with the same checks for all.

All mistakes are reported together. The file overrides the defaults, and single values override the
file. Keys may be written with - or _, and under MindCV's names. Values are read by the declared
type of the knob (`recipe.values`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from convnextv2.errors import RecipeError
from convnextv2.recipe.files import SET, began_in, called, find_recipe, read_yaml
from convnextv2.recipe.given import (
    COMMAND,
    Given,
    Idle,
    Mistake,
    did_you_mean,
    report,
    wrong_value,
)
from convnextv2.recipe.knobs import Recipe, default_of, idle_of, knobs_of
from convnextv2.recipe.mindcv import habits, keys
from convnextv2.recipe.mindcv.habits import META
from convnextv2.recipe.values import is_empty, read_value, show

_SYNONYMS = {
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "img_size": "image_size",
    "input_size": "image_size",
    "output_dir": "out",
}
"""Names in other tools that are too different from ours to be matched by similarity."""


def read_recipe(
    values: Mapping[str, Any],
    *,
    config: str | Path | None = None,
    source: str = COMMAND,
    verb: str = "",
    uses: Collection[str] | None = None,
    mistakes: Iterable[str] = (),
    is_own: bool = False,
) -> tuple[Recipe, list[str]]:
    """Read the recipe that a file and single values describe. The values override the file.

    Args:
        values: Knob -> value, as text or as a value of the knob's type.
        config: A YAML file, or the name of a shipped recipe.
        source: What messages call the source of `values`.
        verb: The verb that reads the recipe.
        uses: The knobs that the verb uses; None accepts all knobs. Any other knob in `values` is a
            mistake, because it would have no effect. For train and pretrain, that also holds for
            knobs in the file.
        mistakes: Lines about other options of the verb, to be reported together with these.
        is_own: Whether the file is the recipe of the run that is continued.

    Returns:
        The recipe, and lines to tell the user. The recipe's `model_fields_set` holds the knobs that
        the file, the values or MindCV's defaults set.

    Raises:
        RecipeError: There are mistakes. The message lists all of them.
    """
    found = [Mistake(source, line) for line in mistakes]
    path = find_recipe(config) if config else None
    origin = called(path) if path else ""
    in_file = _resolve(read_yaml(path), origin, found) if path else {}
    given = in_file | _resolve([(key, value, 0) for key, value in values.items()], source, found)
    is_of_a_run = SET in given
    moved = _found_data(given, in_file, path) if path and is_of_a_run else []
    unset = _not_set(given, origin, found)
    if uses is not None:
        reads_file = verb in ("train", "pretrain") and not is_own
        asked = {
            name: item
            for name, item in given.items()
            if (item.source == source or reads_file) and name not in unset
        }
        found += _unused(asked, verb, uses)

    foreign = [item.key for item in in_file.values() if item.key in keys.KEYS]
    ours = habits.translate(given, foreign, origin, source, found)
    given = ours.given
    recipe = _build(given, ours.settings, source, found)
    if recipe is None or found:
        raise RecipeError(report(sorted(found, key=lambda mistake: mistake.source != origin)))
    if unset:
        names = recipe.model_fields_set - unset
        recipe = Recipe.model_construct(_fields_set=names, **dict(recipe))

    # The idle knobs of a run's own recipe were reported when the run started.
    new = {
        name: item for name, item in given.items() if not (is_of_a_run and item.source == origin)
    }
    idle = ours.idle + _idle_knobs(recipe, new, even_defaults=ours.has_mindcv_defaults)
    notes = _notes(recipe, given, verb if uses is not None else "")
    return recipe, ours.notes + moved + notes + _idle_notes(idle)


def _found_data(given: dict[str, Given], in_file: Mapping[str, Given], path: Path) -> list[str]:
    """Find the data of a run that was started in another folder, which its paths are relative to.

    Args:
        given: All knobs that were given. The paths in it are replaced.
        in_file: Those in the recipe of the run.
        path: The recipe, in the folder of the run.

    Returns:
        A line for each path that was found.
    """
    out = in_file.get("out")
    began = began_in(path.parent, str(out.value)) if out else None
    lines = []
    for name in ("data_dir", "probe_dir", "classes", "images_dir"):
        item = in_file.get(name)
        if began is None or item is None or given[name] is not item or is_empty(item.value):
            continue
        place = began / str(item.value)
        if not os.path.exists(str(item.value)) and os.path.exists(place):
            given[name] = item._replace(value=str(place))
            lines.append(f"{name}: {item.value} is {place}, relative to where the run was started.")
    return lines


def _build(
    given: Mapping[str, Given], settings: dict[str, Any], source: str, found: list[Mistake]
) -> Recipe | None:
    """Make a recipe from `settings` and the values that were given, which override them.

    If single knobs are wrong, the pairs of knobs that do not involve them are still checked.

    Returns:
        The recipe, or None if there are mistakes in it.
    """
    wrong = set()
    for name, item in given.items():
        try:
            settings[name] = read_value(name, keys.to_ours(item.key, item.value))
        except ValueError:
            wrong.add(name)
            found.append(Mistake(item.source, wrong_value(name, item)))
    try:
        return Recipe(**{name: value for name, value in settings.items() if name not in wrong})
    except ValidationError as error:
        pairs = [detail["ctx"]["error"] for detail in error.errors()]
        for line in (line for pair in pairs for line in pair.mistakes):
            name = line.split()[0].rstrip(":")
            if not wrong & set(re.findall(r"\w+", line)):
                found.append(Mistake(given[name].source if name in given else source, line))
        if not found:
            raise
        return None


def _notes(recipe: Recipe, given: Mapping[str, Given], verb: str) -> list[str]:
    """Explain the values whose effect is not obvious: "auto", and a loss with mixed images.

    Args:
        recipe: The recipe.
        given: The knobs that were given.
        verb: The verb that reads the recipe; "" if there is none.
    """
    notes = _auto_notes(recipe, given) + _batch_notes(recipe, verb)
    if recipe.loss == "asl_single_label" and recipe.mixup + recipe.cutmix > 0:
        notes.append(
            "loss asl_single_label: a mixed image counts for the class of its larger part."
        )
    return notes


def _auto_notes(recipe: Recipe, given: Mapping[str, Given]) -> list[str]:
    """Say what "auto" means if one of MindCV's values was read as "auto"."""
    return [
        f"{item.key} {item.value}: {keys.AUTO[item.key]}."
        for name, item in given.items()
        if getattr(recipe, name) == "auto" and item.key in keys.AUTO
    ]


def _batch_notes(recipe: Recipe, verb: str) -> list[str]:
    """Say what batch_size auto means for a verb that does not search for it."""
    looks = verb in ("", "train", "pretrain", "plan")
    if looks or recipe.batch_size != "auto":
        return []
    return ["batch_size auto: the default is used, because only training searches for what fits."]


def _idle_knobs(recipe: Recipe, given: Mapping[str, Given], *, even_defaults: bool) -> list[Idle]:
    """Find the knobs that were given and have no effect under the other values of the recipe.

    Args:
        recipe: The recipe.
        given: The knobs that were given.
        even_defaults: Whether to include knobs with their default value, because every line of a
            MindCV recipe gets an answer.
    """
    return [
        Idle(item.key, why)
        for name, item in given.items()
        if even_defaults or getattr(recipe, name) != default_of(name)
        for is_idle, why in idle_of(name)
        if is_idle(recipe)
    ]


def _idle_notes(idle: list[Idle]) -> list[str]:
    """Write one line that lists everything without effect, grouped by reason."""
    if not idle:
        return []
    by_reason = {why: ", ".join(key for key, reason in idle if reason == why) for _, why in idle}
    which = "; ".join(f"{names} ({why})" for why, names in by_reason.items())
    return [f"No effect here: {which}."]


def _not_set(given: dict[str, Given], origin: str, mistakes: list[Mistake]) -> set[str]:
    """Remove from `given` the list of the knobs that the user set.

    Returns:
        The knobs of that file that the user did not set.
    """
    listed = given.pop(SET, None)
    if listed is None:
        return set()
    names = set(map(str, listed.value)) if isinstance(listed.value, list) else set()
    if not isinstance(listed.value, list) or names - Recipe.model_fields.keys():
        line = (
            f"{SET} = {show(listed.value)}: expected a list of knobs, as a run writes it. Remove "
            "it."
        )
        mistakes.append(Mistake(listed.source, line))
    return {name for name, item in given.items() if item.source == origin and name not in names}


def _resolve(
    items: Iterable[tuple[str, Any, int]], source: str, mistakes: list[Mistake]
) -> dict[str, Given]:
    """Translate keys to our names. Unknown keys and keys given twice are mistakes.

    Args:
        items: Key, value and line number of each entry. The number is 0 if there is none.
        source: The source of the entries.
        mistakes: A line is appended to it for each mistake.
    """
    given: dict[str, Given] = {}
    lines: dict[str, int] = {}
    for spelled, value, line in items:
        key = spelled.replace("-", "_")
        name = keys.RENAMED.get(key, key)
        in_file = bool(line)
        is_ours = name in Recipe.model_fields or name == META or (name == SET and in_file)
        if not (is_ours or name in keys.KEYS) or (name == "config" and not in_file):
            known = [*Recipe.model_fields, META]
            near = did_you_mean(_SYNONYMS.get(key, key), known) or did_you_mean(
                key, keys.KEYS - {key}
            )
            mistakes.append(Mistake(source, f"{spelled} = {show(value)}: unknown key.{near}"))
        elif name in given:
            where = f" (line {lines[name]} and line {line})" if line else ""
            what = (
                "given twice"
                if given[name].key == key
                else f"another name for {given[name].key}, which is given too"
            )
            mistakes.append(Mistake(source, f"{spelled} = {show(value)}: {what}{where}. Keep one."))
        else:
            given[name], lines[name] = Given(key, value, source), line
    return given


def _unused(given: Mapping[str, Given], verb: str, uses: Collection[str]) -> list[Mistake]:
    """Find the knobs that were given but that a verb does not use."""
    mistakes = []
    for name, item in given.items():
        if name in uses or name == META or name not in Recipe.model_fields:
            continue
        owners = [
            owner for owner in ("train", "pretrain") if name in knobs_of(owner) and owner != verb
        ]
        remedy = (
            f" It belongs to {' and '.join(owners)}."
            if owners
            else f" See: convnextv2 {verb} --help"
        )
        line = f"{item.key} = {show(item.value)}: {verb} does not use it.{remedy}"
        mistakes.append(Mistake(item.source, line))
    return mistakes
