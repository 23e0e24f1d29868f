"""The images of a recipe: for training, for pre-training and for validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from convnextv2.data.chance import stream
from convnextv2.data.class_names import class_name_of
from convnextv2.data.folders import NoClassFoldersError, files, image_folder, unlabelled
from convnextv2.data.hugging_face import is_row_set, open_rows, row_source
from convnextv2.data.listed import Listed, TableOptions, listed_images
from convnextv2.data.listing import visible_folders
from convnextv2.data.manifest import count_words, quoted
from convnextv2.data.named import load_named
from convnextv2.data.shards.find import are_shards, find_shards
from convnextv2.data.shards.sources import shard_source
from convnextv2.data.source import MAX_PIXELS, Source
from convnextv2.data.split_names import Kind, kind_of
from convnextv2.data.splits import (
    HERE,
    SplitFolders,
    asked_split,
    check_data_dir,
    find_splits,
    held_out,
    held_out_evenly,
    set_apart,
)
from convnextv2.data.storage import Stored
from convnextv2.data.without_labels import with_unlabelled
from convnextv2.errors import DataError
from convnextv2.recipe.columns import read_columns
from convnextv2.recipe.knobs import Recipe
from convnextv2.text import typed

__all__ = ["MAX_PIXELS", "Source", "files", "find_sources", "summary", "validation_source"]

_MAX_NAMED = 10
_TABLES = (".csv", ".tsv", ".jsonl")

_NEEDS = "a folder of images, a table of them, or a named dataset (dataset = bundled needs nothing)"


def find_sources(recipe: Recipe, *, labelled: bool) -> tuple[Source, Source | None]:
    """Find the images of a recipe.

    A folder of classes without splits gets a validation split by class, which follows from the
    seed. A split for testing is never used.

    Args:
        recipe: Names the data.
        labelled: False if only images count, as for pre-training. If the data have a training
            split, nothing else is used then.

    Returns:
        Training images, and validation images or None. The training images of `unlabelled` come
        last and have the target -1.

    Raises:
        DataError: There are no such images, or fewer than two classes.
    """
    training: Source
    validation: Source | None
    _check_labels(recipe)
    if recipe.dataset not in ("", "imagenet"):
        training, validation = _named_set(recipe)
    elif (parts := _parts(recipe)) is not None:
        training, validation = _from_parts(parts, recipe, labelled)
    elif (root := check_data_dir(recipe.data_dir, _NEEDS)).is_file():
        training, validation = _from_table(root, recipe, labelled)
    else:
        training, validation = _from_folder(root, recipe, labelled)
    if labelled:
        _check_classes(training, recipe)
        training = replace(training, notes=(*training.notes, *_names_alike(training)))
    training = replace(training, max_pixels=recipe.max_image_pixels)
    if validation is not None:
        validation = replace(validation, max_pixels=recipe.max_image_pixels)
    if recipe.num_samples is not None and recipe.num_samples < len(training):
        order = torch.randperm(len(training), generator=stream(recipe.seed, "num_samples"))
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
        class_names: The model's classes, in the order of its rows; empty if it names none.
        trained_on: The model was trained on these data.

    Returns:
        The validation split, if the data have one. If they have no splits, the images that training
        held out, or all of them if the model was not trained on these data.

    Raises:
        DataError: A class is not among the model's, or the data have a training split only.
    """
    _check_labels(recipe)
    if recipe.dataset not in ("", "imagenet"):
        source = _named_set(recipe)[1]
    elif (parts := _parts(recipe)) is not None:
        source = _validation_part(parts, recipe, class_names, trained_on)
    elif (root := check_data_dir(recipe.data_dir, _NEEDS)).is_file():
        listed = listed_images(
            root, _table_options(recipe), ["validation"], class_names=class_names
        )
        source = listed.images["validation" if listed.has_splits else "train"]
        if trained_on and not listed.has_splits:
            source = _what_was_held_out(source, recipe)
    else:
        found = _splits(root, recipe)
        if found.validation:
            source = image_folder(found.validation, class_names)
        else:
            _check_no_split(found, recipe)
            source = image_folder(found.root, class_names, left_alone=found.left_alone)
            if trained_on:
                source = _what_was_held_out(source, recipe)
        source = replace(source, notes=found.notes + source.notes)
    if class_names and len(source.class_names) > len(class_names):
        raise DataError(
            f"the data have {len(source.class_names)} classes, the model has {len(class_names)}."
        )
    return replace(source, max_pixels=recipe.max_image_pixels)


