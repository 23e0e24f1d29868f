"""Recipes from a YAML file, a command line or a Python call, through the same checks; all mistakes are reported together.

Precedence: default < YAML < values (command line or Python). Keys may be written with - or _, and by MindCV's names.
Values are read by the knob's declared type (`recipe.values`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import ValidationError

from convnextv2.errors import RecipeError
from convnextv2.recipe import mindcv
from convnextv2.recipe.knobs import Recipe, idle_of, knobs_of
from convnextv2.recipe.values import convert, expected, is_empty, read_value, show

_META = "defaults"  # a key beside the knobs: whose defaults hold for what is left out
_COMMAND = "this command"
_SET = "set"  # a key of a run's recipe.yaml: the knobs that somebody set; the others are defaults
_PACKAGE = Path(__file__).resolve().parents[1]


_SYNONYMS = {
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "img_size": "image_size",
    "input_size": "image_size",
    "output_dir": "out",
}
"""Other tools' names that are too unlike ours to be found by their letters."""


class _Given(NamedTuple):
    """A knob that was given: how its name was spelled, its value as it stood, and where it stood."""

    key: str
    value: Any
    source: str


class _Mistake(NamedTuple):
    source: str
    line: str


def read_recipe(
    values: Mapping[str, Any],
    *,
    config: str | Path | None = None,
    source: str = _COMMAND,
    verb: str = "",
    uses: Collection[str] | None = None,
    mistakes: Iterable[str] = (),
    is_own: bool = False,
) -> tuple[Recipe, list[str]]:
    """Read the recipe that a file and, above it, single values describe.

    Args:
        values: Knob -> value, as text or of its type.
        config: A YAML file, or the name of a shipped recipe.
        source: What messages call `values`.
        verb: Who asks.
        uses: The knobs that the verb uses; None: it does not matter. Another one in `values`, and
            for train and pretrain also in the file, is a mistake, since it would do nothing.
        mistakes: Lines about other options of the verb, to be reported together with these.
        is_own: Whether the file is that of the run which goes on.

    Returns:
        The recipe, and what the user should be told, one line each. Its `model_fields_set` has the
        knobs that the file, the values, or MindCV's defaults set.

    Raises:
        RecipeError: The message lists every mistake of both.
    """
    found = [_Mistake(source, line) for line in mistakes]
    given: dict[str, _Given] = {}
    foreign: list[str] = []
    origin = ""
    if config:
        path = find_recipe(config)
        origin = path.name
        given = _resolve(_read_yaml(path), origin, found)
        foreign = [item.key for item in given.values() if item.key in mindcv.KEYS]
    given |= _resolve([(key, value, 0) for key, value in values.items()], source, found)
    is_of_a_run = _SET in given  # and told what has no effect when it began
    unset = _not_set(given, origin, found)
    if uses is not None:
        in_file = verb in ("train", "pretrain") and not is_own
        sources = (source, origin) if in_file else (source,)
        asked = {
            name: item
            for name, item in given.items()
            if item.source in sources and name not in unset
        }
        found += _unused(asked, verb, uses)
    notes: list[str] = []
    idle: list[tuple[str, str]] = []  # key, why
    like_mindcv = _wants_mindcv(given.pop(_META, None), bool(foreign), found)
    implied = _implied(given, like_mindcv, origin, idle, found)
    given = _without_mindcv_only(given, found, idle)

    defaults = _defaults(given, origin, idle) if like_mindcv else {}
    settings = defaults | implied
    wrong = set()
    for name, item in given.items():
        try:
            settings[name] = read_value(name, mindcv.to_ours(item.key, item.value))
        except ValueError:
            wrong.add(name)
            found.append(_Mistake(item.source, _wrong_value(name, item)))
            continue
        if settings.get(name) == "auto" and item.key in mindcv.AUTO:
            notes.append(f"{item.key} {item.value}: {mindcv.AUTO[item.key]}.")
    if like_mindcv:
        why = f"{foreign[0]} is MindCV's key" if foreign else "defaults = mindcv"
        for name in sorted(mindcv.REQUIRED.keys() - given.keys()):
            what = (
                f"not given, and MindCV's default, {mindcv.REQUIRED[name]}, is not offered ({why})"
            )
            found.append(
                _Mistake(origin or source, f"{name}: {what}. Set {name}, or {_META}: convnextv2.")
            )
    # Pairs are checked even where single knobs are wrong, as far as they do not involve those.
    try:
        recipe = Recipe(**{name: value for name, value in settings.items() if name not in wrong})
    except ValidationError as error:
        for line in "\n".join(
            str(detail["ctx"]["error"]) for detail in error.errors()
        ).splitlines():
            name = line.split()[0].rstrip(":")
            if not wrong & set(re.findall(r"\w+", line)):
                found.append(_Mistake(given[name].source if name in given else source, line))
        if not found:
            raise
    if found:
        raise RecipeError(_report(sorted(found, key=lambda mistake: mistake.source != origin)))

    if unset:
        names = recipe.model_fields_set - unset
        recipe = Recipe.model_construct(_fields_set=names, **dict(recipe))
    if like_mindcv:
        notes.insert(0, _mindcv_defaults(origin, foreign, given, defaults))
    for name, item in given.items():
        # At its default a knob says nothing, but each line of a MindCV recipe is answered for.
        is_told = is_of_a_run and item.source == origin
        if not is_told and (like_mindcv or getattr(recipe, name) != _default(name)):
            idle += [(item.key, why) for is_idle, why in idle_of(name) if is_idle(recipe)]
    if (
        verb
        and uses is not None
        and verb not in ("train", "pretrain", "plan")
        and recipe.batch_size == "auto"
    ):
        notes.append("batch_size auto: the default here, since only training looks for what fits.")
    if recipe.loss == "asl_single_label" and recipe.mixup + recipe.cutmix > 0:
        notes.append(
            "loss asl_single_label: a mixed image counts for the class of its larger part."
        )
    if idle:
        keys = {why: ", ".join(key for key, reason in idle if reason == why) for _, why in idle}
        notes.append(
            f"No effect here: {'; '.join(f'{which} ({why})' for why, which in keys.items())}."
        )
    return recipe, notes


