"""Matches the names of images with those of their label maps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from convnextv2.data.dense.label_maps import LOSSY_SUFFIXES, MAP_SUFFIXES

ANY_MAP = MAP_SUFFIXES | LOSSY_SUFFIXES
"""The endings of files that may be label maps. Those in a lossy format are refused later."""

_MAP_ENDS = (
    *("_mask", "-mask", "_masks", "_seg", "_segmentation", "_label", "_labels", "_labelids"),
    *("_gt", "_gtfine_labelids", "_l", "_annotation", "_matte"),
    *("_labeltrainids", "_gtfine_labeltrainids"),
)
_IMAGE_ENDS = ("", "_leftimg8bit", "_image", "_img", "_sat")


def stem_of(path: str, folder: Path) -> str:
    """Return the path of a file relative to a folder, without its ending."""
    return os.path.splitext(os.path.relpath(path, folder))[0]


def maps_by_stem(maps: Iterable[str], folder: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Find the map of each name.

    Returns:
        The maps by name, and each further map of a name with the map that is used in its place. Of
        two such maps, the one in a lossless format is used.
    """
    found: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for path in maps:
        stem = stem_of(path, folder)
        is_lossy = Path(path).suffix.lower() in LOSSY_SUFFIXES
        if stem not in found:
            found[stem] = path
        elif is_lossy:
            others.setdefault(stem, []).append(path)
        else:
            others.setdefault(stem, []).append(found[stem])
            found[stem] = path
    doubles = [(path, found[stem]) for stem, paths in others.items() for path in paths]
    return found, doubles


def match_names(stems: Sequence[str], by_stem: dict[str, str]) -> tuple[dict[str, str], str]:
    """Match images to maps by name, or else with the pair of endings that matches most images."""
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
