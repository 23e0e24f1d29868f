"""The sources of a recipe for detection: images with objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from convnextv2.data.dense.layouts import Layout, find_layout, split_kind
from convnextv2.data.dense.objects import objects_of
from convnextv2.data.dense.scan import compare_splits, object_counts, scan_objects
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.randomness import generator_for
from convnextv2.data.splits import (
    asked_split,
    check_data_dir,
    check_training_held_out,
    held_out_evenly,
    held_out_note,
    set_apart,
)
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe
from convnextv2.text import brief

_TITLES = {"coco": "COCO JSON", "voc": "Pascal VOC", "yolo": "YOLO"}


_NEEDS = "a folder of images with annotations (COCO, YOLO or Pascal VOC)"


def find_object_sources(recipe: Recipe) -> tuple[AnnotatedSource, AnnotatedSource | None]:
    """Find a recipe's images with objects, and scan their annotations for defects.

    Args:
        recipe: Names the data.

    Returns:
        The training images, and the validation images or None. The notes of the first state what
        was found, and its defects.

    Raises:
        DataError: There are no such images, or none of their annotations can be used.
    """
    root = check_data_dir(recipe.data_dir, _NEEDS)
    layout = find_layout(root, recipe.annotations, recipe.images_dir)
    asked = asked_split(recipe, "train_split")
    chosen = layout.choose(asked, "train")
    is_guessed = chosen is None and asked is None
    chosen = layout.only() if is_guessed else chosen
    if chosen is None:
        raise DataError(
            f"train_split = {recipe.train_split}: {root} has no such split ({_listed(layout)}). "
            "Set train_split to the one with the training images."
        )
    training = scan_objects(layout.splits[chosen](), chosen or "data")
    notes = [_found_line(root, layout)]
    if is_guessed and chosen:
        notes.append(f"{root}: {chosen} is its only split, so it is for training.")
    validation = _validation(recipe, root, layout, chosen)
    if validation is None and recipe.val_while_train:
        training, validation, line = _hold_out(training, recipe, root)
        notes.append(line)
    elif validation is not None:
        validation = with_classes(validation, training.class_names, str(root))
    if not training.class_names or not sum(object_counts(training)):
        raise DataError(
            f"{training.names[0]} and the other training images have no object that can be trained "
            "on, so there is nothing to learn."
        )
    more = compare_splits(training, validation)
    after = validation.notes if validation is not None else ()
    training = replace(
        training,
        notes=(*notes, *training.notes, *after, *more),
        max_pixels=recipe.max_image_pixels,
    )
    if validation is not None:
        validation = replace(validation, notes=(), max_pixels=recipe.max_image_pixels)
    if recipe.num_samples is not None and recipe.num_samples < len(training):
        order = torch.randperm(len(training), generator=generator_for(recipe.seed, "num_samples"))
        training = training.subset(order[: recipe.num_samples].sort().values.numpy())
    return training, validation


def validation_objects(
    recipe: Recipe, class_names: Sequence[str], *, trained_on: bool = True
) -> AnnotatedSource:
    """Find the images to evaluate a detector on.

    Args:
        recipe: Names the data.
        class_names: The classes of the detector, in order.
        trained_on: Whether the detector was trained on these data.

    Returns:
        The validation split. If the data have none: the images that training held out, or all
        images if the detector was not trained on these data.

    Raises:
        DataError: There is no such split, training used all images, or the data have a class that
            is not one of the detector.
    """
    root = check_data_dir(recipe.data_dir, _NEEDS)
    layout = find_layout(root, recipe.annotations, recipe.images_dir)
    chosen = layout.choose(asked_split(recipe, "val_split"), "validation")
    if chosen is None and asked_split(recipe, "val_split") is not None:
        raise DataError(f"val_split = {recipe.val_split}: {root} has {_listed(layout)}.")
    if chosen is None:
        training = layout.choose(asked_split(recipe, "train_split"), "train")
        training = layout.only() if training is None else training
        if training is None:
            raise DataError(f"{root}: has {_listed(layout)}. Set val_split to one of these.")
        source = scan_objects(layout.splits[training](), training or "data")
        if trained_on:
            check_training_held_out(recipe)
            held_out = _hold_out(source, recipe, root)[1]
            source = replace(held_out, notes=source.notes)
    else:
        source = scan_objects(layout.splits[chosen](), chosen or "data")
    source = with_classes(source, class_names, str(root))
    return replace(source, max_pixels=recipe.max_image_pixels)


def with_classes(
    source: AnnotatedSource, class_names: Sequence[str], where: str
) -> AnnotatedSource:
    """Return a source with the class indices of a model.

    Args:
        source: The images.
        class_names: The classes of the model, in order.
        where: The name of the data in error messages.

    Raises:
        DataError: A class that has objects is not among those of the model.
    """
    if tuple(class_names) == source.class_names:
        return source
    numbers = {name: i for i, name in enumerate(class_names)}
    used = np.unique(objects_of(source).labels).tolist()
    if unknown := [source.class_names[i] for i in used if source.class_names[i] not in numbers]:
        raise DataError(
            f"{where}: has objects of {brief(unknown)}, which is not among the model's classes "
            f"({brief(list(class_names))}). Use the same names for classes."
        )
    moved = np.array([numbers.get(name, 0) for name in source.class_names] or [0], np.int64)
    table = objects_of(source).relabelled(moved)
    return replace(source, annotations=table, class_names=tuple(class_names))


def object_summary(training: AnnotatedSource, validation: AnnotatedSource | None) -> str:
    """Return the numbers of images, objects and classes in one line."""
    what = "masks" if objects_of(training).has_masks else "boxes"
    names = training.class_names
    more = ", ..." if len(names) > 10 else ""
    line = (
        f"{len(training):,} images for training with {sum(object_counts(training)):,} objects "
        f"({what}) of {len(names):,} class{'es' * (len(names) > 1)} ({', '.join(names[:10])}{more})"
    )
    if validation is None:
        return f"{line}; no images for validation."
    objects = sum(object_counts(validation))
    return f"{line}; {len(validation):,} images for validation with {objects:,}."


def _validation(
    recipe: Recipe, root: Path, layout: Layout, training: str
) -> AnnotatedSource | None:
    asked = asked_split(recipe, "val_split")
    chosen = layout.choose(asked, "validation")
    if chosen is None and asked is not None and recipe.val_while_train:
        raise DataError(
            f"val_split = {asked}: {root} has no such split ({_listed(layout)}), so there is "
            "nothing to validate on. Set it to another one, or val_while_train = False."
        )
    if chosen is None:
        return None
    validation = scan_objects(layout.splits[chosen](), chosen)
    if chosen != training:
        return validation
    note = (
        f"{root}: {chosen} is for training and for validation, so what is measured says nothing "
        "about new images."
    )
    return replace(validation, notes=(note,))


def _hold_out(
    source: AnnotatedSource, recipe: Recipe, root: Path
) -> tuple[AnnotatedSource, AnnotatedSource, str]:
    """Hold images out for validation, with nearly the same share of each class."""
    if len(source) < 2:
        raise DataError(
            f"{root}: has only one image, so none can be held out for validation. Set "
            "val_while_train = False."
        )
    has = np.zeros((len(source), max(1, len(source.class_names))), np.int8)
    for i in range(len(source)):
        has[i, objects_of(source).classes_of(i)] = 1
    chosen = held_out_evenly(has, recipe.val_fraction, recipe.seed)
    if not len(chosen):
        chosen = np.array([len(source) - 1])
    line = held_out_note(f"{root} has no validation split", len(chosen), len(source))
    return (*set_apart(source, chosen), line)


def _found_line(root: Path, layout: Layout) -> str:
    line = f"{root}: {_TITLES[layout.format]}"
    used = [split for split in layout.splits if split]
    line += f" ({', '.join(used)})" if used else ""
    if layout.others:
        others = " and ".join(_TITLES[each] for each in layout.others)
        line += f"; {others} beside it is not read (annotations = {layout.others[0]} reads it)"
    tests = [split for split in used if split_kind(split) == "test"]
    return f"{line}; {tests[0]} is left alone." if tests else f"{line}."


def _listed(layout: Layout) -> str:
    names = [split for split in layout.splits if split]
    return f"the splits {', '.join(names)}" if names else "no splits"
