"""The images to audit: every split of a data set of any task, with its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from convnextv2.data.dense.label_maps import IGNORED
from convnextv2.data.dense.layouts import find_layout
from convnextv2.data.dense.map_folders import Folders, Pairs, find_folders, pair
from convnextv2.data.dense.map_sources import find_map_sources
from convnextv2.data.dense.objects import objects_of
from convnextv2.data.dense.scan import scan_objects
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.folders import image_folder, unlabelled
from convnextv2.data.source import Source
from convnextv2.data.split_names import Kind, kind_of
from convnextv2.data.splits import find_splits
from convnextv2.data.table_sources import TableOptions, listed_images
from convnextv2.distributed import Place
from convnextv2.errors import DataError, MissingPackageError, StorageError
from convnextv2.recipe.columns import read_columns
from convnextv2.recipe.knobs import Recipe
from convnextv2.text import counted

TaskName = Literal["classification", "segmentation", "detection"]


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a data set, split by split.

    Attributes:
        task: What the data are for.
        root: The folder or the table.
        paths: The files.
        splits: The split of each image as the data call it; "" if there are no splits.
        targets: int64 (N,), the class of each image, -1 if unknown; int8 (N, K), 1 for each class
            that an image has, 0 for those that it does not have, -1 if unknown; None without
            labels.
        class_names: The classes.
        amounts: int64 (N, K), for detection the objects and for segmentation the pixels of each
            class; None for other tasks.
        maps: The label map of each image, "" if it has none; empty for other tasks.
        sources: Split -> images with objects, for detection.
        notes: Lines that say what was found.
        defects: Lines about annotations that cannot be used.
    """

    task: TaskName
    root: Path
    paths: tuple[str, ...]
    splits: tuple[str, ...]
    targets: NDArray[np.integer[Any]] | None = None
    class_names: tuple[str, ...] = ()
    amounts: NDArray[np.int64] | None = None
    maps: tuple[str, ...] = ()
    sources: dict[str, AnnotatedSource] | None = None
    notes: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have any number of classes."""
        return self.targets is not None and self.targets.ndim == 2

    @property
    def split_names(self) -> list[str]:
        """The splits in the order in which they were found."""
        return list(dict.fromkeys(self.splits))

    def label_of(self, index: int) -> str:
        """Return the class of an image, or its classes with | between them."""
        if self.targets is None:
            return ""
        if self.targets.ndim == 1:
            number = int(self.targets[index])
            return self.class_names[number] if number >= 0 else ""
        return "|".join(self.class_names[k] for k in np.flatnonzero(self.targets[index] == 1))


def find_images(recipe: Recipe, task: TaskName | Literal["auto"]) -> Images:
    """Find every image of a data set, in whichever form it is kept.

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
        "segmentation": _with_maps,
        "detection": _with_objects,
    }
    return find[chosen](root, recipe)


def _task_of(root: Path, recipe: Recipe) -> TaskName:
    """Find out which task data are for, by the files that are there."""
    if root.is_file() and root.suffix.lower() != ".json":
        return "classification"
    try:
        layout = find_layout(root, recipe.annotations, recipe.images_dir)
        if root.is_dir():
            return "detection"
        layout.splits[""]()  # a JSON file may be a table as well
        return "detection"
    except DataError:
        pass
    if root.is_file():
        return "classification"
    try:
        for folders in find_folders(root, *_asked(recipe)).values():
            pair(folders)
        return "segmentation"
    except DataError:
        return "classification"


def _asked(recipe: Recipe) -> tuple[str | None, str | None]:
    """Return the names of the splits that the user set; None for the usual ones."""
    given = recipe.model_fields_set
    return (
        recipe.train_split if "train_split" in given else None,
        recipe.val_split if "val_split" in given else None,
    )


def _classified(root: Path, recipe: Recipe) -> Images:
    if root.is_file():
        return _listed(root, recipe)
    found = find_splits(root, *_asked(recipe))
    if found.training is None:
        left = found.left_alone
        sources = {"": _labelled_or_not(found.root, left)}
        if found.validation:
            sources[found.validation.name] = _labelled_or_not(found.validation)
    else:
        sources = {found.training.name: _labelled_or_not(found.training)}
        tests = [found.root / name for name in found.left_alone if kind_of(name) == "test"]
        for folder in (*([found.validation] if found.validation else ()), *tests):
            sources[folder.name] = _labelled_or_not(folder)
    images = _joined("classification", root, sources)
    skipped = [name for name in found.left_alone if name not in sources]
    more = (f"Not audited: {', '.join(f'{name}/' for name in skipped)}.",) if skipped else ()
    return replace(images, notes=(*images.notes, *more))


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
        note = f"{error} Its images are audited without labels."
        return replace(source, notes=(note, *source.notes))