def _not_set(given: dict[str, _Given], origin: str, mistakes: list[_Mistake]) -> set[str]:
    """Take the list of what somebody set from `given`, and return the knobs of that file that nobody set."""
    listed = given.pop(_SET, None)
    if listed is None:
        return set()
    names = set(map(str, listed.value)) if isinstance(listed.value, list) else set()
    if not isinstance(listed.value, list) or names - Recipe.model_fields.keys():
        line = f"{_SET} = {show(listed.value)}: expected a list of knobs, as a run writes it. Remove it."
        mistakes.append(_Mistake(listed.source, line))
    return {name for name, item in given.items() if item.source == origin and name not in names}


def _resolve(
    items: Iterable[tuple[str, Any, int]], source: str, mistakes: list[_Mistake]
) -> dict[str, _Given]:
    """Keys by our names. items: key, value and line number (0: has none). Unknown keys and keys given twice are mistakes."""
    given: dict[str, _Given] = {}
    lines: dict[str, int] = {}
    for spelled, value, line in items:
        key = spelled.replace("-", "_")
        name = mindcv.RENAMED.get(key, key)
        in_file = bool(line)
        is_ours = name in Recipe.model_fields or name == _META or (name == _SET and in_file)
        if not (is_ours or name in mindcv.KEYS) or (name == "config" and not in_file):
            known = [*Recipe.model_fields, _META]
            near = _did_you_mean(_SYNONYMS.get(key, key), known) or _did_you_mean(
                key, mindcv.KEYS - {key}
            )
            mistakes.append(_Mistake(source, f"{spelled} = {show(value)}: unknown key.{near}"))
        elif name in given:
            where = f" (line {lines[name]} and line {line})" if line else ""
            what = (
                "given twice"
                if given[name].key == key
                else f"another name for {given[name].key}, which is given too"
            )
            mistakes.append(
                _Mistake(source, f"{spelled} = {show(value)}: {what}{where}. Keep one.")
            )
        else:
            given[name], lines[name] = _Given(key, value, source), line
    return given


def _unused(given: Mapping[str, _Given], verb: str, uses: Collection[str]) -> list[_Mistake]:
    """Knobs that were given and that a verb does not look at."""
    mistakes = []
    for name, item in given.items():
        if name in uses or name == _META or name not in Recipe.model_fields:
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
        mistakes.append(_Mistake(item.source, line))
    return mistakes


def _wants_mindcv(meta: _Given | None, has_foreign: bool, mistakes: list[_Mistake]) -> bool:
    if meta is None:
        return has_foreign
    if meta.value not in ("mindcv", "convnextv2"):
        mistakes.append(
            _Mistake(meta.source, f"{_META} = {show(meta.value)}: expected mindcv or convnextv2.")
        )
    return bool(meta.value == "mindcv")