def summary(training: Source, validation: Source | None) -> str:
    """Say in one line how many images and classes there are."""
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
    listed = listed_images(root, _table_options(recipe), kinds, labelled=labelled)
    training = listed.images["train"]
    if not labelled:
        return training, None
    if not listed.has_splits:
        if recipe.val_while_train:
            return _hold_out(training, recipe, f"{root} has no column of splits")
        return training, None
    if "validation" not in listed.images:
        _check_val_split(recipe, root)
        note = f"{root}: lists no images for validation, so nothing is validated. {_remedy(listed)}"
        return replace(training, notes=(*training.notes, note)), None
    return training, listed.images["validation"]


def _remedy(listed: Listed) -> str:
    words = f" to one of {count_words(listed.unused)}" if listed.unused else ""
    return f"Set val_split{words}."


def _table_options(recipe: Recipe) -> TableOptions:
    splits: dict[Kind, str] = {}
    if asked_split(recipe, "train_split") is not None:
        splits["train"] = recipe.train_split
    if asked_split(recipe, "val_split") is not None:
        splits["validation"] = recipe.val_split
    return TableOptions(
        read_columns(recipe.columns),
        recipe.images_dir,
        recipe.image_suffix,
        splits,
        recipe.labels,
        {"space": " "}.get(recipe.label_separator, recipe.label_separator),
    )


@dataclass(frozen=True)
class _Parts:
    """A set that is not made of files of its own: tar files, or rows of a data set.

    Attributes:
        training: What is for training, for `build`.
        validation: What is for validation; empty if there is nothing.
        has_splits: Whether the set says what is for training.
        notes: Lines that say what was found.
        build: Makes a source of one of both: (part, labelled, names of the classes or nothing).
    """

    training: Any
    validation: Any
    has_splits: bool
    notes: tuple[str, ...]
    build: Callable[[Any, bool, Sequence[str]], Source]


def _parts(recipe: Recipe) -> _Parts | None:
    """Find the parts of a set of tar files or rows; None if `data_dir` names something else."""
    where, columns = recipe.data_dir, read_columns(recipe.columns)
    train = asked_split(recipe, "train_split")
    val = asked_split(recipe, "val_split")
    names = ("images_dir", "image_suffix", "label_separator")
    idle = ", ".join(name for name in names if getattr(recipe, name))
    said = [f"No effect here: {idle} ({where} is not a table)."] if idle else []
    if is_row_set(where):
        rows = open_rows(where, train, val)

        def build_rows(split: Any, labelled: bool, classes: Sequence[str]) -> Source:
            return row_source(
                where, rows, split, labelled=labelled, class_names=classes, columns=columns
            )

        notes = (*rows.notes, *said)
        return _Parts(rows.training, rows.validation, rows.has_splits, notes, build_rows)
    if not are_shards(where):
        return None
    shards = find_shards(where, train, val)

    def build_shards(some: Any, labelled: bool, classes: Sequence[str]) -> Source:
        return shard_source(
            where,
            some,
            labelled=labelled,
            class_names=classes,
            label_field=columns.get("label", ""),
            cache_gb=recipe.shard_cache_gb,
        )

    notes = (*shards.notes, *said)
    return _Parts(shards.training, shards.validation, shards.has_splits, notes, build_shards)


