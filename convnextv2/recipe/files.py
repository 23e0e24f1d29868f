"""Recipe files: those of a user, those that come with the package, and those that a run writes."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from convnextv2.errors import RecipeError
from convnextv2.recipe.given import Mistake, report
from convnextv2.recipe.knobs import Recipe

SET = "set"
"""A key in the recipe.yaml of a run. It lists the knobs that were set; the others are defaults."""

_PACKAGE = Path(__file__).resolve().parents[1]

RUN_RECIPE = "recipe.yaml"
"""The name of the recipe in every run folder."""

_EMPTY = (
    "is empty. Expected every knob, as a run writes them. Copy the file from a backup, or copy "
    "last/ out of the run and use its weights."
)
_MAX_VALUES = 1_000_000
_TOO_MANY = f"it holds more than {_MAX_VALUES:,} values"

# The classes written in C are ten times as fast, and every wheel of PyYAML has them.
_Loader: Any = type("_Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _number(loader: Any, node: yaml.ScalarNode) -> Any:
    """Construct a number. 010 and 1:30 stay text, which knobs read as on the command line.

    YAML 1.1 would read them as 8 (octal) and as 90 (in base 60).
    """
    if ":" in node.value or re.fullmatch(r"[-+]?0[0-7_]+", node.value):
        return node.value
    is_whole = node.tag.endswith(":int")
    return (loader.construct_yaml_int if is_whole else loader.construct_yaml_float)(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number)


def called(path: Path) -> str:
    """Return the name of a recipe for messages: its file name, or the path for that of a run."""
    return str(path) if path.name == RUN_RECIPE else path.name


def read_yaml(path: Path) -> list[tuple[str, Any, int]]:
    """Read every entry of a YAML file, including keys that are repeated.

    Returns:
        The key, the value and the line number of each entry.

    Raises:
        RecipeError: The file cannot be read, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
        except yaml.MarkedYAMLError:  # the loader in Python gives better messages
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
        if node is None or (isinstance(node, yaml.ScalarNode) and node.value == ""):
            if path.name != RUN_RECIPE:
                return []
            found = _EMPTY
        elif isinstance(node, yaml.MappingNode):
            _check_nodes(node)
            entries = [
                (
                    loader.construct_object(key, deep=True),
                    _construct(loader, value),
                    key.start_mark.line + 1,
                )
                for key, value in node.value
            ]
            return [(str(key), value, line) for key, value, line in entries]
        else:
            what = "a list" if isinstance(node, yaml.SequenceNode) else "something else"
            found = (
                f"line {node.start_mark.line + 1}: expected lines of the form 'key: value', found "
                f"{what}."
            )
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        found = f"line {line}: {_reason(error)}."
    except UnicodeDecodeError as error:
        found = (
            f"cannot be read as YAML: byte {error.start + 1} is not UTF-8. Save the file as text "
            "in UTF-8."
        )
    except RecursionError:
        found = (
            "cannot be read as YAML: lists or mappings are nested too deeply. Write each "
            "knob on its own line."
        )
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no such date
        found = f"cannot be read as YAML: {' '.join(str(error).split())}."
    raise RecipeError(report([Mistake(called(path), found)]))


def _reason(error: yaml.MarkedYAMLError) -> str:
    """Return why a file cannot be read, with a remedy where PyYAML's words need one."""
    problem = str(error.problem or error.context)
    if problem.startswith("found character '\\t'"):
        return "the line begins with a tab. Indent with spaces"
    if problem == "but found another document":
        return "a second document begins here. Keep one in the file"
    if "for the tag" in problem:
        if problem.endswith(":merge'"):
            return "a merge key (<<) cannot stand among the knobs. Write each knob on its own line"
        return f"{problem.partition('for the ')[2]} is not allowed. Write a plain value"
    return f"this is not valid YAML: {problem}"


