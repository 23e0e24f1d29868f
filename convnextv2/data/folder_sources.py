"""The sources of a recipe whose images are files in folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from convnextv2.data.class_names import class_name_of
from convnextv2.data.folders import NoClassFoldersError, image_folder, unlabelled
from convnextv2.data.listing import visible_folders
from convnextv2.data.source import Source
from convnextv2.data.split_names import kind_of
from convnextv2.data.splits import (
    HERE,
    SplitFolders,
    asked_split,
    asked_splits,
    check_val_split,
    find_splits,
    held_out_by_training,
    hold_out,
)
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe
from convnextv2.text import typed

_TABLES = (".csv", ".tsv", ".jsonl")


def find_folder_sources(root: Path, recipe: Recipe, labelled: bool) -> tuple[Source, Source | None]:
    """Find the images of a recipe in a folder; see `sources.find_sources`."""
    found = _splits(root, recipe)
    found = replace(found, notes=found.notes + _idle_options(root, recipe))
    folder = found.training
    if folder is None:
        _check_no_training_split(found, recipe, labelled)
    outside = () if folder else found.left_alone
    if not labelled:
        source = unlabelled(folder or found.root, left_alone=outside)
        return replace(source, notes=found.notes + source.notes), None
    try:
        training = image_folder(folder or found.root, left_alone=outside)
    except NoClassFoldersError as error:
        raise DataError(f"{error}{other_layout_hint(root)}") from None
    training = replace(training, notes=found.notes + training.notes)
    if found.validation:
        return training, image_folder(found.validation, training.class_names)
    if folder is None:
        if recipe.val_while_train:
            return hold_out(training, recipe, f"{found.root} has no train/ and val/")
        return training, None
    check_val_split(recipe, found.root)
    tests = [name for name in found.left_alone if kind_of(name) == "test"]
    remedy = f" Use --val_split {tests[0]} to validate on {tests[0]}/." if tests else ""
    missing = found.root / recipe.val_split
    note = f"{missing}: does not exist, so nothing is validated.{remedy}"
    return replace(training, notes=(*training.notes, note)), None


def folder_validation_source(
    root: Path, recipe: Recipe, class_names: Sequence[str], trained_on: bool
) -> Source:
    """Find the images in a folder to evaluate a model on; see `sources.validation_source`."""
    found = _splits(root, recipe)
    if found.validation:
        source = image_folder(found.validation, class_names)
    else:
        _check_no_split(found, recipe)
        source = image_folder(found.root, class_names, left_alone=found.left_alone)
        if trained_on:
            source = held_out_by_training(source, recipe)
    return replace(source, notes=found.notes + source.notes)


def other_layout_hint(root: Path) -> str:
    """Suggest how to use a folder without classes, if it has objects, label maps or a table.

    Returns:
        A sentence that begins with a blank; "" if nothing was found.
    """
    from convnextv2.data.dense.layouts import find_layout
    from convnextv2.data.dense.map_folders import find_folders

    finders: dict[str, Callable[[], object]] = {
        "detection": lambda: find_layout(root),
        "segmentation": lambda: find_folders(root, None, None),
    }
    for task, find in finders.items():
        with suppress(DataError):
            if find():
                return f" It looks like data for --task {task}."
    tables = sorted(path for path in root.iterdir() if path.suffix.lower() in _TABLES)
    return f" There is a table in it: try --data_dir {typed(tables[0])}." if tables else ""


def _splits(root: Path, recipe: Recipe) -> SplitFolders:
    return find_splits(root, *asked_splits(recipe))


def _idle_options(root: Path, recipe: Recipe) -> tuple[str, ...]:
    names = ("columns", "images_dir", "image_suffix", "label_separator")
    idle = ", ".join(name for name in names if getattr(recipe, name))
    return (f"No effect here: {idle} ({root} is a folder, not a table).",) if idle else ()


def folder_of_classes(image: str, only: str) -> Path | None:
    """Find the first folder with several folders, at or below the folder of the only class.

    Args:
        image: The path of an image.
        only: The name of the only class.

    Returns:
        The folder, which is probably the one with the folders of classes; None without one.
    """
    parents = list(Path(image).parents)
    inner = next((folder for folder in parents if class_name_of(folder.name) == only), None)
    while inner is not None:
        folders = visible_folders(inner)[0]
        if len(folders) != 1:
            return inner if folders else None
        inner = next(iter(folders.values()))
    return None


def _check_no_training_split(found: SplitFolders, recipe: Recipe, labelled: bool) -> None:
    """Raise DataError if folders that look like splits would be used as classes."""
    if recipe.train_split == HERE:
        return
    folders = visible_folders(found.root)[0]
    others = [name for name in folders if kind_of(name) or (labelled and name == recipe.val_split)]
    others = [name for name in others if name not in found.left_alone]
    if others or asked_split(recipe, "train_split") is not None:
        there = f"has {' and '.join(f'{name}/' for name in others)}, but " if others else ""
        raise DataError(
            f"train_split = {recipe.train_split}: {found.root} {there}has no such folder. Set "
            "train_split to the one with the training images, or to . if the folders are the "
            "classes."
        )
    if labelled:
        check_val_split(recipe, found.root, only_named=True)


def _check_no_split(found: SplitFolders, recipe: Recipe) -> None:
    """Raise DataError if the data have splits, but none for validation."""
    folders = visible_folders(found.root)[0]
    others = [name for name in folders if kind_of(name) and name not in found.left_alone]
    if recipe.train_split == HERE:
        others = []
    if found.training or others or asked_split(recipe, "val_split") is not None:
        there = ", ".join(f"{name}/" for name in folders)[:100] or "nothing"
        raise DataError(
            f"{found.root}: has {there}, but no {recipe.val_split}/ to validate on. Set val_split."
        )
