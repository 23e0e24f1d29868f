"""Find out whether images are those of the run that weights belong to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from convnextv2.data.source import Source
from convnextv2.errors import DataError
from convnextv2.find import run_of, same_data
from convnextv2.recipe.knobs import Recipe, with_inferred


def has_own_data(weights: Path, recipe: Recipe) -> bool:
    """Return whether a recipe names the validation images of the run that weights belong to."""
    owner = run_of(weights)
    return owner is not None and same_data(owner.recipe, recipe)


def was_trained_on(weights: Path, recipe: Recipe) -> bool:
    """Return whether the run that weights belong to was trained on the data of a recipe.

    The recipe may name another split of them.
    """
    owner = run_of(weights)
    if owner is None:
        return False
    of_run = with_inferred(owner.recipe, {"val_split": recipe.val_split})
    return same_data(of_run, recipe)


def check_held_out(
    source: Source, find: Callable[[Recipe], Source | None], recipe: Recipe, weights: Path
) -> None:
    """Check that the run of the weights was not trained on any of the validation images.

    Data without a split for validation are divided by `seed` and `val_fraction`. Other values than
    those of the run hold out other images, and the run has learned some of them.

    Args:
        source: The validation images that the recipe names.
        find: Finds those of another recipe.
        recipe: The recipe.
        weights: The path of the weights.

    Raises:
        DataError: The run was trained on some of them.
    """
    owner = run_of(weights)
    if owner is None or not same_data(owner.recipe, recipe):
        return
    own = {name: getattr(owner.recipe, name) for name in ("seed", "val_fraction")}
    other = {name: value for name, value in own.items() if getattr(recipe, name) != value}
    if not other:
        return
    held_out = find(with_inferred(recipe, own))
    if held_out is not None and list(held_out.names) == list(source.names):
        return
    asked = " and ".join(f"{name} = {getattr(recipe, name)}" for name in other)
    kept = " and ".join(f"{name} = {value}" for name, value in other.items())
    raise DataError(
        f"{asked}: {owner.path} was trained with {kept}, so it has learned some of the images of "
        f"{recipe.data_dir} that are held out here. Give other images with data_dir."
    )
