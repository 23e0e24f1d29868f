"""The sources of a recipe for segmentation: images with label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from convnextv2.data.dense.class_table import (
    ClassTable,
    find_class_table,
    read_class_table,
)
from convnextv2.data.dense.label_maps import Coding, LabelMaps, is_coloured, read_values
from convnextv2.data.dense.map_classes import build_coding, check_values, decide_classes
from convnextv2.data.dense.map_folders import EXPECTED, Pairs, find_folders, pair
from convnextv2.data.dense.scan_maps import MapScan, scan_maps
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.randomness import generator_for
from convnextv2.data.split_names import Kind
from convnextv2.data.splits import (
    asked_split,
    check_training_held_out,
    held_out,
    held_out_note,
    set_apart,
)
from convnextv2.data.storage import read_file
from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe
from convnextv2.text import brief, counted

_SNIFFED = 20
"""The number of maps that are read to detect whether their values are colours."""
_MAX_NAMED = 10


@dataclass(frozen=True, eq=False)
class Scanned:
    """The usable images and maps of a split.

    Attributes:
        pairs: The images and their maps.
        scan: The result of the scan.
    """

    pairs: Pairs
    scan: MapScan


def find_map_sources(
    recipe: Recipe, place: Place
) -> tuple[AnnotatedSource, AnnotatedSource | None]:
    """Find a recipe's images with label maps, and scan all of them for defects.

    Args:
        recipe: Names the data.
        place: This rank. The ranks share the scan.

    Returns:
        The training images, and the validation images or None. The notes of the first state what
        was found.

    Raises:
        DataError: There are no such images, or they have defects. The message lists all kinds.
    """
    root = _root(recipe.data_dir)
    splits = _splits(root, recipe)
    table, notes = _table(root, recipe.classes)
    _check_splits(splits, recipe, root)
    coloured = _are_coloured(splits["train"], table, recipe.max_image_pixels)
    scanned = {kind: _scan(pairs, recipe, place, coloured) for kind, pairs in splits.items()}
    scans = [each.scan for each in scanned.values()]
    classes, ignored, more = decide_classes(table, scans, recipe, coloured)
    coding = build_coding(classes, range(len(classes.names)), ignored, coloured)
    for each in scanned.values():
        check_values(each.scan, coding)
    notes += more
    training = _source(scanned["train"], coding, classes.names, recipe.max_image_pixels)
    if "validation" in scanned:
        validation: AnnotatedSource | None = _source(
            scanned["validation"], coding, classes.names, recipe.max_image_pixels
        )
    else:
        training, validation, line = _hold_out(training, recipe, root)
        notes.append(line)
    if _is_all_ignored(scanned["train"], coding):
        raise DataError(
            f"{root}: every pixel of the training maps is ignored, so there is nothing to learn. "
            "Check classes, ignore_values and reduce_zero_label."
        )
    is_measured = recipe.val_while_train and "validation" in scanned
    if is_measured and _is_all_ignored(scanned["validation"], coding):
        raise DataError(
            f"{root}: every pixel of the validation maps is ignored, so there is nothing to "
            "measure. Give other maps, or set val_while_train = False."
        )
    notes += _class_notes(scanned, coding, classes.names)
    if recipe.num_samples is not None and recipe.num_samples < len(training):
        order = torch.randperm(len(training), generator=generator_for(recipe.seed, "num_samples"))
        training = training.subset(order[: recipe.num_samples].sort().values.numpy())
    if validation is not None:  # a note about both splits is shown once
        own = (note for note in validation.notes if note not in training.notes)
        validation = replace(validation, notes=tuple(own))
    return replace(training, notes=(*notes, *training.notes)), validation


def map_validation_source(
    recipe: Recipe, class_names: Sequence[str], place: Place, *, trained_on: bool
) -> AnnotatedSource:
    """Find the images to evaluate a segmentor on.

    Args:
        recipe: Names the data.
        class_names: The model's classes, in the order of its rows.
        place: This rank. The ranks share the scan.
        trained_on: Whether the model was trained on these data.

    Returns:
        The validation split. If the data have no splits: the images that training held out, or all
        images if the model was not trained on these data.

    Raises:
        DataError: There are no such images, they have defects, or a class is not the model's.
    """
    root = _root(recipe.data_dir)
    splits = _splits(root, recipe)
    if "validation" not in splits and asked_split(recipe, "val_split") is not None:
        raise DataError(f"val_split = {recipe.val_split}: {root} has no such split.")
    kind: Kind = "validation" if "validation" in splits else "train"
    table, notes = _table(root, recipe.classes)
    coloured = _are_coloured(splits[kind], table, recipe.max_image_pixels)
    scanned = _scan(splits[kind], recipe, place, coloured)
    classes, ignored, more = decide_classes(table, [scanned.scan], recipe, coloured, class_names)
    known = {name: row for row, name in enumerate(class_names)}
    if unknown := [name for name in classes.names if name not in known]:
        raise DataError(
            f"{root}: class {unknown[0]!r} is not among those of the model "
            f"({brief(list(class_names))}). Give a class table with the model's names (classes)."
        )
    rows = [known[name] for name in classes.names]
    coding = build_coding(classes, rows, ignored, coloured)
    check_values(scanned.scan, coding)
    source = _source(scanned, coding, tuple(class_names), recipe.max_image_pixels)
    if kind == "train" and trained_on:
        check_training_held_out(recipe)
        chosen = _hold_out(source, recipe, root)[1]
        if chosen is None:
            raise DataError(f"{root}: training held out no images. Give others with data_dir.")
        source = chosen
    return replace(source, notes=(*notes, *more, *source.notes))


def map_summary(training: AnnotatedSource, validation: AnnotatedSource | None) -> str:
    """Return the numbers of images and classes in one line."""
    names = training.class_names
    few, more = ", ".join(names[:_MAX_NAMED]), ", ..." * (len(names) > _MAX_NAMED)
    return (
        f"{len(training):,} images with label maps for training, {len(names):,} classes "
        f"({few}{more}); {len(validation) if validation else 0:,} for validation."
    )


def _root(data_dir: str) -> Path:
    if not data_dir:
        raise DataError(f"data_dir is missing. Give a folder with {EXPECTED}.")
    root = Path(data_dir)
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise DataError(f"data_dir = {root}: {what}. Expected a folder with {EXPECTED}.")
    return root


def _splits(root: Path, recipe: Recipe) -> dict[Kind, Pairs]:
    folders = find_folders(
        root,
        asked_split(recipe, "train_split"),
        asked_split(recipe, "val_split"),
    )
    return {kind: pair(each) for kind, each in folders.items()}


def _check_splits(splits: Mapping[Kind, Pairs], recipe: Recipe, root: Path) -> None:
    """Raise DataError if there is no split for training, or none for validation that was named."""
    asked = asked_split(recipe, "train_split")
    if "train" not in splits and asked is not None:
        raise DataError(f"train_split = {asked}: {root} has no such split.")
    if "train" not in splits:
        raise DataError(
            f"{root}: has no images for training. Expected {EXPECTED}, or set train_split."
        )
    asked = asked_split(recipe, "val_split")
    if "validation" not in splits and asked is not None and recipe.val_while_train:
        raise DataError(
            f"val_split = {asked}: {root} has no such split, so there is nothing to validate on. "
            "Set it to another one, or val_while_train = False."
        )


def _is_all_ignored(scanned: Scanned, coding: Coding) -> bool:
    """Return whether no pixel of the maps belongs to a class."""
    return not any(scanned.scan.pixels.get(value, 0) for value in coding.values)


def _table(root: Path, classes: str) -> tuple[ClassTable | None, list[str]]:
    if classes:
        path = Path(classes)
        if not path.is_file():
            raise DataError(f"classes = {path}: no such file. Expected a table of id and name.")
        return read_class_table(path), []
    found = find_class_table(root)
    if found is None:
        return None, []
    table = read_class_table(found)
    return table, [f"{found}: {len(table.names)} classes."]


def _are_coloured(pairs: Pairs, table: ClassTable | None, max_pixels: int) -> bool:
    """Detect whether the values of maps are colours, if the class table has colours."""
    if table is None or not table.colours:
        return False
    for index in range(min(_SNIFFED, len(pairs.maps))):
        try:
            values = read_values(
                read_file(pairs.maps, index),
                name=pairs.maps[index],
                max_pixels=max_pixels,
                coloured=True,
            )
        except DataError:  # the scan reports it
            continue
        if is_coloured(values):
            return True
    return False


def _scan(pairs: Pairs, recipe: Recipe, place: Place, coloured: bool) -> Scanned:
    """Scan a split, and leave out unusable images if the recipe allows it."""
    scan = scan_maps(
        pairs,
        place,
        channels=recipe.in_channels,
        coloured=coloured,
        max_pixels=recipe.max_image_pixels,
    )
    lines = scan.lines(pairs)
    examples = ", ".join(pairs.images[i] for i in scan.maybe_turned[:3])
    if lines and recipe.bad_images == "fail":
        listed = "\n".join(f"  {line}" for line in lines)
        total, bad = len(pairs.images) + len(pairs.missing), len(scan.bad) + len(pairs.missing)
        raise DataError(
            f"{bad:,} of {counted(total, 'image(s)')} with label maps cannot be used:\n"
            f"{listed}\nRepair or remove these files, or set bad_images = skip to leave them out."
        )
    if lines:
        good = [i for i in range(len(pairs.images)) if i not in scan.bad]
        if not good:
            raise DataError("no image and label map can be used: " + " ".join(lines))
        pairs = replace(
            pairs,
            images=pairs.images.take(good),
            maps=pairs.maps.take(good),
            missing=(),
            notes=(*pairs.notes, *(f"Left out: {line}" for line in lines)),
        )
    if scan.turned:
        what = counted(len(scan.turned), "image(s)")
        line = f"EXIF rotates {what}; the maps match the rotated images."
        pairs = replace(pairs, notes=(*pairs.notes, line))
    if scan.maybe_turned:
        line = (
            f"EXIF turns {counted(len(scan.maybe_turned), 'image(s)')}, and no size says whether "
            f"the maps are turned (such as {examples}); they are taken for the upright images."
        )
        pairs = replace(pairs, notes=(*pairs.notes, line))
    return Scanned(pairs, scan)


def _source(
    scanned: Scanned, coding: Coding, names: Sequence[str], max_pixels: int
) -> AnnotatedSource:
    pairs = scanned.pairs
    return AnnotatedSource(
        pairs.images,
        class_names=tuple(names),
        max_pixels=max_pixels,
        notes=pairs.notes,
        annotations=LabelMaps(pairs.maps, coding, max_pixels),
    )


def _hold_out(
    source: AnnotatedSource, recipe: Recipe, root: Path
) -> tuple[AnnotatedSource, AnnotatedSource | None, str]:
    """Hold images out for validation, because the data have no validation split."""
    if not recipe.val_while_train:
        return source, None, f"{root} has no images for validation, and val_while_train is off."
    chosen = held_out(np.zeros(len(source), np.int64), 1, recipe.val_fraction, recipe.seed)
    if not len(chosen):
        return source, None, f"{root} has one image, so none is held out and nothing is validated."
    note = held_out_note(f"{root} has no folders for validation", len(chosen), len(source))
    return (*set_apart(source, chosen), note)


def _class_notes(scanned: dict[Kind, Scanned], coding: Coding, names: Sequence[str]) -> list[str]:
    """Return notes about classes that do not occur, and about the share of ignored pixels."""
    lines = []
    words = {"train": "training", "validation": "validation"}
    for kind, each in scanned.items():
        pixels = each.scan.pixels
        absent = [
            names[row]
            for value, row in zip(coding.values, coding.rows, strict=True)
            if not pixels[value]
        ]
        if absent:
            few, more = ", ".join(absent[:5]), ", ..." * (len(absent) > 5)
            effect = (
                "cannot be learned"
                if kind == "train"
                else "have an IoU of 0 if the model predicts them, else none"
            )
            lines.append(
                f"{len(absent)} of {len(names)} classes occur in no {words[kind]} map and {effect}"
                f": {few}{more}."
            )
        total = sum(pixels.values())
        share = sum(pixels[value] for value in coding.ignored if value not in coding.values) / total
        if share:
            lines.append(f"{share:.1%} of the pixels of the {words[kind]} maps are ignored.")
    return lines
