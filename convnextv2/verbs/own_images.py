"""Use the labelled images of the run that weights belong to."""

from __future__ import annotations

from pathlib import Path

from convnextv2.errors import RecipeError
from convnextv2.find import run_of
from convnextv2.recipe.knobs import Recipe, with_inferred
from convnextv2.verbs.options.shared import LABELLED_IMAGES


def with_own_images(given: Recipe, weights: Path, *, otherwise: str = "") -> Recipe:
    """Return a recipe with the images of the weights' run, unless it names others.

    Args:
        given: The recipe.
        weights: The path of the weights.
        otherwise: What else the user may give, for the message, such as ", or single images".

    Raises:
        RecipeError: No images are named, and the weights belong to no run.
    """
    if given.data_dir or given.dataset:
        return given
    run = run_of(weights)
    if run is None:
        raise RecipeError(
            f"data_dir is missing: {weights} belongs to no run that names images. Give "
            f"--data_dir DATA{otherwise}."
        )
    asked = given.model_fields_set
    own = {name: getattr(run.recipe, name) for name in LABELLED_IMAGES if name not in asked}
    return with_inferred(given, own)
