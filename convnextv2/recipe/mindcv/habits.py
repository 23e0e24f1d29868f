"""Settings that MindCV's recipes imply: its defaults, and keys that set more than one knob."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from convnextv2.recipe.given import Given, Idle, Mistake
from convnextv2.recipe.knobs import Recipe, default_of
from convnextv2.recipe.mindcv import keys
from convnextv2.recipe.values import convert, is_empty, read_value, show

META = "defaults"
"""A key that is not a knob. It says whose defaults apply to knobs that are left out."""


class Translated(NamedTuple):
    """The settings that a user gave, under our names only.

    Attributes:
        given: Knob -> what was given for it.
        settings: Knob -> value, for values that MindCV's keys and defaults imply. Those in `given`
            override them.
        has_mindcv_defaults: Whether MindCV's defaults apply to knobs that are left out.
        idle: The keys that have no effect here.
        notes: Lines to tell the user.
    """

    given: dict[str, Given]
    settings: dict[str, Any]
    has_mindcv_defaults: bool
    idle: list[Idle]
    notes: list[str]


def translate(
    given: dict[str, Given], foreign: list[str], origin: str, source: str, mistakes: list[Mistake]
) -> Translated:
    """Replace MindCV's keys by our knobs, and find the values that they and its defaults imply.

    Args:
        given: The settings under our names, or under MindCV's if there is no such knob. Keys are
            removed from it.
        foreign: The keys in the file that only MindCV has.
        origin: The name of the file; "" without a file.
        source: What messages call the source of single values.
        mistakes: A line is appended to it for each mistake.
    """
    idle: list[Idle] = []
    like_mindcv = wants_mindcv(given.pop(META, None), bool(foreign), mistakes)
    settings = implied(given, like_mindcv, origin, idle, mistakes)
    given = without_foreign(given, mistakes, idle)
    if not like_mindcv:
        return Translated(given, settings, False, idle, [])
    defaults = defaults_for(given, origin, idle)
    why = f"{foreign[0]} is MindCV's key" if foreign else f"{META} = mindcv"
    mistakes += _missing(given, origin or source, why)
    note = defaults_line(origin, foreign, given, defaults)
    return Translated(given, defaults | settings, True, idle, [note])


def _missing(given: Mapping[str, Given], source: str, why: str) -> list[Mistake]:
    """Find missing knobs that must be given because MindCV's default is not available here."""
    mistakes = []
    for name in sorted(keys.REQUIRED.keys() - given.keys()):
        what = f"not given, and MindCV's default, {keys.REQUIRED[name]}, is not offered ({why})"
        mistakes.append(Mistake(source, f"{name}: {what}. Set {name}, or {META}: convnextv2."))
    return mistakes


def wants_mindcv(meta: Given | None, has_foreign: bool, mistakes: list[Mistake]) -> bool:
    """Return whether MindCV's defaults apply to knobs that are left out.

    Args:
        meta: The key `defaults`, if it was given.
        has_foreign: Whether the file has keys that only MindCV has.
        mistakes: A line is appended to it if `defaults` is neither mindcv nor convnextv2.
    """
    if meta is None:
        return has_foreign
    if meta.value not in ("mindcv", "convnextv2"):
        mistakes.append(
            Mistake(meta.source, f"{META} = {show(meta.value)}: expected mindcv or convnextv2.")
        )
    return bool(meta.value == "mindcv")


def without_foreign(
    given: dict[str, Given], mistakes: list[Mistake], idle: list[Idle]
) -> dict[str, Given]:
    """Join clip_grad and clip_value into one knob, and remove the keys that only MindCV has.

    Args:
        given: The settings under our names, or under MindCV's if there is no such knob.
        mistakes: A line is appended to it for each value that MindCV would not accept or that
            cannot be honoured here.
        idle: The keys that have no effect here are appended to it.
    """
    clip = given.get("clip_norm")
    if clip and clip.key == "clip_grad":
        try:
            if convert(bool, clip.value):
                given["clip_norm"] = given.pop("clip_value", clip._replace(value=keys.CLIP_VALUE))
            else:
                given["clip_norm"] = clip._replace(value=None)
        except ValueError:
            line = (
                f"clip_grad = {show(clip.value)}: expected True or False. clip_value is the norm."
            )
            mistakes.append(Mistake(clip.source, line))
            del given["clip_norm"]
    for name, item in given.items():
        if name in keys.ONLY and not keys.is_accepted(name, item.value):
            mistakes.append(
                Mistake(item.source, f"{item.key} = {show(item.value)}: {keys.ONLY[name][1]}")
            )
        if name in keys.TYPES and not is_empty(item.value):
            kind, words = keys.TYPES[name]
            try:
                convert(kind, item.value)
            except ValueError:
                mistakes.append(
                    Mistake(item.source, f"{item.key} = {show(item.value)}: expected {words}.")
                )
                continue
        if name in keys.NO_EFFECT:
            idle.append(Idle(item.key, keys.NO_EFFECT[name]))
    return {name: item for name, item in given.items() if name in Recipe.model_fields}


