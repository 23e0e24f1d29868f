"""Use the labelled images of the run that weights belong to."""

from __future__ import annotations

from pathlib import Path

from convnextv2.errors import RecipeError
from convnextv2.find import run_of, same_data
from convnextv2.recipe.knobs import Recipe, with_inferred
from convnextv2.verbs.options.shared import LABELLED_IMAGES


def with_own_images(
    given: Recipe, weights: Path, *, has_learned: bool = False, otherwise: str = ""
) -> Recipe:
    """Return a recipe with the images of the weights' run, unless it names others.

    If it names the same images, the run also says how they are divided.

    Args:
        given: The recipe.
        weights: The path of the weights.
        has_learned: Whether the run has learned the labels. If it held no images out, there are
            none to measure it on.
        otherwise: What else the user may give, for the message, such as ", or single images".

    Raises:
        RecipeError: No images are named, and the weights belong to no run.
    """
    run = run_of(weights)
    if (given.data_dir or given.dataset) and (run is None or not same_data(run.recipe, given)):
        return given
    if run is None:
        raise RecipeError(
            f"data_dir is missing: {weights} belongs to no run that names images. Give "
            f"--data_dir DATA{otherwise}."
        )
    asked = given.model_fields_set
    names = (*LABELLED_IMAGES, *(("val_while_train",) if has_learned else ()))
    own = {name: getattr(run.recipe, name) for name in names if name not in asked}
    return with_inferred(given, own)
