"""Matches the names of images with those of their label maps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

from convnextv2.data.dense.label_maps import LOSSY_SUFFIXES, MAP_SUFFIXES
from convnextv2.data.formats import MAP_ENDS, SUFFIXES
from convnextv2.data.listing import Walk
from convnextv2.data.path_list import PathListBuilder
from convnextv2.errors import DataError
from convnextv2.text import counted

ANY_MAP = MAP_SUFFIXES | LOSSY_SUFFIXES
"""The endings of files that may be label maps. Those in a lossy format are refused later."""

_MAP_ENDS = (*MAP_ENDS, "_l")
"""The endings of maps in a folder of their own. Beside images, `_l` may mean a left image."""
_IMAGE_ENDS = ("", "_leftimg8bit", "_image", "_img", "_sat")
_WHOLE = "Label maps are those called like the whole file of an image, such as a.jpg.png."


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


def find_map_end(folder: Path, *, is_sure: bool = False) -> str:
    """Find the ending by which the names of label maps differ from those of images beside them.

    A folder of images may hold a photograph called face_mask.png. So every map must have its image,
    and at least half of the images must have a map.

    Args:
        folder: The folder. The folders below it are searched, too, where an image and its map are
            in the same one.
        is_sure: Whether another file says that there are label maps. Then one pair is enough.

    Returns:
        The ending in lower case; "" if the folder does not hold both.

    Raises:
        DataError: There are maps with several endings, or some maps have no image.
    """
    builder = PathListBuilder()
    Walk(SUFFIXES | ANY_MAP).add_images(folder, builder)
    names = [os.path.relpath(path, folder) for path in builder.build()]
    parts = [os.path.splitext(name) for name in names]
    stems = {stem.casefold() for stem, end in parts if end.lower() in SUFFIXES}
    maps = {stem.casefold(): f"{stem}{end}" for stem, end in parts if end.lower() in ANY_MAP}
    pairs: dict[str, int] = {}
    lone: dict[str, list[str]] = {}
    for map_end in MAP_ENDS:
        bases = {stem.removesuffix(map_end): stem for stem in maps if stem.endswith(map_end)}
        for image_end in _IMAGE_ENDS:
            found = {base for base in bases if f"{base}{image_end}" in stems}
            if len(found) > pairs.get(map_end, 0):
                pairs[map_end] = len(found)
                lone[map_end] = [maps[bases[base]] for base in bases if base not in found]
    if not pairs:
        return ""
    best = max(pairs, key=lambda end: pairs[end])
    without_map = len(stems) - 2 * pairs[best] - len(lone[best])
    if not is_sure and pairs[best] < without_map + len(lone[best]):
        return ""
    if len(pairs) > 1:
        raise DataError(
            f"{folder}: it is not clear whether the label maps are those whose names end in "
            f"{' or '.join(pairs)}. Move the others elsewhere."
        )
    if lone[best] and not is_sure:
        what = counted(len(lone[best]), "file(s)")
        raise DataError(
            f"{folder}: the names of {what} end in {best} like those of label maps, but no image "
            f"belongs to them ({lone[best][0]}). Add the images, or move these files elsewhere."
        )
    return best


def match_maps(
    images: Sequence[str], folder: Path, maps: dict[str, str]
) -> tuple[list[str | None], str]:
    """Match images with label maps whose names are theirs, without or with the ending of the file.

    Letter case makes no difference, unless several maps fit. Of the two ways, the one that matches
    more images is used.

    Args:
        images: The images.
        folder: Their folder.
        maps: The label maps by name; see `maps_by_stem`.

    Returns:
        The label map of each image, or None, and a line about how the names differ; "" if they do
        not.
    """
    in_lower_case = {name.casefold(): path for name, path in maps.items()}
    found, how = _match_names([stem_of(path, folder) for path in images], maps, in_lower_case)
    if None in found:
        names = [os.path.relpath(path, folder) for path in images]
        others, ends = _match_names(names, maps, in_lower_case)
        if others.count(None) < found.count(None):
            return others, ends or _WHOLE
    return found, how


def _match_names(
    names: Sequence[str], maps: dict[str, str], in_lower_case: dict[str, str]
) -> tuple[list[str | None], str]:
    """Match names with maps, or else with the pair of endings that matches most of them."""
    stems = [name.casefold() for name in names]
    best = {stem: in_lower_case[stem] for stem in stems if stem in in_lower_case}
    how = ""
    for image_end, map_end in () if best else product(_IMAGE_ENDS, _MAP_ENDS):
        match = {
            stem: in_lower_case[name]
            for stem in stems
            if stem.endswith(image_end)
            and (name := f"{stem.removesuffix(image_end)}{map_end}") in in_lower_case
        }
        if len(match) > len(best):
            best, how = match, f"Label maps are those whose names end in {map_end}."
    return [maps.get(name, best.get(stem)) for name, stem in zip(names, stems, strict=True)], how