def _construct(loader: Any, node: yaml.Node) -> Any:
    """Construct a value. The keys of a mapping are names of classes, so they stay as written.

    Raises:
        ValueError: A key is given twice, or is not text.
    """
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    merges = any(key.tag.endswith(":merge") for key, _ in node.value)
    if merges:
        loader.flatten_mapping(node)  # merged entries come first, and later ones override them
    found: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError(f"line {line}: expected a name with a number such as cat: 2")
        if key.value in found and not merges:
            raise ValueError(f"line {line}: {key.value} is given twice")
        found[key.value] = loader.construct_object(value, deep=True)
    return found


def _check_nodes(root: yaml.Node) -> None:
    """Check that a document holds no more than `_MAX_VALUES` values, before any is constructed.

    YAML's aliases and merge keys let a few lines stand for more values than memory holds.

    Raises:
        ValueError: It holds more.
    """
    counts: dict[yaml.Node, int] = {}

    def count(node: yaml.Node) -> int:
        if node not in counts:
            counts[node] = 1  # ends cycles, which the constructor refuses
            parts: Iterable[yaml.Node] = ()
            if isinstance(node, yaml.MappingNode):
                parts = itertools.chain.from_iterable(node.value)
            elif isinstance(node, yaml.SequenceNode):
                parts = node.value
            counts[node] = 1 + sum(map(count, parts))
        return counts[node]

    if count(root) > _MAX_VALUES:
        raise ValueError(_TOO_MANY)


def check_size(values: Iterable[Any]) -> None:
    """Check that what was read from YAML holds no more than `_MAX_VALUES` values.

    YAML's aliases let a few lines stand for more values than memory holds.

    Raises:
        ValueError: It holds more.
    """
    rest, count = list(values), 0
    while rest:
        value = rest.pop()
        count += 1
        if isinstance(value, dict):
            rest += [*value, *value.values()]
        elif isinstance(value, list | tuple | set):
            rest += value
        if count + len(rest) > _MAX_VALUES:
            raise ValueError(_TOO_MANY)


def _shipped() -> Path:
    """Return the folder of the shipped recipes.

    It is inside the package if that is installed, and beside the package in a checkout.
    """
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def began_in(run: Path, out: str) -> Path | None:
    """Return the folder in which a run was started; None if it cannot be inferred.

    Args:
        run: The run folder.
        out: The knob `out` in its recipe.
    """
    place, named = run.resolve(), Path(os.path.normpath(out))
    if named.is_absolute():
        return None
    if named.resolve() == place:
        return Path.cwd()
    is_there = place.parts[-len(named.parts) :] == named.parts
    return place.parents[len(named.parts) - 1] if is_there else None


def find_recipe(name: str | Path) -> Path:
    """Find the file of a recipe.

    Args:
        name: A path, or the name of a shipped recipe, with or without its folder and ".yaml".

    Raises:
        RecipeError: There is no such recipe. The message names the nearest ones.
    """
    if os.path.isfile(name):  # False also for a name that no file can have
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
    of_a_run = os.path.join(name, RUN_RECIPE)
    if os.path.isfile(of_a_run):
        raise RecipeError(f"config = {name}: a run folder. Did you mean {of_a_run}?")
    near = matches or get_close_matches(wanted, names, n=3, cutoff=0.4)
    found = "a folder" if os.path.isdir(name) else "neither a file nor a recipe of this package"
    remedy = (
        f"Did you mean {' or '.join(near)}?"
        if near
        else f"Shipped recipes: {', '.join(names) or 'none'}."
    )
    raise RecipeError(f"config = {name}: {found}. {remedy}")


def list_recipes() -> list[tuple[str, str]]:
    """List the name and the first comment line of every shipped recipe, sorted by name."""
    recipes = []
    for path in sorted(_shipped().rglob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        name = path.relative_to(_shipped()).with_suffix("").as_posix()
        recipes.append((name, first.lstrip("# ") if first.startswith("#") else ""))
    return recipes


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as YAML: every knob in the order of declaration, and the names of those set.

    `read_recipe` turns the text into an equal recipe with the same `model_fields_set`.
    """
    settings = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in recipe.model_dump().items()
    }
    settings[SET] = sorted(recipe.model_fields_set)
    text: str = yaml.dump(
        settings,
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=10_000,
    )
    return text