def _from_parts(parts: _Parts, recipe: Recipe, labelled: bool) -> tuple[Source, Source | None]:
    training = parts.build(parts.training, labelled, ())
    training = replace(training, notes=(*parts.notes, *training.notes))
    if not labelled:
        return training, None
    if parts.validation:
        return training, parts.build(parts.validation, True, training.class_names)
    if not parts.has_splits:
        if recipe.val_while_train:
            return _hold_out(training, recipe, f"{recipe.data_dir} has no splits")
        return training, None
    _check_val_split(recipe, Path(recipe.data_dir))
    note = f"{recipe.data_dir}: has nothing for validation, so nothing is validated."
    return replace(training, notes=(*training.notes, note)), None


def _validation_part(
    parts: _Parts, recipe: Recipe, class_names: Sequence[str], trained_on: bool
) -> Source:
    if parts.has_splits and not parts.validation:
        raise DataError(f"{recipe.data_dir}: has nothing to validate on. Set val_split.")
    source = parts.build(parts.validation or parts.training, True, class_names)
    if trained_on and not parts.has_splits:
        source = _what_was_held_out(source, recipe)
    return replace(source, notes=parts.notes + source.notes)


def _from_folder(root: Path, recipe: Recipe, labelled: bool) -> tuple[Source, Source | None]:
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
        raise DataError(f"{error}{_what_else_is_there(root)}") from None
    training = replace(training, notes=found.notes + training.notes)
    if found.validation:
        return training, image_folder(found.validation, training.class_names)
    if folder is None:
        if recipe.val_while_train:
            return _hold_out(training, recipe, f"{found.root} has no train/ and val/")
        return training, None
    _check_val_split(recipe, found.root)
    tests = [name for name in found.left_alone if kind_of(name) == "test"]
    remedy = f" Use --val_split {tests[0]} to validate on {tests[0]}/." if tests else ""
    missing = found.root / recipe.val_split
    note = f"{missing}: is not there, so nothing is validated.{remedy}"
    return replace(training, notes=(*training.notes, note)), None


def _what_else_is_there(root: Path) -> str:
    """Say how a folder without classes can be used, if it holds objects, label maps or a table."""
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


def _names_alike(source: Source) -> list[str]:
    """Name the classes that differ only in letter case, which is often a slip of the hand."""
    spelled: dict[str, list[str]] = {}
    for name in source.class_names:
        spelled.setdefault(name.casefold(), []).append(name)
    return [
        f"{' and '.join(map(quoted, names))} differ only in letter case, and are taken for "
        f"{len(names)} classes."
        for names in spelled.values()
        if len(names) > 1
    ]


def _splits(root: Path, recipe: Recipe) -> SplitFolders:
    return find_splits(
        root,
        asked_split(recipe, "train_split"),
        asked_split(recipe, "val_split"),
    )


def _idle_options(root: Path, recipe: Recipe) -> tuple[str, ...]:
    names = ("columns", "images_dir", "image_suffix", "label_separator")
    idle = ", ".join(name for name in names if getattr(recipe, name))
    return (f"No effect here: {idle} ({root} is a folder, not a table).",) if idle else ()


def _check_labels(recipe: Recipe) -> None:
    """Raise DataError if several labels are asked for where an image can have one only."""
    if recipe.labels != "multi":
        return
    where = recipe.dataset if recipe.dataset not in ("", "imagenet") else recipe.data_dir
    if where == recipe.dataset or not Path(where).is_file():
        raise DataError(
            f"labels = multi: {where or 'data_dir'} is not a table, and only a table can give an "
            "image several labels. Give a CSV, JSON or JSONL file for data_dir."
        )


def _check_classes(training: Source, recipe: Recipe) -> None:
    """Check that there is something to learn.

    If every image is of one class, accuracy is always 100 %.
    """
    if len(training.class_names) > 1 or recipe.num_classes or training.is_multi_label:
        return
    (name,) = training.class_names
    is_file = not isinstance(training.names, Stored)
    inner = _folder_of_classes(training.names[0], name) if is_file else None
    remedy = "Give at least two classes, or set num_classes where more will come."
    if inner:
        remedy = f"Did you mean data_dir = {inner}?"
        split = next((folder for folder in inner.parents if kind_of(folder.name)), None)
        if split:  # data_dir = inner would lose the other splits
            remedy = f"The classes lie in {inner}. Move them up, to {split}/CLASS."
    where = recipe.data_dir or recipe.dataset
    root = Path(recipe.data_dir)
    hint = _what_else_is_there(root) if is_file and root.is_dir() else ""
    raise DataError(
        f"{where}: has one class only ({name}), so there is nothing to tell apart. {remedy}{hint}"
    )


