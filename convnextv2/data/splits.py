"""Finds the splits of a data set in folders, or holds images out for validation.

Folders of splits are found by their usual names. If there is no validation split, images are held
out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from convnextv2.data.formats import SUFFIXES
from convnextv2.data.listing import scan, visible_folders
from convnextv2.data.randomness import generator_for
from convnextv2.data.source import Source
from convnextv2.data.split_names import Kind, kind_of
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe, default_of

HERE = "."
"""The value of `train_split` which states that the folder has no splits, only classes."""

_MAX_NESTED = 4

S = TypeVar("S", bound=Source)


@dataclass(frozen=True)
class SplitFolders:
    """The folders of the splits of a data set.

    Attributes:
        root: The folder that holds the splits, or the classes if there are no splits.
        training: The training split; None if there is none.
        validation: The validation split; None if there is none.
        left_alone: The names of the folders in `root` that are not used.
        notes: Messages to the user about what was found.
    """

    root: Path
    training: Path | None
    validation: Path | None
    left_alone: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find_splits(root: Path, train_split: str | None, val_split: str | None) -> SplitFolders:
    """Find the splits of a folder of images.

    Args:
        root: The folder.
        train_split: The user's name of the training split; None to look for usual names.
        val_split: The user's name of the validation split; None likewise.

    Returns:
        The splits. A split is None if the folder of the given name does not exist.

    Raises:
        DataError: Several folders are possible, or splits lie where classes are expected.
    """
    if train_split == HERE:
        validation = _named(root, val_split)
        return SplitFolders(root, None, validation, (validation.name,) if validation else ())
    outer, root = root, _descend(root, train_split)
    names = list(visible_folders(root)[0])
    training = _named(root, train_split) or _usual(root, names, "train", train_split)
    validation = _named(root, val_split) or _usual(root, names, "validation", val_split)
    used = {Path(name_below(root, path)).parts[0] for path in (training, validation) if path}
    tests = [name for name in names if kind_of(name) == "test" and name not in used]
    if training:
        left = tuple(name for name in names if name not in used)
        _check_no_splits_in(training)
        notes = [_announce(root, outer, training, validation, left)]
        if validation and os.path.realpath(validation) == os.path.realpath(training):
            notes.append(
                f"{validation}: is the same folder as {training}, so what is measured on it says "
                "nothing about new images."
            )
        return SplitFolders(root, training, validation, left, tuple(notes))
    if not tests or all(kind_of(name) for name in names):
        return SplitFolders(root, None, validation)
    note = (
        f"{root}: {_listed(tests)} is treated as a test split and not used. If it is a class, use "
        f"--train_split {HERE} instead."
    )
    return SplitFolders(root, None, validation, tuple(tests), (note,))


def name_below(root: Path, folder: Path) -> str:
    """Return the path of a folder below `root`, or its own path if it lies elsewhere."""
    is_inside = folder.is_relative_to(root)
    return (folder.relative_to(root) if is_inside else folder).as_posix()


def asked_split(recipe: Recipe, knob: Literal["train_split", "val_split"]) -> str | None:
    """Return the name of a split if the user set it; None if it is the default."""
    name: str = getattr(recipe, knob)
    return name if knob in recipe.model_fields_set or name != default_of(knob) else None


def asked_splits(recipe: Recipe) -> tuple[str | None, str | None]:
    """Return the names of the splits for training and for validation, as `asked_split` does."""
    return asked_split(recipe, "train_split"), asked_split(recipe, "val_split")


def check_data_dir(data_dir: str, needs: str) -> Path:
    """Check that the folder or table of the data exists.

    Args:
        data_dir: The value of the knob `data_dir`.
        needs: A description of the expected value, for error messages.

    Returns:
        The path.

    Raises:
        DataError: The value is empty, or the path does not exist.
    """
    if not data_dir:
        raise DataError(f"data_dir is missing. Give {needs}.")
    root = Path(data_dir)
    if not root.exists():
        parent = next((p for p in root.absolute().parents if p.exists()), Path.cwd())
        raise DataError(f"data_dir = {root}: no such folder ({parent} is the nearest that exists).")
    return root


def set_apart(source: S, chosen: NDArray[np.int64]) -> tuple[S, S]:
    """Divide images into those for training and those that are held out.

    Args:
        source: The images.
        chosen: The indices of the images that are held out.

    Returns:
        The training images, and the images that are held out. The latter have no notes.
    """
    rest = np.setdiff1d(np.arange(len(source)), chosen, assume_unique=True)
    training, validation = source.subset(rest), replace(source.subset(chosen), notes=())
    return cast(S, training), cast(S, validation)


def held_out(
    targets: NDArray[np.integer[Any]], classes: int, fraction: float, seed: int
) -> NDArray[np.int64]:
    """Choose the images that are held out for validation, class by class.

    Args:
        targets: int64 (N,), the class of each image.
        classes: The number of classes.
        fraction: The share of each class. If a class has two or more images, at least one of them
            is held out.
        seed: The seed of the choice.

    Returns:
        Sorted indices, int64.
    """
    order = np.argsort(targets, kind="stable")
    bounds = np.searchsorted(targets[order], np.arange(classes + 1))
    chosen = [np.empty(0, np.int64)]
    for target in range(classes):
        members = order[bounds[target] : bounds[target + 1]]
        count = max(1, round(fraction * len(members))) if len(members) > 1 else 0
        shuffled = torch.randperm(
            len(members), generator=generator_for(seed, "split", target)
        ).numpy()
        chosen.append(members[shuffled[:count]])
    return np.sort(np.concatenate(chosen))


def held_out_evenly(
    targets: NDArray[np.integer[Any]], fraction: float, seed: int
) -> NDArray[np.int64]:
    """Choose the images that are held out for validation if images may have several labels.

    The images are distributed class by class, beginning with the rarest class, so that validation
    gets nearly the same share of each class. Source: iterative stratification (Sechidis et al.
    2011).

    Args:
        targets: int8 (N, K), 1 for a label that an image has.
        fraction: The share of each class. If a class has two or more images, at least one of them
            is held out.
        seed: The seed of the choice.

    Returns:
        Sorted indices, int64.
    """
    positive = targets == 1
    counts = positive.sum(axis=0)
    order = torch.randperm(len(targets), generator=generator_for(seed, "split")).numpy()
    share = np.where(counts > 1, np.maximum(fraction * counts, 1), 0)
    wanted = np.stack([counts - share, share])  # in training and in validation, by class
    room = np.array([1 - fraction, fraction]) * len(targets)
    left, chosen = np.ones(len(targets), bool), np.zeros(len(targets), bool)
    while counts.any():
        rarest = int(np.argmin(np.where(counts > 0, counts, len(targets) + 1)))
        for image in order[left[order] & positive[order, rarest]].tolist():
            lead = wanted[1, rarest] - wanted[0, rarest] or room[1] - room[0]
            side = int(lead > 0)
            wanted[side] -= positive[image]
            room[side] -= 1
            counts -= positive[image]
            left[image], chosen[image] = False, bool(side)
    rest = order[left[order]]
    chosen[rest[: max(0, round(float(room[1])))]] = True
    return np.flatnonzero(chosen)


def hold_out(source: Source, recipe: Recipe, why: str) -> tuple[Source, Source | None]:
    """Hold images out for validation, as the recipe's `val_fraction` and `seed` state.

    Args:
        source: The images, with targets.
        recipe: The recipe.
        why: The beginning of the note: the reason why images are held out.

    Returns:
        The training images, and the validation images or None if no class has two images.
    """
    assert source.targets is not None
    if source.is_multi_label:
        chosen = held_out_evenly(source.targets, recipe.val_fraction, recipe.seed)
    else:
        chosen = held_out(source.targets, len(source.class_names), recipe.val_fraction, recipe.seed)
    if not len(chosen):
        note = "No class has two images, so none is held out and nothing is validated."
        return replace(source, notes=(*source.notes, note)), None
    training, validation = set_apart(source, chosen)
    note = held_out_note(why, len(validation), len(source))
    return replace(training, notes=(*source.notes, note)), validation


def held_out_note(why: str, held_out: int, images: int) -> str:
    """Return the note that says how many of the images are held out for validation."""
    verb = "is" if held_out == 1 else "are"
    return f"{why}: {held_out:,} of {images:,} images {verb} held out for validation."


def held_out_by_training(source: Source, recipe: Recipe) -> Source:
    """Return the images of a source without splits that training held out.

    Raises:
        DataError: Training held no images out.
    """
    check_training_held_out(recipe)
    chosen = hold_out(source, recipe, "")[1]
    if chosen is None:
        raise DataError(
            f"{recipe.data_dir}: no class has two images, so training held none out. Give other "
            "images."
        )
    return replace(chosen, notes=source.notes)


def check_training_held_out(recipe: Recipe) -> None:
    """Raise DataError if a training on data without splits used all images."""
    if not recipe.val_while_train:
        raise DataError(
            f"{recipe.data_dir}: was trained on as a whole (val_while_train = False). Give other "
            "images with data_dir, or val_split."
        )


def check_val_split(recipe: Recipe, root: Path, *, only_named: bool = False) -> None:
    """Raise DataError if the user asked for validation, but the data have no validation split.

    Args:
        recipe: The recipe.
        root: The folder or table, for the message.
        only_named: Whether only the knob `val_split` counts as asking for validation.
    """
    asked = not only_named and (
        recipe.keep_policy == "top_k" or "val_while_train" in recipe.model_fields_set
    )
    if recipe.val_while_train and (asked or asked_split(recipe, "val_split") is not None):
        raise DataError(
            f"val_split = {recipe.val_split}: {root} has no such split, so there is nothing to "
            "validate on. Set it to the one with the validation images, or val_while_train = False."
        )


def _check_no_splits_in(training: Path) -> None:
    """Check that no split lies inside the training split, where it would be used as a class."""
    for name, folder in visible_folders(training)[0].items():
        if kind_of(name) in ("validation", "test") and visible_folders(folder)[0]:
            raise DataError(
                f"{training}: holds {name}/, which looks like a split. Move it beside "
                f"{training.name}/, or rename it if it is a class."
            )


def _descend(root: Path, train_split: str | None) -> Path:
    """Return the folder with the splits, which archives often contain in another folder."""
    inner = root
    for _ in range(_MAX_NESTED):
        folders = visible_folders(inner)[0]
        wanted = [name for name in folders if name == train_split or kind_of(name) == "train"]
        if wanted:
            return inner
        if len(folders) != 1 or _holds_images(inner):
            return root
        inner = next(iter(folders.values()))
    return root


def _holds_images(folder: Path) -> bool:
    """Return whether a folder directly contains images."""
    with scan(str(folder)) as entries:
        return any(os.path.splitext(entry.name)[1].lower() in SUFFIXES for entry in entries)


def _named(root: Path, split: str | None) -> Path | None:
    return root / split if split and split != HERE and (root / split).is_dir() else None


def _usual(root: Path, names: list[str], kind: Kind, given: str | None) -> Path | None:
    """Return the folder with a usual name of this split, unless the user gave a name."""
    if given is not None:
        return None
    found = [name for name in names if kind_of(name) == kind]
    exact = {"train": "train", "validation": "val", "test": "test"}[kind]
    if exact in found:
        return root / exact
    if len(found) > 1:
        knob = "train_split" if kind == "train" else "val_split"
        raise DataError(f"{root}: has {_listed(found)}. Set {knob} to the right one.")
    return root / found[0] if found else None


def _announce(
    root: Path, outer: Path, training: Path, validation: Path | None, left: tuple[str, ...]
) -> str:
    where = f"{root} (inside {outer})" if root != outer else str(root)
    line = f"{where}: {name_below(root, training)}/ is for training"
    line += f", {name_below(root, validation)}/ for validation" if validation else ""
    return line + (f"; not used: {_listed(list(left))}." if left else ".")


def _listed(names: list[str]) -> str:
    shown = [f"{name}/" for name in names[:5]]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    if more or len(shown) < 2:
        return ", ".join(shown) + more
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
