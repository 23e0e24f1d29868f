"""Checks that the output of a verb does not lie among the images that a model learns from."""

from __future__ import annotations

from pathlib import Path

from convnextv2.data.dense.map_folders import IMAGE_FOLDERS, MAP_FOLDERS
from convnextv2.data.listing import visible_folders
from convnextv2.data.split_names import kind_of
from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe


def check_outside_data(path: str | Path, *recipes: Recipe | None, option: str = "out") -> None:
    """Check that an output path lies outside the data of recipes.

    A new folder beside the folders of the classes would be read as a class, and pictures in it as
    images of that class. A new folder beside train/ and val/ is allowed, since it is not read; so
    is one beside the images/ and masks/ or annotations/ of segmentors and detectors.

    Args:
        path: The file or folder to write.
        recipes: The recipes whose data are checked. None is skipped.
        option: The option that names the path.

    Raises:
        RecipeError: The path lies where images are read.
    """
    place = Path(path).resolve()
    for recipe in recipes:
        if recipe is not None:
            is_dense = recipe.task in ("segmentation", "detection")
            _check(place, recipe.data_dir, recipe, f"{option} = {path}", is_dense)
            _check(place, recipe.probe_dir, recipe, f"{option} = {path}")


def _check(place: Path, data: str, recipe: Recipe, name: str, is_dense: bool = False) -> None:
    root = Path(data).resolve()
    if not data or not root.is_dir() or root not in (place, *place.parents):
        return
    folders = visible_folders(root)[0]
    read = {
        name for name in folders if kind_of(name) or name in (recipe.train_split, recipe.val_split)
    }
    is_split = any(kind_of(name) == "train" or name == recipe.train_split for name in read)
    if is_dense:
        usual = {name for name in folders if name.casefold() in (*IMAGE_FOLDERS, *MAP_FOLDERS)}
        is_split, read = is_split or bool(usual), read | usual
    within = place.relative_to(root).parts[:1]
    if is_split and within and within[0] not in read:
        return
    raise RecipeError(
        f"{name}: lies in the data ({data}), where it would count as a class or as an image. "
        "Choose another place."
    )