def _folder_of_classes(image: str, only: str) -> Path | None:
    """Find the folder below that of the only class in which several folders lie."""
    parents = list(Path(image).parents)
    inner = next((folder for folder in parents if class_name_of(folder.name) == only), None)
    while inner is not None:
        folders = visible_folders(inner)[0]
        if len(folders) != 1:
            return inner if folders else None
        inner = next(iter(folders.values()))
    return None


def _check_no_training_split(found: SplitFolders, recipe: Recipe, labelled: bool) -> None:
    """Splits that nobody meant as such must not become classes."""
    if recipe.train_split == HERE:
        return
    folders = visible_folders(found.root)[0]
    others = [name for name in folders if kind_of(name) or (labelled and name == recipe.val_split)]
    others = [name for name in others if name not in found.left_alone]
    if others or asked_split(recipe, "train_split") is not None:
        there = f"has {' and '.join(f'{name}/' for name in others)}, but " if others else ""
        raise DataError(
            f"train_split = {recipe.train_split}: {found.root} {there}has no such folder. Set "
            "train_split to the one with the training images, or to . where the folders are the "
            "classes."
        )
    if labelled:
        _check_val_split(recipe, found.root, only_named=True)


def _check_val_split(recipe: Recipe, root: Path, *, only_named: bool = False) -> None:
    """Validation that was asked for is not left out."""
    asked = not only_named and (
        recipe.keep_policy == "top_k" or "val_while_train" in recipe.model_fields_set
    )
    if recipe.val_while_train and (asked or asked_split(recipe, "val_split") is not None):
        raise DataError(
            f"val_split = {recipe.val_split}: {root} has no such split, so there is nothing to "
            "validate on. Set it to the one with the validation images, or val_while_train = False."
        )


def _check_no_split(found: SplitFolders, recipe: Recipe) -> None:
    """Training images are no validation images."""
    folders = visible_folders(found.root)[0]
    others = [name for name in folders if kind_of(name) and name not in found.left_alone]
    if recipe.train_split == HERE:
        others = []
    if found.training or others or asked_split(recipe, "val_split") is not None:
        there = ", ".join(f"{name}/" for name in folders)[:100] or "nothing"
        raise DataError(
            f"{found.root}: has {there}, but no {recipe.val_split}/ to validate on. Set val_split."
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


def _hold_out(source: Source, recipe: Recipe, why: str) -> tuple[Source, Source | None]:
    """Hold images out for validation; why: that the data have no split of their own."""
    assert source.targets is not None
    if source.is_multi_label:
        chosen = held_out_evenly(source.targets, recipe.val_fraction, recipe.seed)
    else:
        chosen = held_out(source.targets, len(source.class_names), recipe.val_fraction, recipe.seed)
    if not len(chosen):
        note = "No class has two images, so none is held out and nothing is validated."
        return replace(source, notes=(*source.notes, note)), None
    note = f"{why}: {len(chosen)} of {len(source)} images are held out for validation."
    training, validation = set_apart(source, chosen)
    return replace(training, notes=(*source.notes, note)), validation


def _what_was_held_out(source: Source, recipe: Recipe) -> Source:
    """Return the images of a source without a split that training did not see."""
    where = recipe.data_dir
    if not recipe.val_while_train:
        raise DataError(
            f"{where}: was trained on as a whole (val_while_train = False). Give other images with "
            "data_dir, or val_split."
        )
    chosen = _hold_out(source, recipe, "")[1]
    if chosen is None:
        raise DataError(
            f"{where}: no class has two images, so training held none out. Give others."
        )
    return replace(chosen, notes=source.notes)
