"""Listings of large folders, kept so that another rank or a resumed run need not list them again.

A listing of ten million files takes minutes, most of all on a server. It fits as long as no folder
of it has another time of change: a file that comes, goes or is renamed changes that of its folder.
What a file contains does not matter for a listing.
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

WORTH_KEEPING = 200_000
"""Images from which on a listing is kept; fewer are listed in about a second."""

_FORM = 1
_SETTLED_NS = 2 * 10**9
"""A folder that changed so lately may change again without another time of change."""
_NOTE = "the listing of {} is used, since none of its folders has changed."
_TYPES = {
    "codes": "int32",
    "starts": "int64",
    "lengths": "int32",
    "targets": "int32",
    "names": "uint8",
}


class KeptListing:
    """The listing of one folder in the user's cache."""

    def __init__(
        self,
        root: Path,
        kind: str,
        left_alone: Collection[str] = (),
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Look for nothing yet.

        Args:
            root: The folder.
            kind: How it is listed, such as "classes".
            left_alone: Names of folders in it that are not listed.
            class_names: The classes that were given.
        """
        key = [_FORM, str(root), os.path.abspath(root), kind, sorted(left_alone), class_names]
        content = json.dumps(key, default=list).encode(errors="surrogateescape")
        self._root = root
        self._name = f"{hashlib.sha256(content).hexdigest()[:32]}.listing"

    def open(self) -> Source | None:
        """Return the listing, mapped into memory; None if there is none that fits."""
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
        except (OSError, ValueError, KeyError, TypeError):  # there is none, or it is damaged
            return None

    def keep(self, source: Source, walk: Walk) -> None:
        """Keep a listing, if it is worth that and nothing is left open.

        What links lead to may change without a folder of the listing, so with links nothing is
        kept. Neither is it if a folder changed just now, if all folders have one time of change, as
        some servers give them whatever happens, or if there is no place.

        Args:
            source: The listing.
            walk: What listed it.
        """
        place = _cache() if len(source) >= WORTH_KEEPING and not walk.has_links else None
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
        except OSError:  # a full disk: it is listed again next time
            return


def _are_unchanged(visited: dict[str, int]) -> bool:
    try:
        return all(os.stat(path).st_mtime_ns == changed for path, changed in visited.items())
    except OSError:
        return False


def _cache() -> Path | None:
    """Return the folder of listings in the user's cache; None if it cannot be written."""
    for folder in cache_folders(lambda line: None):
        if os.access(folder, os.W_OK):
            return folder / "listings"
    return None
