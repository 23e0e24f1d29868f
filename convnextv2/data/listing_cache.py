"""A cache of the listings of large folders, for other ranks and for resumed runs.

Listing ten million files takes minutes, especially on a server. A cached listing is valid as long
as the modification times of all its folders stay the same, because adding, removing or renaming a
file changes that of its folder. Changes to the content of files do not affect a listing.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from convnextv2.data.array_file import ArrayFileWriter, open_arrays
from convnextv2.data.listing import Walk
from convnextv2.data.path_list import PathList
from convnextv2.data.source import Source
from convnextv2.kernels.folders import cache_folders

MIN_IMAGES = 200_000
"""The smallest number of images whose listing is cached. Fewer are listed in about a second."""

_FORM = 1
_SETTLED_NS = 2 * 10**9
"""A folder that changed this recently may change again without a new modification time."""
_NOTE = "the listing of {} is used, since none of its folders has changed."
_TYPES = {
    "codes": "int32",
    "starts": "int64",
    "lengths": "int32",
    "targets": "int32",
    "names": "uint8",
}


class ListingCache:
    """The listing of one folder in the user's cache folder."""

    def __init__(
        self,
        root: Path,
        kind: str,
        left_alone: Collection[str] = (),
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Compute the name of the cache file.

        Args:
            root: The folder.
            kind: How it is listed: "classes" or "images".
            left_alone: The names of folders in it that are not listed.
            class_names: The given names of the classes; None if none are given.
        """
        key = [_FORM, str(root), os.path.abspath(root), kind, sorted(left_alone), class_names]
        content = json.dumps(key, default=list).encode(errors="surrogateescape")
        self._root = root
        self._name = f"{hashlib.sha256(content).hexdigest()[:32]}.listing"

    def open(self) -> Source | None:
        """Return the cached listing, memory-mapped; None if there is no valid one."""
        place = _cache()
        if place is None:
            return None
        try:
            header, arrays = open_arrays(place / self._name)
            if arrays.keys() != _TYPES.keys() or not _are_unchanged(header["visited"]):
                return None
            targets = arrays.pop("targets")
            return Source(
                PathList(header["folders"], **arrays),
                targets if header["is_labelled"] else None,
                tuple(header["class_names"]),
                notes=(*header["notes"], f"{self._root}: {_NOTE.format(header['made'])}"),
            )
        except (OSError, ValueError, KeyError, TypeError):  # it does not exist, or it is damaged
            return None

    def store(self, source: Source, walk: Walk) -> None:
        """Store a listing, if it is large and later changes can be detected.

        Nothing is stored if there are links to files, because their targets may change without any
        folder of the listing; if a folder was changed just now; if all folders have the same
        modification time, which some servers never change; or if there is no writable cache folder.

        Args:
            source: The listing.
            walk: The walk that made the listing.
        """
        place = _cache() if len(source) >= MIN_IMAGES and not walk.has_links else None
        if place is None or not isinstance(source.names, PathList):
            return
        visited = {str(self._root): os.stat(self._root).st_mtime_ns} | walk.visited
        times = set(visited.values())
        if max(times) > time.time_ns() - _SETTLED_NS or len(times) == 1:
            return
        names = source.names
        try:
            place.mkdir(exist_ok=True)
            with ArrayFileWriter(place / self._name, _TYPES) as writer:
                writer.append("codes", names.codes)
                writer.append("starts", names.starts)
                writer.append("lengths", names.lengths)
                writer.append("names", names.names)
                if source.targets is not None:
                    writer.append("targets", source.targets)
                writer.finish(
                    {
                        "made": time.strftime("%Y-%m-%d %H:%M"),
                        "visited": visited,
                        "folders": names.folders,
                        "is_labelled": source.targets is not None,
                        "class_names": source.class_names,
                        "notes": source.notes,
                    }
                )
        except OSError:  # the disk is full: the folder is listed again next time
            return


def _are_unchanged(visited: dict[str, int]) -> bool:
    try:
        return all(os.stat(path).st_mtime_ns == changed for path, changed in visited.items())
    except OSError:
        return False


def _cache() -> Path | None:
    """Return the folder of listings in the user's cache folder; None if it is not writable."""
    for folder in cache_folders(lambda line: None):
        if os.access(folder, os.W_OK):
            return folder / "listings"
    return None
