"""Folders of images and of label maps: which lie where, and which belong together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convnextv2.data.dense.label_maps import LOSSY_SUFFIXES, MAP_SUFFIXES
from convnextv2.data.formats import SUFFIXES
from convnextv2.data.listing import Walk, visible_folders
from convnextv2.data.path_list import PathList, PathListBuilder
from convnextv2.data.split_names import Kind, kind_of
from convnextv2.errors import DataError
from convnextv2.text import counted

IMAGE_FOLDERS = (
    *("images", "image", "imgs", "img", "photos", "photo", "pictures", "jpegimages", "input"),
    *("inputs", "leftimg8bit", "rgb"),
)
"""The usual names of folders of images. Letter case makes no difference."""
MAP_FOLDERS = (
    *("annotations", "annotation", "masks", "mask", "labels", "label", "label_maps", "labelmaps"),
    *("segmentation", "segmentations", "segmentationclass", "segmentation_masks", "gt", "gtfine"),
    *("ground_truth", "groundtruth", "targets", "target"),
)
"""The usual names of folders of label maps."""
_SPLIT_ENDS = ("annot", "_annot", "_annotations", "_labels", "_label", "_masks", "_mask", "_gt")
_MAP_ENDS = (
    *("_mask", "-mask", "_masks", "_seg", "_segmentation", "_label", "_labels", "_labelids"),
    *("_gt", "_gtfine_labelids", "_l", "_annotation", "_matte"),
)
_ANY_MAP = MAP_SUFFIXES | LOSSY_SUFFIXES
_IMAGE_ENDS = ("", "_leftimg8bit", "_image", "_img", "_sat")

EXPECTED = (
    "images/train, images/val, annotations/train and annotations/val; or train/images, "
    "train/masks, val/images and val/masks; or images and masks"
)


@dataclass(frozen=True)
class Folders:
    """The folders of one split.

    Attributes:
        images: Holds the images.
        maps: Holds their label maps.
    """

    images: Path
    maps: Path


@dataclass(frozen=True, eq=False)
class Pairs:
    """Images and their label maps, sorted by the path of the image.

    Attributes:
        images: The images.
        maps: The label map of each.
        missing: Images without a label map.
        spare: Number of label maps without an image.
        notes: Lines that say what was passed over.
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
        train_split: Name of the folders with training images; None for the usual names.
        val_split: Name of the folders with validation images, likewise.

    Returns:
        The folders of "train" and of "validation", as far as they are there. Data without splits
        are all in "train".

    Raises:
        DataError: There are no such folders, or it is not clear which are meant.
    """
    asked: dict[Kind, str | None] = {"train": train_split, "validation": val_split}
    inside = _lower(root)
    images = _one(root, inside, IMAGE_FOLDERS, SUFFIXES)
    maps = _one(root, inside, MAP_FOLDERS, _ANY_MAP)
    if images and maps:
        found = _splits_inside(images, maps, asked)
    else:
        found = _splits_outside(root, asked)
    if not found:
        there = ", ".join(f"{path.name}/" for path in inside.values()) or "no folders"
        raise DataError(f"{root}: has {there[:200]}. Expected {EXPECTED}.")
    return found


def pair(folders: Folders) -> Pairs:
    """Pair images with label maps: those whose paths are the same without the ending.

    Names of maps may end in `_mask`, `_seg` or the like, if all of them do.

    Raises:
        DataError: There are no images, or no map belongs to any of them.
    """
    images, notes = _listed(folders.images, SUFFIXES)
    maps, _ = _listed(folders.maps, _ANY_MAP)
    if not len(images):
        raise DataError(f"{folders.images}: holds no image.")
    if not len(maps):
        raise DataError(f"{folders.maps}: holds no label map. Expected PNG files.")
    by_stem = _by_stem(maps, folders.maps)
    stems = [_stem(path, folders.images) for path in images]
    match, how = _match(stems, by_stem)
    if not match:
        raise DataError(
            f"{folders.maps}: no label map has the name of an image ({Path(maps[0]).name}, and "
            f"{Path(images[0]).name}). Expected the same names, with any ending."
        )
    chosen = [i for i, stem in enumerate(stems) if stem in match]
    used = [match[stems[i]] for i in chosen]
    spare = len(maps) - len(set(used))
    notes += ((how,) if how else ()) + (
        (f"{folders.maps}: {counted(spare, 'label map(s)')} without an image.",) if spare else ()
    )
    missing = tuple(images[i] for i, stem in enumerate(stems) if stem not in match)
    return Pairs(images.take(chosen), PathList.of(used), missing, spare, notes)


def _splits_inside(images: Path, maps: Path, asked: dict[Kind, str | None]) -> dict[Kind, Folders]:
    """Find the splits as folders inside the folder of images and that of maps."""
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
            return {}
        found["train"] = Folders(images, maps)
    return found


def _splits_outside(root: Path, asked: dict[Kind, str | None]) -> dict[Kind, Folders]:
    """Find the splits as folders of the data set, with images and maps in or beside each."""
    found: dict[Kind, Folders] = {}
    inside = _lower(root)
    for kind, name in asked.items():
        split = _split(inside, kind, name)
        if split is None:
            continue
        parts = _lower(split)
        images = _one(split, parts, IMAGE_FOLDERS, SUFFIXES)
        maps = _one(split, parts, MAP_FOLDERS, _ANY_MAP)
        beside = [
            inside[f"{split.name}{end}".casefold()]
            for end in _SPLIT_ENDS
            if f"{split.name}{end}".casefold() in inside
        ]
        if images and maps:
            found[kind] = Folders(images, maps)
        elif len(beside) == 1:
            found[kind] = Folders(split, beside[0])
    return found


def _split(inside: dict[str, Path], kind: Kind, name: str | None) -> Path | None:
    if name is not None:
        return inside.get(name.casefold())
    found = [path for path in inside.values() if kind_of(path.name) == kind]
    if len(found) > 1:
        names = " and ".join(str(path) for path in found)
        knob = "train_split" if kind == "train" else "val_split"
        raise DataError(f"{names}: both may be for {kind}. Name one with {knob}.")
    return found[0] if found else None


def _one(
    root: Path, inside: dict[str, Path], names: Sequence[str], suffixes: frozenset[str]
) -> Path | None:
    """Find the one folder of these names; of several, those without such files do not count."""
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


def _stem(path: str, folder: Path) -> str:
    return os.path.splitext(os.path.relpath(path, folder))[0].casefold()


def _by_stem(maps: Iterable[str], folder: Path) -> dict[str, str]:
    """Return the maps by their names. Of two with one name, the one that is not JPEG counts."""
    found: dict[str, str] = {}
    for path in maps:
        stem = _stem(path, folder)
        is_lossy = Path(path).suffix.lower() in LOSSY_SUFFIXES
        if stem not in found or not is_lossy:
            found[stem] = path
    return found


def _match(stems: Sequence[str], by_stem: dict[str, str]) -> tuple[dict[str, str], str]:
    """Find the map of each image by its name, or by its name with a usual end."""
    best: dict[str, str] = {stem: by_stem[stem] for stem in stems if stem in by_stem}
    how = ""
    if best:
        return best, how
    for image_end in _IMAGE_ENDS:
        for map_end in _MAP_ENDS:
            match = {
                stem: by_stem[name]
                for stem in stems
                if stem.endswith(image_end)
                and (name := f"{stem.removesuffix(image_end)}{map_end}") in by_stem
            }
            if len(match) > len(best):
                best, how = match, f"Label maps are those whose names end in {map_end}."
    return best, how