def _without_mindcv_only(
    given: dict[str, _Given], mistakes: list[_Mistake], idle: list[tuple[str, str]]
) -> dict[str, _Given]:
    """`given` with clip_grad and clip_value made one knob, and without keys that only MindCV has."""
    clip = given.get("clip_norm")
    if clip and clip.key == "clip_grad":
        try:
            if convert(bool, clip.value):
                given["clip_norm"] = given.pop("clip_value", clip._replace(value=mindcv.CLIP_VALUE))
            else:
                given["clip_norm"] = clip._replace(value=None)
        except ValueError:
            line = (
                f"clip_grad = {show(clip.value)}: expected True or False. clip_value is the norm."
            )
            mistakes.append(_Mistake(clip.source, line))
            del given["clip_norm"]
    for name, item in given.items():
        if name in mindcv.ONLY and not mindcv.is_accepted(name, item.value):
            mistakes.append(
                _Mistake(item.source, f"{item.key} = {show(item.value)}: {mindcv.ONLY[name][1]}")
            )
        if name in mindcv.TYPES and not is_empty(item.value):
            kind, words = mindcv.TYPES[name]
            try:
                convert(kind, item.value)
            except ValueError:
                mistakes.append(
                    _Mistake(item.source, f"{item.key} = {show(item.value)}: expected {words}.")
                )
                continue
        if name in mindcv.NO_EFFECT:
            idle.append((item.key, mindcv.NO_EFFECT[name]))
    return {name: item for name, item in given.items() if name in Recipe.model_fields}


def _implied(
    given: dict[str, _Given],
    like_mindcv: bool,
    origin: str,
    idle: list[tuple[str, str]],
    mistakes: list[_Mistake],
) -> dict[str, Any]:
    """Knobs that follow from MindCV's keys and values beside the knob that the key stands for. Takes from `given` what they
    overrule."""
    implied: dict[str, Any] = {}
    for item in given.values():
        other = mindcv.IMPLIED.get((item.key, str(item.value).strip().lower()))
        if other and other[0] not in given:
            implied[other[0]] = other[1]
    nesterov, optimizer = given.get("nesterov"), given.get("optimizer")
    default = mindcv.DEFAULTS["optimizer"] if like_mindcv else _default("optimizer")
    rule = str(mindcv.to_ours(optimizer.key, optimizer.value) if optimizer else default).lower()
    if (
        nesterov and nesterov.key == "use_nesterov" and rule not in ("sgd", "adam")
    ):  # to MindCV's adam it means something
        idle.append((given.pop("nesterov").key, "only sgd has it"))
    init = given.get("init")
    if init and init.key == "ckpt_path" and str(init.value).endswith(".ckpt"):
        implied.setdefault("resume_init", True)
    pretrained = given.get("pretrained")
    if pretrained and str(pretrained.value).strip().lower() in ("true", "yes", "1"):
        if init and not is_empty(init.value):
            mistakes.append(
                _Mistake(
                    pretrained.source,
                    "pretrained = True: cannot go together with ckpt_path. Drop one of them.",
                )
            )
        else:
            given.pop("init", None)  # the empty ckpt_path that every YAML of MindCV has
        model = str(given["model"].value) if "model" in given else "convnextv2_atto"
        implied["init"] = f"facebook/{model.replace('_', '-')}-1k-224"
    if like_mindcv:
        is_rmsprop = "optimizer" in given and str(given["optimizer"].value).lower() == "rmsprop"
        if is_rmsprop:
            implied["eps"] = mindcv.RMSPROP_EPS
        elif "eps" in given and given["eps"].source == origin:
            idle.append((given.pop("eps").key, "in MindCV it reaches rmsprop only"))
    return implied


def _defaults(given: dict[str, _Given], origin: str, idle: list[tuple[str, str]]) -> dict[str, Any]:
    """MindCV's defaults, for its data set. Takes from `given` what MindCV does not look at there."""
    dataset = str(given["dataset"].value).strip().lower() if "dataset" in given else ""
    prepared = mindcv.PREPARED.get(dataset, {})
    own = dict.fromkeys([*prepared, "scale", "ratio"] if prepared else [])
    for name in own:
        if name != "in_channels" and name in given and given[name].source == origin:
            idle.append((given.pop(name).key, f"MindCV prepares {dataset} in a way of its own"))
    return mindcv.DEFAULTS | prepared


def _mindcv_defaults(
    origin: str, foreign: list[str], given: Mapping[str, _Given], defaults: Mapping[str, Any]
) -> str:
    left_out = {name: value for name, value in defaults.items() if name not in given}
    differing = {
        name: value for name, value in left_out.items() if value != read_value(name, _default(name))
    }
    keys = ", ".join(foreign[:3]) + ", ..." * (len(foreign) > 3)
    who = f"{origin} has MindCV's keys ({keys})" if foreign else "MindCV's defaults"
    settings = ", ".join(f"{name} {show(value)}" for name, value in differing.items())
    return f"{who}: what is left out is as in MindCV: {settings}. With {_META}: convnextv2 it is as elsewhere here."


