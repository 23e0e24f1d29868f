"""The sources of a recipe for classification and pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from convnextv2.data.folder_sources import (
    find_folder_sources,
    folder_of_classes,
    folder_validation_source,
    other_layout_hint,
)
from convnextv2.data.manifest import count_words, quoted
from convnextv2.data.named_sets import load_named
from convnextv2.data.packed_sources import (
    find_packed_sources,
    find_packed_splits,
    packed_validation_source,
)
from convnextv2.data.randomness import generator_for
from convnextv2.data.source import Source
from convnextv2.data.split_names import Kind, kind_of
from convnextv2.data.splits import (
    asked_splits,
    check_data_dir,
    check_val_split,
    held_out_by_training,
    hold_out,
)
from convnextv2.data.storage import Stored
from convnextv2.data.table_sources import TableOptions, TableSplits, listed_images
from convnextv2.data.without_labels import with_unlabelled
from convnextv2.errors import DataError
from convnextv2.recipe.columns import read_columns
from convnextv2.recipe.knobs import Recipe

_MAX_NAMED = 10
_NEEDS = "a folder of images, a table of them, or a named dataset (dataset = bundled needs nothing)"


def find_sources(recipe: Recipe, *, labelled: bool) -> tuple[Source, Source | None]:
    """Find the images of a recipe for training and validation.

    If the data have no splits, a share of each class is held out for validation; the choice depends
    on the seed. A test split is never used.

    Args:
        recipe: Names the data.
        labelled: Whether labels are needed. If False, as for pre-training, there are no validation
            images, and of data with splits only the training split is used.

    Returns:
        The training images, and the validation images or None. The images of the knob `unlabelled`
        come last and have the target -1.

    Raises:
        DataError: There are no such images, or fewer than two classes.
    """
    training: Source
    validation: Source | None
    _check_labels(recipe)
    if recipe.dataset not in ("", "imagenet"):
        training, validation = _named_set(recipe)
    elif (splits := find_packed_splits(recipe)) is not None:
        training, validation = find_packed_sources(splits, recipe, labelled)
    elif (root := check_data_dir(recipe.data_dir, _NEEDS)).is_file():
        training, validation = _from_table(root, recipe, labelled)
    else:
        training, validation = find_folder_sources(root, recipe, labelled)
    if labelled:
        _check_classes(training, recipe)
        training = replace(training, notes=(*training.notes, *_names_alike(training)))
    training = replace(training, max_pixels=recipe.max_image_pixels)
    if validation is not None:
        validation = replace(validation, max_pixels=recipe.max_image_pixels)
    if recipe.num_samples is not None and recipe.num_samples < len(training):
        order = torch.randperm(len(training), generator=generator_for(recipe.seed, "num_samples"))
        training = training.subset(order[: recipe.num_samples].sort().values.numpy())
    if labelled and recipe.unlabelled:
        training = with_unlabelled(training, validation, Path(recipe.unlabelled))
    return training, validation


def validation_source(
    recipe: Recipe, class_names: Sequence[str], *, trained_on: bool = True
) -> Source:
    """Find the images to evaluate a model on.

    Args:
        recipe: Names the data.
        class_names: The classes of the model, in order; empty if it has no class names.
        trained_on: Whether the model was trained on these data.

    Returns:
        The validation split. If the data have no splits: the images that training held out, or all
        images if the model was not trained on these data.

    Raises:
        DataError: A class is not one of the model, or the data have only a training split.
    """
    _check_labels(recipe)
    if recipe.dataset not in ("", "imagenet"):
        source = _named_set(recipe)[1]
    elif (splits := find_packed_splits(recipe)) is not None:
        source = packed_validation_source(splits, recipe, class_names, trained_on)
    elif (root := check_data_dir(recipe.data_dir, _NEEDS)).is_file():
        listed = listed_images(root, table_options(recipe), ["validation"], class_names=class_names)
        source = listed.images["validation" if listed.has_splits else "train"]
        if trained_on and not listed.has_splits:
            source = held_out_by_training(source, recipe)
    else:
        source = folder_validation_source(root, recipe, class_names, trained_on)
    if class_names and len(source.class_names) > len(class_names):
        raise DataError(
            f"the data have {len(source.class_names)} classes, the model has {len(class_names)}."
        )
    return replace(source, max_pixels=recipe.max_image_pixels)


def summary(training: Source, validation: Source | None) -> str:
    """Return the numbers of images and classes in one line."""
    names = training.class_names
    more = ", ..." if len(names) > _MAX_NAMED else ""
    assert training.targets is not None
    known = training.targets >= 0  # (N,), or (N, K) if an image may have several labels
    labelled = int((known.any(axis=1) if known.ndim == 2 else known).sum())
    line = (
        f"{labelled:,} images for training, {len(names):,} classes "
        f"({', '.join(map(quoted, names[:_MAX_NAMED]))}{more})"
    )
    if labelled < len(training):
        line += f", and {len(training) - labelled:,} without labels"
    return f"{line}; {len(validation) if validation else 0:,} images for validation."


def _from_table(root: Path, recipe: Recipe, labelled: bool) -> tuple[Source, Source | None]:
    kinds: list[Kind] = ["train", "validation"] if labelled else ["train"]
    listed = listed_images(root, table_options(recipe), kinds, labelled=labelled)
    training = listed.images["train"]
    if not labelled:
        return training, None
    if not listed.has_splits:
        if recipe.val_while_train:
            return hold_out(training, recipe, f"{root} has no column of splits")
        return training, None
    if "validation" not in listed.images:
        check_val_split(recipe, root)
        note = f"{root}: lists no images for validation, so nothing is validated. {_remedy(listed)}"
        return replace(training, notes=(*training.notes, note)), None
    return training, listed.images["validation"]


def _remedy(listed: TableSplits) -> str:
    words = f" to one of {count_words(listed.unused)}" if listed.unused else ""
    return f"Set val_split{words}."


def table_options(recipe: Recipe) -> TableOptions:
    """Return how a recipe says to read a table."""
    train_split, val_split = asked_splits(recipe)
    splits: dict[Kind, str | None] = {"train": train_split, "validation": val_split}
    return TableOptions(
        read_columns(recipe.columns),
        recipe.images_dir,
        recipe.image_suffix,
        {kind: name for kind, name in splits.items() if name is not None},
        recipe.labels,
        {"space": " "}.get(recipe.label_separator, recipe.label_separator),
    )


def _names_alike(source: Source) -> list[str]:
    """Return notes about classes that differ only in letter case, which is often a mistake."""
    spelled: dict[str, list[str]] = {}
    for name in source.class_names:
        spelled.setdefault(name.casefold(), []).append(name)
    return [
        f"{' and '.join(map(quoted, names))} differ only in letter case, and are treated as "
        f"{len(names)} classes."
        for names in spelled.values()
        if len(names) > 1
    ]


def _check_labels(recipe: Recipe) -> None:
    """Raise DataError if the recipe asks for several labels, but an image can have only one."""
    if recipe.labels != "multi":
        return
    where = recipe.dataset if recipe.dataset not in ("", "imagenet") else recipe.data_dir
    if where == recipe.dataset or not Path(where).is_file():
        raise DataError(
            f"labels = multi: {where or 'data_dir'} is not a table, and only a table can give an "
            "image several labels. Give a CSV, JSON or JSONL file for data_dir."
        )


def _check_classes(training: Source, recipe: Recipe) -> None:
    """Raise DataError if there is only one class, because accuracy would always be 100 %."""
    if len(training.class_names) > 1 or recipe.num_classes or training.is_multi_label:
        return
    (name,) = training.class_names
    is_file = not isinstance(training.names, Stored)
    inner = folder_of_classes(training.names[0], name) if is_file else None
    remedy = "Give at least two classes, or set num_classes if more will be added."
    if inner:
        remedy = f"Did you mean data_dir = {inner}?"
        split = next((folder for folder in inner.parents if kind_of(folder.name)), None)
        if split:  # data_dir = inner would lose the other splits
            remedy = f"The classes lie in {inner}. Move them up, to {split}/CLASS."
    where = recipe.data_dir or recipe.dataset
    root = Path(recipe.data_dir)
    hint = other_layout_hint(root) if is_file and root.is_dir() else ""
    raise DataError(
        f"{where}: has one class only ({name}), so there is nothing to classify. {remedy}{hint}"
    )


def _named_set(recipe: Recipe) -> tuple[Source, Source]:
    training, validation = (
        Source(
            [f"{recipe.dataset}/{split}/{i}" for i in range(len(part.pixels))],
            part.targets,
            part.class_names,
            part.pixels,
        )
        for split, part in zip(("train", "val"), load_named(recipe), strict=True)
    )
    return training, validation
