"""Finds the folders of images and label maps, and pairs the files in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convnextv2.data.dense.class_table import has_pixel_values
from convnextv2.data.dense.image_sets import listed_names
from convnextv2.data.dense.map_names import (
    ANY_MAP,
    find_map_end,
    maps_by_stem,
    match_maps,
    stem_of,
)
from convnextv2.data.formats import SUFFIXES
from convnextv2.data.listing import Walk, visible_folders
from convnextv2.data.path_list import PathList, PathListBuilder
from convnextv2.data.split_names import Kind, kind_of
from convnextv2.errors import DataError
from convnextv2.text import counted, plain

IMAGE_FOLDERS = (
    *("images", "image", "imgs", "img", "photos", "photo", "pictures", "jpegimages", "input"),
    *("inputs", "leftimg8bit", "rgb"),
)
"""The usual names of folders of images. Letter case makes no difference."""
MAP_FOLDERS = (
    *("annotations", "annotation", "masks", "mask", "labels", "label", "label_maps", "labelmaps"),
    *("segmentation", "segmentations", "segmentationclass", "segmentation_masks", "gt", "gtfine"),
    *("ground_truth", "groundtruth", "targets", "target", "masks_machine"),
)
"""The usual names of folders of label maps."""
_SPLIT_ENDS = ("annot", "_annot", "_annotations", "_labels", "_label", "_masks", "_mask", "_gt")
_KNOBS: dict[Kind, str] = {"train": "train_split", "validation": "val_split"}

EXPECTED = (
    "images/train, images/val, annotations/train and annotations/val; or train/images, "
    "train/masks, val/images and val/masks; or images and masks; or train and val, each with masks "
    "beside their images (a.jpg and a_mask.png)"
)


@dataclass(frozen=True)
class Folders:
    """The folders of one split.

    Attributes:
        images: The folder of the images.
        maps: The folder of their label maps.
        names: A list of the names of the images of the split; None if all in the folder belong to
            it.
        map_end: The ending by which the names of label maps differ from those of images in the same
            folder; "" if the maps have a folder of their own.
    """

    images: Path
    maps: Path
    names: Path | None = None
    map_end: str = ""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Images and their label maps, sorted by the path of the image.

    Attributes:
        images: The images that have a label map.
        maps: The label map of each image.
        missing: Images without a label map.
        spare: The number of label maps without an image.
        notes: Messages to the user.
    """

    images: PathList
    maps: PathList
    missing: tuple[str, ...] = ()
    spare: int = 0
    notes: tuple[str, ...] = ()


def find_folders(
    root: Path, train_split: str | None = None, val_split: str | None = None
) -> dict[Kind, Folders]:
    """Find the folders of a data set with label maps.

    Args:
        root: The folder of the data set.
        train_split: The name of the folders with training images; None for the usual names.
        val_split: The name of the folders with validation images; None likewise.

    Returns:
        The folders of "train" and "validation", if they exist. Without splits, all data are in
        "train".

    Raises:
        DataError: There are no such folders, or several are possible.
    """
    asked: dict[Kind, str | None] = {"train": train_split, "validation": val_split}
    inside = _lower(root)
    images = _one(root, inside, IMAGE_FOLDERS, SUFFIXES)
    maps = _one(root, inside, MAP_FOLDERS, ANY_MAP)
    if images and maps:
        found = _splits_listed(root, images, maps, asked) or _splits_inside(images, maps, asked)
    else:
        found = _splits_outside(root, asked)
        if not found and not maps and not any(asked.values()):
            found = _beside(images or root, "train")
    if not found:
        there = ", ".join(f"{path.name}/" for path in inside.values()) or "no folders"
        raise DataError(f"{root}: has {there[:200]}. Expected {EXPECTED}.")
    return found