def _wrong_value(name: str, item: _Given) -> str:
    field = Recipe.model_fields[name]
    options = [*mindcv.VALUES.get(item.key, ())] if item.key != name else []
    wanted = f"one of {', '.join(options)}" if options else expected(name)
    kinds = (field.annotation, *get_args(field.annotation))
    remedy = _did_you_mean(
        str(item.value), options or [str(option) for kind in kinds for option in get_args(kind)]
    )
    if str in kinds and isinstance(item.value, int | float):
        remedy = f" Put it in quotes: {str(item.value)!r}."
    if not remedy and not wanted.startswith("one of"):
        remedy = f" {field.description}"
    return f"{item.key} = {show(item.value)}: expected {wanted}.{remedy}"


def _default(name: str) -> Any:
    return Recipe.model_fields[name].default


def _did_you_mean(word: str, names: Iterable[str]) -> str:
    near = get_close_matches(word, list(names), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def _report(mistakes: list[_Mistake]) -> str:
    """All mistakes, each source with a header of its own; a single one of the command is one line."""
    if len(mistakes) == 1 and mistakes[0].source == _COMMAND:
        return mistakes[0].line
    lines = []
    for source in dict.fromkeys(mistake.source for mistake in mistakes):
        mine = [mistake.line for mistake in mistakes if mistake.source == source]
        lines += [
            f"{source} has {len(mine)} error{'s' * (len(mine) != 1)}:",
            *(f"  {line}" for line in mine),
        ]
    return "\n".join(lines)


# --- files -------------------------------------------------------------------------------------------------------------------


def _read_yaml(path: Path) -> list[tuple[str, Any, int]]:
    """Key, value and line number of every entry, repeated keys included. Empty: no entries. RecipeError if it is no mapping."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None or (isinstance(node, yaml.ScalarNode) and node.value == ""):
            return []
        if isinstance(node, yaml.MappingNode):
            return [
                (
                    str(loader.construct_object(key, deep=True)),
                    loader.construct_object(value, deep=True),
                    key.start_mark.line + 1,
                )
                for key, value in node.value
            ]
        what = "a list" if isinstance(node, yaml.SequenceNode) else "something else"
        found = f"line {node.start_mark.line + 1}: expected lines of the form 'key: value', found {what}."
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        found = f"line {line}: this is no YAML: {error.problem or error.context}."
    except (
        OSError,
        ValueError,
        yaml.YAMLError,
    ) as error:  # ValueError: bytes that are no text, or a date that does not exist
        found = f"cannot be read as YAML: {' '.join(str(error).split())}."
    raise RecipeError(_report([_Mistake(path.name, found)]))


def _shipped() -> Path:
    """The folder with the recipes that come with the package: inside an installed package, or beside it in a checkout."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe. name: a path, or the name of a shipped recipe, with or without its folder and '.yaml'.

    RecipeError if there is none; it names the nearest ones.
    """
    if Path(name).is_file():
        return Path(name)
    wanted = re.sub(r"\.ya?ml$", "", Path(name).as_posix()).removeprefix("configs/")
    names = [shipped for shipped, _ in list_recipes()]
    matches = (
        [wanted]
        if wanted in names
        else [shipped for shipped in names if Path(shipped).name == wanted]
    )
    if len(matches) == 1:
        return _shipped() / f"{matches[0]}.yaml"
    near = matches or get_close_matches(wanted, names, n=3, cutoff=0.4)
    found = "a folder" if Path(name).is_dir() else "neither a file nor a recipe of this package"
    remedy = (
        f"Did you mean {' or '.join(near)}?"
        if near
        else f"Shipped recipes: {', '.join(names) or 'none'}."
    )
    raise RecipeError(f"config = {name}: {found}. {remedy}")


def list_recipes() -> list[tuple[str, str]]:
    """Name and first comment line of every shipped recipe, sorted by name."""
    recipes = []
    for path in sorted(_shipped().rglob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        name = path.relative_to(_shipped()).with_suffix("").as_posix()
        recipes.append((name, first.lstrip("# ") if first.startswith("#") else ""))
    return recipes


def dump_recipe(recipe: Recipe) -> str:
    """YAML text of every knob, in the order of their declaration, and of the names of those that somebody set.

    `read_recipe` makes an equal recipe of it, with the same `model_fields_set`."""
    settings = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in recipe.model_dump().items()
    }
    settings[_SET] = sorted(recipe.model_fields_set)
    text: str = yaml.safe_dump(
        settings, sort_keys=False, default_flow_style=None, allow_unicode=True, width=10_000
    )
    return text