def implied(
    given: dict[str, Given],
    like_mindcv: bool,
    origin: str,
    idle: list[Idle],
    mistakes: list[Mistake],
) -> dict[str, Any]:
    """Find the further knobs that MindCV's keys set, beside the knob that each key stands for.

    Args:
        given: The settings. Those that MindCV would override are removed.
        like_mindcv: Whether MindCV's defaults apply.
        origin: The name of the file.
        idle: The keys that have no effect here are appended to it.
        mistakes: A line is appended to it for each contradiction.

    Returns:
        Knob -> value.
    """
    found: dict[str, Any] = {}
    for item in given.values():
        other = keys.IMPLIED.get((item.key, str(item.value).strip().lower()))
        if other and other[0] not in given:
            found[other[0]] = other[1]
    _drop_idle_nesterov(given, like_mindcv, idle)
    found |= _initial_weights(given, mistakes, found)
    if like_mindcv:
        rule = str(given["optimizer"].value).lower() if "optimizer" in given else ""
        if rule == "rmsprop":
            found["eps"] = keys.RMSPROP_EPS
        elif "eps" in given and given["eps"].source == origin:
            idle.append(Idle(given.pop("eps").key, "MindCV passes it to rmsprop only"))
    return found


def _drop_idle_nesterov(given: dict[str, Given], like_mindcv: bool, idle: list[Idle]) -> None:
    """Remove use_nesterov if MindCV would ignore it: only sgd and adam use it."""
    nesterov, optimizer = given.get("nesterov"), given.get("optimizer")
    default = keys.DEFAULTS["optimizer"] if like_mindcv else default_of("optimizer")
    rule = str(keys.to_ours(optimizer.key, optimizer.value) if optimizer else default).lower()
    if nesterov and nesterov.key == "use_nesterov" and rule not in ("sgd", "adam"):
        idle.append(Idle(given.pop("nesterov").key, "only sgd has it"))


def _initial_weights(
    given: dict[str, Given], mistakes: list[Mistake], found: dict[str, Any]
) -> dict[str, Any]:
    """Find what `ckpt_path` and `pretrained` mean for `init` and `resume_init`."""
    more: dict[str, Any] = {}
    init = given.get("init")
    if init and init.key == "ckpt_path" and str(init.value).endswith(".ckpt"):
        more["resume_init"] = found.get("resume_init", True)
    pretrained = given.get("pretrained")
    if pretrained and str(pretrained.value).strip().lower() in ("true", "yes", "1"):
        if init and not is_empty(init.value):
            mistakes.append(
                Mistake(
                    pretrained.source,
                    "pretrained = True: cannot be combined with ckpt_path. Drop one of them.",
                )
            )
        else:
            given.pop("init", None)  # the empty ckpt_path that every YAML of MindCV has
        model = str(given["model"].value) if "model" in given else "convnextv2_atto"
        more["init"] = f"facebook/{model.replace('_', '-')}-1k-224"
    return more


def defaults_for(given: dict[str, Given], origin: str, idle: list[Idle]) -> dict[str, Any]:
    """Return MindCV's defaults for the data set that is given.

    Args:
        given: The settings. Those that MindCV ignores for that data set are removed.
        origin: The name of the file.
        idle: The keys that have no effect here are appended to it.

    Returns:
        Knob -> default.
    """
    dataset = str(given["dataset"].value).strip().lower() if "dataset" in given else ""
    prepared = keys.PREPARED.get(dataset, {})
    own = dict.fromkeys([*prepared, "scale", "ratio"] if prepared else [])
    for name in own:
        if name != "in_channels" and name in given and given[name].source == origin:
            idle.append(
                Idle(given.pop(name).key, f"MindCV has its own preprocessing for {dataset}")
            )
    return keys.DEFAULTS | prepared


def defaults_line(
    origin: str, foreign: list[str], given: Mapping[str, Given], defaults: Mapping[str, Any]
) -> str:
    """Name MindCV's defaults that apply and differ from ours."""
    left_out = {name: value for name, value in defaults.items() if name not in given}
    differing = {
        name: value
        for name, value in left_out.items()
        if value != read_value(name, default_of(name))
    }
    keys = ", ".join(foreign[:3]) + ", ..." * (len(foreign) > 3)
    who = f"{origin} has MindCV's keys ({keys})" if foreign else f"{META} = mindcv"
    settings = ", ".join(f"{name} {show(value)}" for name, value in differing.items())
    return (
        f"{who}: MindCV's defaults apply to what is left out: {settings}. Set {META}: convnextv2 "
        "to use those of this package."
    )
