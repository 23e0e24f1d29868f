"""Finds the image files that annotations name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from convnextv2.data.dense.defects import Defect, Defects
from convnextv2.data.formats import SUFFIXES


class ImageFinder:
    """Finds images by the names in annotations.

    Args:
        folders: The folders that are searched, in this order. They need not exist.
        defects: Counts images whose name differs from that in the annotation.
    """

    def __init__(self, folders: Iterable[Path], defects: Defects) -> None:
        self.folders = list(dict.fromkeys(os.path.normpath(folder) for folder in folders))
        self._defects = defects
        self._listed: dict[str, dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """Return the path of an image.

        Args:
            name: A name, or a path relative to one of the folders, with slashes or backslashes. If
                an absolute path or one from another machine does not exist, its last parts are
                looked up in the folders.

        Returns:
            The path, or None if there is no such file.
        """
        name = name.strip().replace("\\", "/")
        if os.path.isabs(name) and os.path.isfile(name):
            return name
        parts = [part for part in name.split("/") if part not in ("", ".", "..")]
        if not parts:
            return None
        for folder in self.folders:
            for first in range(len(parts)):
                path = os.path.join(folder, *parts[first:])
                if os.path.isfile(path):
                    self._prefer(folder)
                    return path
        return self._similar(parts)

    def _prefer(self, folder: str) -> None:
        """Move a folder to the front, so that it is searched first from now on."""
        if self.folders[0] != folder:
            self.folders.remove(folder)
            self.folders.insert(0, folder)

    def _similar(self, parts: list[str]) -> str | None:
        """Find an image whose name differs in letter case or ending."""
        for folder in self.folders:
            inner = os.path.join(folder, *parts[:-1])
            for where in dict.fromkeys((inner, folder)):
                stem = _stem(parts[-1])
                if path := self._stems(where).get(stem):
                    self._defects.add(Defect.OTHER_NAME, f"{parts[-1]}: {os.path.basename(path)}")
                    return path
        return None

    def _stems(self, folder: str) -> dict[str, str]:
        """Return `images_in` a folder, which is listed only once."""
        if folder not in self._listed:
            self._listed[folder] = images_in(folder)
        return self._listed[folder]


def images_in(folder: str | Path) -> dict[str, str]:
    """List the images in a folder, sorted by name.

    Returns:
        The name of each image in lower case and without its ending -> its path; empty if the folder
        cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))
    except (OSError, ValueError):  # a name with a zero byte is a ValueError
        return {}
    found: dict[str, str] = {}
    for name in names:
        if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):
            found.setdefault(_stem(name), os.path.join(folder, name))
    return found


def _stem(name: str) -> str:
    stem, ending = os.path.splitext(name.lower())
    return stem if ending in SUFFIXES else name.lower()
