"""Sources of images in folders: one folder for each class, or any tree of images without labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from convnextv2.data.class_names import class_name_of, is_not_trained
from convnextv2.data.formats import SUFFIXES
from convnextv2.data.imagenet import imagenet_names, synsets
from convnextv2.data.listing import Walk, describe, visible_folders
from convnextv2.data.listing_cache import ListingCache
from convnextv2.data.path_list import PathListBuilder
from convnextv2.data.source import MAX_PIXELS, Source
from convnextv2.data.split_names import kind_of
from convnextv2.errors import DataError


class NoClassFoldersError(DataError):
    """A folder does not have one folder for each class."""


def image_folder(
    root: Path, class_names: Sequence[str] | None = None, *, left_alone: Collection[str] = ()
) -> Source:
    """List the images in a folder that has one folder for each class.

    Args:
        root: The folder that holds the folders of classes.
        class_names: The classes in the order of their indices, such as those of the training
            images; None for the names of the folders, sorted as text.
        left_alone: The names of folders in `root` that are not classes.

    Returns:
        The images, class by class, sorted by path.

    Raises:
        DataError: There are no folders, a class has no images, or is not among the given ones.
    """
    cache = ListingCache(root, "classes", left_alone, class_names)
    if (source := cache.open()) is not None:
        return source
    folders, notes, system = _class_folders(root, left_alone)
    names = list(class_names) if class_names else sorted(folders)
    shown = imagenet_names(sorted(folders))
    folders = _with_names(folders, names)
    if unknown := sorted(folders.keys() - set(names)):
        raise DataError(f"{root}: class {unknown[0]!r} {is_not_trained(names)}.")
    walk, builder = Walk(SUFFIXES), PathListBuilder()
    walk.system_folders |= system
    counts = np.zeros(len(names), np.int64)
    for number, name in enumerate(names):
        if name in folders:
            passed_over = walk.passed_over.copy()
            counts[number] = sum(walk.add_images(folder, builder) for folder in folders[name])
            if not counts[number]:
                lost = _lost(walk.passed_over - passed_over)
                raise NoClassFoldersError(
                    f"{folders[name][0]}: holds no image{lost}. Remove the folder, or put images "
                    f"of the class {name!r} into it."
                )
    _check_splits_inside(root, walk)
    if absent := [name for name in names if name not in folders]:
        notes += (
            f"{root}: has no images of {len(absent)} of the {len(names)} classes "
            f"({', '.join(absent[:5])}).",
        )
    if not class_names and shown is not None:
        names = [shown[wnid] for wnid in names]
    source = Source(
        builder.build(),
        np.repeat(np.arange(len(names), dtype=np.int64), counts),
        tuple(names),
        notes=notes + walk.notes(root) + walk.label_map_note(root),
    )
    cache.store(source, walk)
    return source


def unlabelled(root: Path, *, left_alone: Collection[str] = ()) -> Source:
    """List all images in a folder and the folders below it, sorted by path.

    Args:
        root: The folder.
        left_alone: The names of folders in `root` that are not listed.

    Raises:
        DataError: There are no images.
    """
    cache = ListingCache(root, "images", left_alone)
    if (source := cache.open()) is not None:
        return source
    walk, builder = Walk(SUFFIXES), PathListBuilder()
    if not walk.add_images(root, builder, left_alone=left_alone):
        lost = _lost(walk.passed_over)
        raise DataError(f"{root}: holds no image{lost}, nor do the folders in it.")
    _check_splits_inside(root, walk)
    source = Source(builder.build(), notes=walk.notes(root) + walk.label_map_note(root))
    cache.store(source, walk)
    return source


def files(paths: Iterable[str | Path], *, max_pixels: int = MAX_PIXELS) -> Source:
    """List the given image files, regardless of their endings, and the images in given folders.

    Args:
        paths: Files and folders.
        max_pixels: The largest image that is decoded, in pixels.

    Raises:
        DataError: A path does not exist, or there are no images.
    """
    builder = PathListBuilder()
    notes: tuple[str, ...] = ()
    for path in map(Path, paths):
        if path.is_dir():
            walk = Walk(SUFFIXES)
            if not walk.add_images(path, builder):
                lost = _lost(walk.passed_over)
                raise DataError(f"{path}: holds no image{lost}, nor do the folders in it.")
            notes += walk.notes(path) + walk.label_map_note(path)
        elif path.exists():
            builder.add("", [str(path)])
        else:
            raise DataError(f"{path}: no such file or folder.")
    names = builder.build()
    if not len(names):
        raise DataError("no images given. Name files or folders.")
    return Source(names, max_pixels=max_pixels, notes=notes)


def _class_folders(
    root: Path, left_alone: Collection[str]
) -> tuple[dict[str, list[Path]], tuple[str, ...], set[str]]:
    """Return the folders of each class, notes, and the names of system folders."""
    found, system = visible_folders(root)
    folders: dict[str, list[Path]] = {}
    for name, path in found.items():
        if name not in left_alone:
            _check_spelling(path)
            folders.setdefault(class_name_of(name), []).append(path)
    if not folders:
        raise NoClassFoldersError(
            f"{root}: has {_what_is_in(root)}. Expected {root}/CLASS/IMAGE, or a table of images."
            f"{_if_it_is_a_class(root)}"
        )
    notes = [
        f"{paths[0]}: {len(paths)} folders are written {name!r}, in different forms of Unicode or "
        "with blanks. They are one class."
        for name, paths in folders.items()
        if len(paths) > 1
    ]
    return folders, tuple(notes), system


def _with_names(folders: dict[str, list[Path]], names: Sequence[str]) -> dict[str, list[Path]]:
    """Return the folders by the given names of their classes.

    A given name may be in another form of Unicode than the folder. It may also be a class name of
    ImageNet, while the name of the folder is a WordNet id.
    """
    spelled = {class_name_of(name): name for name in names}
    if not spelled.keys() & folders.keys():
        shown = imagenet_names(synsets()) or {}
        spelled |= {wnid: name for wnid, name in shown.items() if name in spelled}
    return {spelled.get(name, name): paths for name, paths in folders.items()}


def _check_spelling(folder: Path) -> None:
    """Check that the name of a class can be encoded and printed.

    It becomes part of the weights file, which is UTF-8, and of messages.
    """
    try:
        folder.name.encode()
        wrong = "" if folder.name.isprintable() and folder.name.strip() else "blank or unprintable"
    except UnicodeEncodeError:
        wrong = "not UTF-8"
    if wrong:
        raise DataError(
            f"{ascii(str(folder))}: the name of this class is {wrong}. Rename the folder."
        )


def _check_splits_inside(root: Path, walk: Walk) -> None:
    """Check that no folders of splits lie inside a class, where test images would be trained on."""
    for folder, names in walk.subfolders.items():
        if folder == str(root):  # its folders are the splits or the classes
            continue
        inside = {kind_of(name): name for name in sorted(names)}
        if "test" in inside or inside.keys() >= {"train", "validation"}:
            where = os.path.relpath(folder, root)
            found = ", ".join(f"{where}/{name}" for kind, name in inside.items() if kind)
            train = inside.get("train", "train")
            raise NoClassFoldersError(
                f"{root}: the splits lie inside the classes ({found}). Expected "
                f"{root}/{train}/CLASS/IMAGE, or a table with a column split."
            )


def _what_is_in(root: Path) -> str:
    walk, builder = Walk(SUFFIXES), PathListBuilder()
    if walk.add_images(root, builder):
        return "images, but no folder for each class"
    return f"no folders of images{_lost(walk.passed_over)}"


def _if_it_is_a_class(root: Path) -> str:
    if not kind_of(root.name):
        return ""
    return f" If {root.name}/ is a class itself, use --train_split . instead."


def _lost(passed_over: Counter[str]) -> str:
    return f" ({describe(passed_over)})" if passed_over else ""