def _listed(root: Path, recipe: Recipe) -> Images:
    options = TableOptions(
        read_columns(recipe.columns),
        recipe.images_dir,
        recipe.image_suffix,
        {},
        recipe.labels,
        {"space": " "}.get(recipe.label_separator, recipe.label_separator),
    )
    words, notes, labelled = _words(root, options)
    if words is None:
        source = listed_images(root, options, ["train"], labelled=labelled).images["train"]
        images = _joined("classification", root, {"": source})
    else:
        sources = {
            word: listed_images(
                root, replace(options, splits={"train": word}), ["train"], labelled=labelled
            ).images["train"]
            for word in words
        }
        images = _joined("classification", root, sources)
    return replace(images, notes=(*notes, *dict.fromkeys(images.notes)))


def _words(root: Path, options: TableOptions) -> tuple[list[str] | None, list[str], bool]:
    """Read which splits a table has, and whether it has labels."""

    def read(labelled: bool) -> list[str] | None:
        table = options.read(root, labelled=labelled)
        if table.splits is None:
            return None
        counts = table.splits.counts()
        return [word for word in table.splits.words if counts.get(word)]

    try:
        return read(True), [], True
    except StorageError:
        raise
    except DataError as error:
        try:
            return read(False), [f"{error} Its images are audited without labels."], False
        except DataError:
            raise error from None


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
        for split, source in sources.items():
            if source.class_names and (absent := sorted(set(order) - set(source.class_names))):
                few = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
                notes.append(f"{split}: has no images of {few}.")
    return Images(
        task,
        root,
        tuple(name for source in sources.values() for name in source.names),
        tuple(split for split, source in sources.items() for _ in range(len(source))),
        targets,
        tuple(order),
        notes=tuple(dict.fromkeys(notes)),
    )


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


def _with_objects(root: Path, recipe: Recipe) -> Images:
    layout = find_layout(root, recipe.annotations, recipe.images_dir)
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
    return Images(
        "detection",
        root,
        tuple(name for source in sources.values() for name in source.names),
        tuple(split for split, source in sources.items() for _ in range(len(source))),
        (amounts > 0).astype(np.int8),
        tuple(names),
        amounts,
        sources=sources,
        notes=tuple(line for source in sources.values() for line in source.notes),
        defects=tuple(defects),
    )


def _with_maps(root: Path, recipe: Recipe) -> Images:
    splits = {
        _split_of(folders, kind): pair(folders)
        for kind, folders in find_folders(root, *_asked(recipe)).items()
    }
    paths, of, maps = [], [], []
    for split, pairs in splits.items():
        paths += [*pairs.images, *pairs.missing]
        maps += [*pairs.maps, *[""] * len(pairs.missing)]
        of += [split] * (len(pairs.images) + len(pairs.missing))
    notes = [line for pairs in splits.values() for line in pairs.notes]
    found, defects = _maps_of(recipe, splits)
    targets = amounts = None
    names: tuple[str, ...] = ()
    if found:
        names = found[0].class_names
        amounts = np.zeros((len(paths), len(names)), np.int64)
        at = {path: i for i, path in enumerate(paths)}
        for source in found:
            for index, path in enumerate(source.names):
                rows = source.annotation(index).numpy().ravel()
                rows = rows[rows != IGNORED]
                amounts[at[path]] = np.bincount(rows, minlength=len(names))
        targets = (amounts > 0).astype(np.int8)
    return Images(
        "segmentation",
        root,
        tuple(paths),
        tuple(of),
        targets,
        names,
        amounts,
        tuple(maps),
        notes=tuple(notes),
        defects=tuple(defects),
    )


def _split_of(folders: Folders, kind: Kind) -> str:
    """Return the name of a split by its folders; "" if the data have no splits."""
    parts = folders.images.name, folders.images.parent.name
    named = next((part for part in parts if kind_of(part) == kind), None)
    if named is None:
        return "" if kind == "train" else "val"
    return named


def _maps_of(recipe: Recipe, splits: dict[str, Pairs]) -> tuple[list[AnnotatedSource], list[str]]:
    """Read the label maps as training does, and say which cannot be used."""
    defects = [
        f"{split or 'data'}: {counted(len(pairs.missing), 'image(s) without a label map')}: "
        f"{', '.join(pairs.missing[:3])}{', ...' if len(pairs.missing) > 3 else ''}."
        for split, pairs in splits.items()
        if pairs.missing
    ]
    lenient = recipe.model_copy(update={"bad_images": "skip", "val_while_train": False})
    try:
        training, validation = find_map_sources(lenient, Place(torch.device("cpu")))
    except (StorageError, MissingPackageError):
        raise
    except DataError as error:
        return [], [*defects, str(error)]
    found = [training, *([validation] if validation is not None else [])]
    left = [line for source in found for line in source.notes if line.startswith("Left out: ")]
    lines = [line.removeprefix("Left out: ") for line in dict.fromkeys(left)]
    return found, [*defects, *(line for line in lines if "without a label map" not in line)]