def pair(folders: Folders) -> Pairs:
    """Pair images with the label maps whose paths are the same, without the ending.

    The names of all maps may end in an additional `_mask`, `_seg` or the like, or be those of the
    whole files of the images with an additional ending, such as a.jpg.png.

    Raises:
        DataError: There are no images, or no map belongs to any of them.
    """
    if folders.map_end:
        images, maps, notes = _told_apart(folders)
        map_notes: tuple[str, ...] = ()
    else:
        images, notes = _listed(folders.images, SUFFIXES)
        maps, map_notes = _listed(folders.maps, ANY_MAP)
    if not len(images):
        raise DataError(f"{folders.images}: holds no image.")
    if folders.names:
        images, note = _of_list(images, folders.images, folders.names)
        notes += (note,)
    if not len(maps):
        raise DataError(f"{folders.maps}: holds no label map. Expected PNG files.")
    exact, doubles = maps_by_stem(maps, folders.maps)
    match, how = match_maps(images, folders.images, exact)
    if not any(match):
        raise DataError(
            f"{folders.maps}: no label map has the name of an image ({Path(maps[0]).name}, and "
            f"{Path(images[0]).name}). Expected the same names, with any ending."
        )
    chosen = [i for i, path in enumerate(match) if path]
    used = [path for path in match if path]
    taken = set(used)
    unread = [(path, other) for path, other in doubles if other in taken]
    spare, shared = len(maps) - len(taken) - len(unread), len(used) - len(taken)
    notes += map_notes
    if folders.map_end:
        how = f"Label maps are the files beside the images whose names end in {folders.map_end}."
    if how:
        notes += (how,)
    if unread:
        path, other = (os.path.relpath(each, folders.maps) for each in unread[0])
        what = counted(len(unread), "label map(s) with the name of another one")
        notes += (f"{folders.maps}: skipped {what} ({path}, because {other} is used).",)
    if spare and not folders.names:
        notes += (f"{folders.maps}: {counted(spare, 'label map(s)')} without an image.",)
    if shared:
        what = counted(shared, "image(s) with the label map of another image")
        notes += (f"{folders.images}: {what}, because their names differ only in ending or case.",)
    missing = tuple(images[i] for i, path in enumerate(match) if not path)
    return Pairs(images.take(chosen), PathList.of(used), missing, spare, notes)


def _splits_listed(
    root: Path, images: Path, maps: Path, asked: dict[Kind, str | None]
) -> dict[Kind, Folders]:
    """Find splits that are lists in ImageSets/Segmentation, as in Pascal VOC."""
    lists = {path.stem: path for path in sorted(root.glob("ImageSets/Segmentation/*.txt"))}
    found: dict[Kind, Folders] = {}
    for kind, name in asked.items():
        usual = (stem for stem in lists if kind_of(stem) == kind)
        path = lists.get(next(usual, "") if name is None else name)
        if path is not None:
            found[kind] = Folders(images, maps, path)
    return found


def _splits_inside(images: Path, maps: Path, asked: dict[Kind, str | None]) -> dict[Kind, Folders]:
    """Find splits that are folders inside the folder of images and inside that of maps."""
    found: dict[Kind, Folders] = {}
    image_splits, map_splits = _lower(images), _lower(maps)
    for kind, name in asked.items():
        first, second = (_split(inside, kind, name) for inside in (image_splits, map_splits))
        if first and second:
            found[kind] = Folders(first, second)
        elif first or second:
            has, lacks = (images, maps) if first else (maps, images)
            raise DataError(f"{lacks}: has no folder for the split that {has} has ({kind}).")
    if "train" not in found and "validation" not in found:
        if any(name is not None for name in asked.values()):
            kind = "train" if asked["train"] is not None else "validation"
            raise DataError(f"{_KNOBS[kind]} = {asked[kind]}: {images} has no such folder.")
        found["train"] = Folders(images, maps)
    return found


