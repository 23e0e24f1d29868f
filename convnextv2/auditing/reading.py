"""Reads every split of a data set of any task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from convnextv2.auditing.annotated import with_maps, with_objects
from convnextv2.auditing.images import Images, TaskName
from convnextv2.data.dense.layouts import YAML_SUFFIXES, find_layout
from convnextv2.data.dense.map_folders import find_folders, pair
from convnextv2.data.folders import image_folder, unlabelled
from convnextv2.data.manifest import Table
from convnextv2.data.source import Source
from convnextv2.data.sources import table_options
from convnextv2.data.split_names import kind_of
from convnextv2.data.splits import SplitFolders, asked_splits, find_splits, name_below
from convnextv2.data.table_sources import TableOptions, source_of
from convnextv2.errors import DataError, StorageError
from convnextv2.recipe.knobs import Recipe


def find_images(recipe: Recipe, task: TaskName | Literal["auto"]) -> Images:
    """Find every image of a data set, whatever its format.

    Args:
        recipe: Names the data.
        task: What the data are for. "auto" looks for objects first, then for label maps, and
            otherwise assumes classification.

    Raises:
        DataError: There are no images, or their annotations cannot be used at all.
    """
    root = Path(recipe.data_dir)
    if not root.exists():
        raise DataError(f"data = {root}: no such file or folder.")
    chosen = _task_of(root, recipe) if task == "auto" else task
    find: dict[str, Callable[[Path, Recipe], Images]] = {
        "classification": _classified,
        "segmentation": with_maps,
        "detection": with_objects,
    }
    return find[chosen](root, recipe)


def _task_of(root: Path, recipe: Recipe) -> TaskName:
    """Infer the task that data are for from their files."""
    if root.is_file() and root.suffix.lower() not in (".json", *YAML_SUFFIXES):
        return "classification"
    try:
        layout = find_layout(root, recipe.annotations, recipe.images_dir)
        if "" not in layout.splits or root.is_dir():
            return "detection"
        layout.splits[""]()  # a JSON file may be a table as well
        return "detection"
    except DataError:
        pass
    if root.is_file():
        return "classification"
    try:
        for folders in find_folders(root, *asked_splits(recipe)).values():
            pair(folders)
        return "segmentation"
    except DataError:
        return "classification"


def _classified(root: Path, recipe: Recipe) -> Images:
    """Read the images of a data set for classification: a table, or folders."""
    if root.is_file():
        return _listed(root, recipe)
    train_split, val_split = asked_splits(recipe)
    found = find_splits(root, train_split, val_split)
    name_of = partial(name_below, found.root)  # since two folders may have one name
    if found.training is not None:
        sources = {name_of(found.training): _labelled_or_not(found.training)}
        tests = [found.root / name for name in found.left_alone if kind_of(name) == "test"]
    else:
        sources, tests = _beside_validation(found), []
    for folder in filter(None, (found.validation, *tests)):
        sources[name_of(folder)] = _labelled_or_not(folder)
    images = _joined("classification", root, sources)
    skipped = [name for name in found.left_alone if name not in sources]
    more = (f"Not audited: {', '.join(f'{name}/' for name in skipped)}.",) if skipped else ()
    if train_split is not None and found.training is not None:
        train_split = name_of(found.training)
    if val_split is not None and found.validation is not None:
        val_split = name_of(found.validation)
    return replace(images, asked=(train_split, val_split), notes=(*images.notes, *more))


def _beside_validation(found: SplitFolders) -> dict[str, Source]:
    """Read the images of a folder without a split for training.

    Everything beside a split for validation is for training. There may be nothing.
    """
    if found.validation is None:
        return {"": _labelled_or_not(found.root, sorted(found.left_alone))}
    outside = {*found.left_alone, found.validation.name}
    try:
        return {"train": _labelled_or_not(found.root, sorted(outside))}
    except StorageError:
        raise
    except DataError:
        return {}


def _labelled_or_not(folder: Path, left_alone: Sequence[str] = ()) -> Source:
    """List the images of classes, or all images of a folder that has none."""
    try:
        return image_folder(folder, left_alone=left_alone)
    except StorageError:
        raise
    except DataError as error:
        try:
            source = unlabelled(folder, left_alone=left_alone)
        except DataError:
            raise error from None
        return replace(source, notes=(_without_labels(error), *source.notes))


def _without_labels(error: DataError) -> str:
    return f"{error} Its images are audited without labels."


def _listed(root: Path, recipe: Recipe) -> Images:
    """Read every split of a table, with the labels of the splits that have them."""
    options = table_options(recipe)
    notes: list[str] = []
    try:
        table = options.read(root, labelled=True)
        splits = {"": table} if table.splits is None else _by_split(table)
    except StorageError:
        raise
    except DataError as error:
        splits, notes = _read_apart(root, options, error)
    images = _joined(
        "classification",
        root,
        {
            word: source_of(root, part, part.sets.classes if part.sets else ())
            for word, part in splits.items()
        },
    )
    return replace(images, asked=asked_splits(recipe), notes=(*notes, *images.notes))


def _by_split(table: Table) -> dict[str, Table]:
    assert table.splits is not None
    return {word: table.of_splits([word]) for word in table.splits.counts()}


def _read_apart(
    root: Path, options: TableOptions, error: DataError
) -> tuple[dict[str, Table], list[str]]:
    """Read a table whose labels cannot be read as a whole, split by split.

    Args:
        root: The table.
        options: How to read it.
        error: Why it cannot be read as a whole.

    Returns:
        The images of each split, and notes about those whose labels are not read.
    """

    def read(word: str, options: TableOptions) -> Table:
        return options.read(root, labelled=True, wanted=lambda _: [word])

    try:
        whole = options.read(root, labelled=False)
    except DataError:
        raise error from None
    if whole.splits is None:
        return {"": whole}, [_without_labels(error)]
    splits = _by_split(whole)
    labelled: list[str] = []
    notes: list[str] = []
    for word in splits:
        try:
            splits[word] = read(word, options)
            labelled.append(word)
        except StorageError:
            raise
        except DataError as reason:
            notes.append(f"{word or 'no split'}: {_without_labels(reason)}")
    single = [word for word in labelled if splits[word].sets is None]
    if len(single) < len(labelled):  # if images of one split may have several, those of all may
        splits |= {word: read(word, replace(options, labels="multi")) for word in single}
    return splits, notes if labelled else [_without_labels(error)]


def _joined(task: TaskName, root: Path, sources: dict[str, Source]) -> Images:
    """Join the images of several splits, whose classes may differ."""
    names: dict[str, int] = {}
    for source in sources.values():
        for name in source.class_names:
            names.setdefault(name, len(names))
    order = sorted(names) if len(sources) > 1 else list(names)
    row = {name: i for i, name in enumerate(order)}
    parts = [_with_rows(source, row) for source in sources.values()]
    targets = None
    if names:
        several = any(part is not None and part.ndim == 2 for part in parts)
        targets = np.concatenate(
            [
                _unknown(len(source), len(order), several) if part is None else part
                for source, part in zip(sources.values(), parts, strict=True)
            ]
        )
    notes = [line for source in sources.values() for line in source.notes]
    if len(sources) > 1:
        notes += _absent_notes(sources, order)
    return Images(
        task=task,
        root=root,
        paths=tuple(name for source in sources.values() for name in source.names),
        splits=tuple(split for split, source in sources.items() for _ in range(len(source))),
        targets=targets,
        class_names=tuple(order),
        notes=tuple(dict.fromkeys(notes)),
    )


def _absent_notes(sources: dict[str, Source], class_names: Sequence[str]) -> list[str]:
    """Return a line about each split with labels in which some of the classes do not occur."""
    notes = []
    for split, source in sources.items():
        absent = sorted(set(class_names) - set(source.class_names))
        if source.class_names and absent:
            few = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            notes.append(f"{split or 'no split'}: has no images of {few}.")
    return notes


def _unknown(count: int, classes: int, several: bool) -> NDArray[Any]:
    return np.full((count, classes), -1, np.int8) if several else np.full(count, -1, np.int64)


def _with_rows(source: Source, row: dict[str, int]) -> NDArray[Any] | None:
    """Number the classes of a source as `row` does."""
    if source.targets is None:
        return None
    moved = np.array([row[name] for name in source.class_names], np.int64)
    if source.targets.ndim == 1:
        return np.where(source.targets >= 0, moved[source.targets.clip(0)], -1)
    targets = np.zeros((len(source), len(row)), np.int8)
    targets[:, moved] = source.targets
    return targets
