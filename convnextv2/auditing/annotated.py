"""Reads images with objects or with label maps, for audits."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from convnextv2.auditing.images import Images
from convnextv2.data.dense.label_maps import IGNORED
from convnextv2.data.dense.layouts import Layout, find_layout
from convnextv2.data.dense.map_classes import UnknownValuesError
from convnextv2.data.dense.map_folders import Folders, Pairs, find_folders, pair
from convnextv2.data.dense.map_sources import find_map_sources
from convnextv2.data.dense.objects import objects_of
from convnextv2.data.dense.scan import scan_objects
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.split_names import Kind, kind_of
from convnextv2.data.splits import asked_splits
from convnextv2.distributed import Place
from convnextv2.errors import DataError, MissingPackageError, StorageError
from convnextv2.recipe.knobs import Recipe
from convnextv2.text import counted

_MOST_IGNORED = 256
"""The maximum number of values to ignore. Maps with more are not maps of classes."""


def with_objects(root: Path, recipe: Recipe) -> Images:
    """Read the images of a data set with objects.

    Raises:
        DataError: There are no images, or a requested split does not exist.
    """
    layout = find_layout(root, recipe.annotations, recipe.images_dir)
    _check_asked(layout, root, recipe)
    sources, defects = {}, []
    for split, read in layout.splits.items():
        raw = read()
        source = scan_objects(raw, split or "data")
        wrong = raw.defects.lines(split or "data")
        defects += wrong
        sources[split] = replace(
            source, notes=tuple(line for line in source.notes if line not in wrong)
        )
    names = list(dict.fromkeys(name for each in sources.values() for name in each.class_names))
    amounts = np.zeros((sum(map(len, sources.values())), len(names)), np.int64)
    at = 0
    for source in sources.values():
        moved = np.array([names.index(name) for name in source.class_names], np.int64)
        for index in range(len(source)):
            classes = objects_of(source).classes_of(index)
            np.add.at(amounts[at], moved[classes] if len(classes) else classes, 1)
            at += 1
    images = Images(
        "detection",
        root,
        tuple(name for source in sources.values() for name in source.names),
        tuple(split for split, source in sources.items() for _ in range(len(source))),
        (amounts > 0).astype(np.int8),
        tuple(names),
        amounts,
        sources=sources,
        asked=asked_splits(recipe),
        notes=tuple(line for source in sources.values() for line in source.notes),
        defects=tuple(defects),
    )
    return replace(images, notes=(*images.notes, *_unused(images)))


def _check_asked(layout: Layout, root: Path, recipe: Recipe) -> None:
    train_split, val_split = asked_splits(recipe)
    asked: tuple[tuple[str, str | None, Kind], ...] = (
        ("train_split", train_split, "train"),
        ("val_split", val_split, "validation"),
    )
    for knob, name, kind in asked:
        if name is not None and layout.choose(name, kind) is None:
            there = ", ".join(filter(None, layout.splits)) or "no splits"
            raise DataError(
                f"{knob} = {name}: {root} has {there}. Training on objects takes one split by its "
                "name."
            )


def _unused(images: Images) -> list[str]:
    """Say which splits training would not use, because their names do not reveal their purpose."""
    used = {name for name in images.splits_used() if name is not None}
    rest = [
        split for split in images.split_names if images.kind_of(split) is None and split not in used
    ]
    if not any(rest) or images.splits_used()[0] is None:
        return []
    return [
        f"Training on objects takes one split, so {', '.join(rest)} would not be used. Join the "
        "annotations of several splits in one file to train on all of them."
    ]


def with_maps(root: Path, recipe: Recipe) -> Images:
    """Read the images of a data set with label maps."""
    folders = find_folders(root, *asked_splits(recipe))
    splits = {_split_of(each, kind, len(folders)): pair(each) for kind, each in folders.items()}
    paths, of, maps = [], [], []
    for split, pairs in splits.items():
        paths += [*pairs.images, *pairs.missing]
        maps += [*pairs.maps, *[""] * len(pairs.missing)]
        of += [split] * (len(pairs.images) + len(pairs.missing))
    notes = dict.fromkeys(line for pairs in splits.values() for line in pairs.notes)
    found, defects, recipe = _maps_of(recipe, splits)
    targets = amounts = None
    names: tuple[str, ...] = ()
    if found:
        names = found[0].class_names
        amounts = np.zeros((len(paths), len(names)), np.int64)
        at = {path: i for i, path in enumerate(paths)}
        usable: set[str] = set()
        for source in found:
            for index, path in enumerate(source.names):
                rows = source.annotation(index).numpy().ravel()
                rows = rows[rows != IGNORED]
                amounts[at[path]] = np.bincount(rows, minlength=len(names))
            if amounts[[at[path] for path in source.names]].any():
                usable.update(source.names)
            else:  # training has checked its own maps
                defects.append("Every pixel of the validation maps is ignored, so none is used.")
        targets = (amounts > 0).astype(np.int8)
        maps = [each if path in usable else "" for path, each in zip(paths, maps, strict=True)]
    return Images(
        "segmentation",
        root,
        tuple(paths),
        tuple(of),
        targets,
        names,
        amounts,
        tuple(maps),
        map_knobs=_map_knobs(recipe),
        notes=tuple(notes),
        defects=tuple(defects),
    )


def _split_of(folders: Folders, kind: Kind, count: int) -> str:
    """Return a usual name of a split, by its folders if they have one.

    Args:
        folders: The folders.
        kind: What the split is for.
        count: The number of splits. A single one for training has no name but that of its folders.
    """
    parts = folders.images.name, folders.images.parent.name
    named = next((part for part in parts if kind_of(part) == kind), None)
    if named is not None:
        return named
    return "val" if kind == "validation" else "train" if count > 1 else ""


def _maps_of(
    recipe: Recipe, splits: dict[str, Pairs]
) -> tuple[list[AnnotatedSource], list[str], Recipe]:
    """Read the label maps as training does, but ignore values that stand for no class.

    Returns:
        The images of each split, lines about annotations that cannot be used, and the recipe that
        ignores these values.
    """
    defects = [
        f"{split or 'data'}: {counted(len(pairs.missing), 'image(s) without a label map')}: "
        f"{', '.join(pairs.missing[:3])}{', ...' if len(pairs.missing) > 3 else ''}."
        for split, pairs in splits.items()
        if pairs.missing
    ]
    lenient = recipe.model_copy(update={"bad_images": "skip", "val_while_train": False})
    while True:
        try:
            training, validation = find_map_sources(lenient, Place(torch.device("cpu")))
            break
        except (StorageError, MissingPackageError):
            raise
        except UnknownValuesError as error:  # once for each split that has some
            defects.append(str(error))
            ignored = (*error.ignored, *error.values)
            if len(ignored) > _MOST_IGNORED:
                return [], defects, recipe
            lenient = lenient.model_copy(update={"ignore_values": ignored})
        except DataError as error:
            return [], [*defects, str(error)], recipe
    found = [training, *([validation] if validation is not None else [])]
    left = [line for source in found for line in source.notes if line.startswith("Left out: ")]
    lines = [line.removeprefix("Left out: ") for line in dict.fromkeys(left)]
    lines = [line for line in lines if "without a label map" not in line]
    return found, [*defects, *lines], lenient


def _map_knobs(recipe: Recipe) -> dict[str, str]:
    """Return the knobs of a recipe that say which values in label maps are which classes."""
    knobs = {}
    if recipe.classes:
        knobs["classes"] = os.path.abspath(recipe.classes)
    if recipe.ignore_values:
        knobs["ignore_values"] = ",".join(map(str, recipe.ignore_values))
    if recipe.reduce_zero_label:
        knobs["reduce_zero_label"] = "True"
    return knobs
