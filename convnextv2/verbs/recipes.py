"""List, copy and describe recipes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from convnextv2.console import print_json
from convnextv2.errors import RecipeError
from convnextv2.recipe.files import find_recipe, list_recipes
from convnextv2.recipe.options import takes
from convnextv2.recipe.schema import json_schema
from convnextv2.verbs.options.learning import RecipesOptions


@takes(RecipesOptions)
def recipes(options: RecipesOptions) -> list[tuple[str, str]]:
    """Print the recipes that come with the package, each with its first line.

    Returns:
        The same as a list of (name, first line).

    Raises:
        RecipeError: There is no recipe with the name to copy, or the working folder already has a
            file with that name.
    """
    found = list_recipes()
    if options.schema and options.json:
        print_json(json_schema())
    elif options.schema:
        print(json.dumps(json_schema(), indent=2))
    elif options.copy:
        _copy(options.copy)
    else:
        width = max(len(name) for name, _ in found) + 2
        for name, summary in found:
            print(f"{name:<{width}}{summary}")
    if not options.schema:
        print_json([{"name": name, "summary": summary} for name, summary in found])
    return found


def _copy(name: str) -> None:
    source = find_recipe(name)
    target = Path(source.name)
    if target.exists():
        raise RecipeError(f"copy = {name}: {target} exists in this folder. Move it away first.")
    shutil.copyfile(source, target)
    print(f"{target}: use it with --config {target}")