def _splits_outside(root: Path, asked: dict[Kind, str | None]) -> dict[Kind, Folders]:
    """Find splits that are folders of the data set, with the maps in or beside each of them."""
    found: dict[Kind, Folders] = {}
    inside = _lower(root)
    for kind, name in asked.items():
        split = _split(inside, kind, name)
        if split is None:
            continue
        parts = _lower(split)
        images = _one(split, parts, IMAGE_FOLDERS, SUFFIXES)
        maps = _one(split, parts, MAP_FOLDERS, ANY_MAP)
        beside = [
            inside[f"{split.name}{end}".casefold()]
            for end in _SPLIT_ENDS
            if f"{split.name}{end}".casefold() in inside
        ]
        if images and maps:
            found[kind] = Folders(images, maps)
        elif len(beside) == 1:
            found[kind] = Folders(split, beside[0])
        elif not maps and not beside:
            found |= _beside(images or split, kind)
    return found


def _beside(folder: Path, kind: Kind) -> dict[Kind, Folders]:
    """Return the folder as that of a split, if it holds label maps beside their images."""
    end = find_map_end(folder, is_sure=has_pixel_values(folder))
    return {kind: Folders(folder, folder, map_end=end)} if end else {}


def _split(inside: dict[str, Path], kind: Kind, name: str | None) -> Path | None:
    if name is not None:
        return inside.get(name.casefold())
    found = [path for path in inside.values() if kind_of(path.name) == kind]
    if len(found) > 1:
        names = " and ".join(str(path) for path in found)
        raise DataError(f"{names}: both may be for {kind}. Name one with {_KNOBS[kind]}.")
    return found[0] if found else None


def _one(
    root: Path, inside: dict[str, Path], names: Sequence[str], suffixes: frozenset[str]
) -> Path | None:
    """Find the folder with one of these names. If there are several, empty ones are ignored."""
    found = [inside[name] for name in names if name in inside]
    if len(found) > 1:
        found = [folder for folder in found if _holds(folder, suffixes)]
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise DataError(
            f"{root}: it is not clear which of {listed} is meant. Move the others elsewhere."
        )
    return found[0] if found else None


def _holds(folder: Path, suffixes: frozenset[str]) -> bool:
    files = (name for _, _, names in os.walk(folder) for name in names)
    return any(os.path.splitext(name)[1].lower() in suffixes for name in files)


def _lower(folder: Path) -> dict[str, Path]:
    return {name.casefold(): path for name, path in visible_folders(folder)[0].items()}


def _listed(folder: Path, suffixes: frozenset[str]) -> tuple[PathList, tuple[str, ...]]:
    walk, builder = Walk(suffixes), PathListBuilder()
    walk.add_images(folder, builder)
    return builder.build(), walk.notes(folder)


def _told_apart(folders: Folders) -> tuple[PathList, PathList, tuple[str, ...]]:
    """List the images and the label maps of a folder that holds both, and notes."""
    files, notes = _listed(folders.images, SUFFIXES | ANY_MAP)
    is_map = [
        suffix.lower() in ANY_MAP and stem.casefold().endswith(folders.map_end)
        for stem, suffix in map(os.path.splitext, files)
    ]
    images, maps = (np.flatnonzero(np.equal(is_map, each)) for each in (False, True))
    return files.take(images), files.take(maps), notes


def _of_list(images: PathList, folder: Path, names: Path) -> tuple[PathList, str]:
    """Choose the images that a list names.

    Returns:
        The images, and a line about them.

    Raises:
        DataError: The list cannot be read, or none of its images is there.
    """
    places = {stem_of(path, folder): i for i, path in enumerate(images)}
    listed = listed_names(names, places.__contains__)
    lost = [name for name in listed if name not in places]
    if len(lost) == len(listed):
        such = f", such as {plain(lost[0])[:200]}" if lost else ""
        raise DataError(f"{names}: none of its {counted(len(listed), 'image(s)')} is there{such}.")
    line = f"{names}: {counted(len(listed), 'image(s)')}"
    if lost:
        line += f", of which {len(lost):,} not there (such as {plain(lost[0])[:200]})"
    return images.take(sorted(places[name] for name in listed if name in places)), f"{line}."
