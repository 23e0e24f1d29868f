"""List the shipped recipes."""

from __future__ import annotations

from convnextv2.recipe.read import list_recipes


def recipes() -> list[tuple[str, str]]:
    """Print the recipes that `config` finds by name, each with its first line. Returns the same as a list."""
    found = list_recipes()
    width = max(len(name) for name, _ in found) + 2
    for name, summary in found:
        print(f"{name:<{width}}{summary}")
    return found
