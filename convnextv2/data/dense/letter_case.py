"""Finds files and folders whose names may be written in capitals."""

from __future__ import annotations

import os
from pathlib import Path

from convnextv2.data.listing import visible_folders
from convnextv2.errors import DataError


def folders_called(root: Path, *names: str) -> list[Path]:
    """Find the folders in a folder that have one of these names, in any letter case.

    Args:
        root: The folder.
        names: The names, the most usual first.

    Returns:
        The folders in the order of the names, those with exactly such a name first.
    """
    try:
        inside = visible_folders(root)[0]
    except DataError:  # it may be forbidden to list a folder, but not to read those in it
        inside = {name: root / name for name in names if os.path.isdir(root / name)}
    return [
        inside[each]
        for name in names
        for each in sorted(inside, key=lambda each: each != name)
        if each.casefold() == name.casefold()
    ]


def files_ending_in(folder: Path, ending: str) -> list[Path]:
    """List the files in a folder with an ending in any letter case, sorted by name.

    Args:
        folder: The folder. If it cannot be read, the list is empty.
        ending: The ending in lower case, with the dot.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [folder / name for name in names if os.path.splitext(name)[1].lower() == ending]


def in_either_case(stem: str | Path, ending: str) -> str | None:
    """Return the path of the file with an ending in small or capital letters; None without one.

    Args:
        stem: The path without the ending.
        ending: The ending in lower case, with the dot.
    """
    paths = (f"{stem}{each}" for each in (ending, ending.upper()))
    return next(filter(os.path.isfile, paths), None)
