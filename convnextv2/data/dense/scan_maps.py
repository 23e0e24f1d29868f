"""Scans images with label maps for defects, and counts the values in the maps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.decode import open_picture
from convnextv2.data.dense.label_maps import read_values
from convnextv2.data.dense.map_folders import Pairs
from convnextv2.data.storage import read_file
from convnextv2.distributed import Place
from convnextv2.errors import DataError, MissingPackageError, StorageError
from convnextv2.machine import available_cores
from convnextv2.text import counted

_NAMED = 3
"""The number of files that are named for each kind of defect."""


class Finding(NamedTuple):
    """The result of the scan for one image and its map.

    Attributes:
        pair: The index of the pair.
        values: Each value in the map -> its number of pixels.
        defect: The kind of defect; "" without one.
        detail: The description of the defect; without one, the path of the map.
        is_turned: Whether EXIF rotates the image.
        keeps_size: Whether the size of the image does not tell that it is rotated.
    """

    pair: int
    values: dict[int, int]
    defect: str = ""
    detail: str = ""
    is_turned: bool = False
    keeps_size: bool = False


@dataclass(frozen=True)
class MapScan:
    """The result of a scan.

    Attributes:
        pixels: Value -> number of pixels.
        maps: Value -> number of maps with it.
        examples: Value -> path of a map with it.
        findings: The findings of pairs with a defect.
        turned: The indices of images that EXIF rotates and whose maps match only the rotated image.
        maybe_turned: The indices of images that EXIF rotates and whose maps match both.
    """

    pixels: Counter[int] = field(default_factory=Counter)
    maps: Counter[int] = field(default_factory=Counter)
    examples: dict[int, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    turned: tuple[int, ...] = ()
    maybe_turned: tuple[int, ...] = ()

    @property
    def bad(self) -> set[int]:
        """Indices of the pairs with a defect."""
        return {finding.pair for finding in self.findings}

    def lines(self, pairs: Pairs) -> list[str]:
        """Return one line for each kind of defect, with its number and some names."""
        kinds: dict[str, list[Finding]] = defaultdict(list)
        for finding in self.findings:
            kinds[finding.defect].append(finding)
        lines = []
        if pairs.missing:
            few = ", ".join(pairs.missing[:_NAMED]) + ", ..." * (len(pairs.missing) > _NAMED)
            lines.append(f"{counted(len(pairs.missing), 'image(s) without a label map')}: {few}.")
        for kind, found in kinds.items():
            few = "; ".join(each.detail for each in found[:_NAMED])
            more = "; ..." if len(found) > _NAMED else ""
            lines.append(f"{counted(len(found), kind)}: {few}{more}")
        return lines


def scan_maps(
    pairs: Pairs, place: Place, *, channels: int, coloured: bool, max_pixels: int
) -> MapScan:
    """Scan all images and maps. The ranks share the work.

    Args:
        pairs: The images and their maps.
        place: This rank.
        channels: The number of channels of the network; see `open_picture`.
        coloured: See `read_values`.
        max_pixels: The largest image and map that is read, in pixels.

    Returns:
        The result, which is the same on every rank.

    Raises:
        StorageError: The storage of a file is out of reach.
        MissingPackageError: A package for an image format is missing.
    """
    mine = range(place.rank, len(pairs.images), place.world_size)
    scan_pair = partial(_scan_pair, pairs, channels, coloured, max_pixels)
    with ThreadPoolExecutor(max(1, available_cores() // place.local_world_size)) as pool:
        found = list(pool.map(scan_pair, mine))
    everyone: list[Finding] = [each for part in place.gather(found) for each in part]
    return summarise(sorted(everyone))


def summarise(findings: Iterable[Finding]) -> MapScan:
    """Combine the findings of all pairs."""
    pixels: Counter[int] = Counter()
    maps: Counter[int] = Counter()
    examples: dict[int, str] = {}
    bad: list[Finding] = []
    turned: list[int] = []
    maybe_turned: list[int] = []
    for finding in findings:
        if finding.defect:
            bad.append(finding)
            continue
        pixels.update(finding.values)
        maps.update(finding.values.keys())
        for value in finding.values:
            examples.setdefault(value, finding.detail)
        if finding.is_turned:
            (maybe_turned if finding.keeps_size else turned).append(finding.pair)
    return MapScan(pixels, maps, examples, tuple(bad), tuple(turned), tuple(maybe_turned))


def _scan_pair(pairs: Pairs, channels: int, coloured: bool, max_pixels: int, index: int) -> Finding:
    image, path = pairs.images[index], pairs.maps[index]
    try:
        picture = open_picture(
            read_file(pairs.images, index), name=image, channels=channels, max_pixels=max_pixels
        )
    except (StorageError, MissingPackageError):
        raise
    except DataError as error:
        return Finding(index, {}, "image(s) that cannot be read", str(error))
    try:
        values = read_values(
            read_file(pairs.maps, index), name=path, max_pixels=max_pixels, coloured=coloured
        )
    except StorageError:
        raise
    except DataError as error:
        return Finding(index, {}, "label map(s) that cannot be used", str(error))
    size = picture.height, picture.width
    if values.shape != size:
        return Finding(index, {}, *_other_size(image, size, values, picture.is_turned))
    keeps_size = picture.stored_size == size
    return Finding(index, _counts(values), "", path, picture.is_turned, keeps_size)


def _other_size(
    image: str, size: tuple[int, int], values: NDArray[Any], is_turned: bool
) -> tuple[str, str]:
    height, width = values.shape
    detail = f"{image} ({size[1]} x {size[0]} px, its map {width} x {height} px)"
    if is_turned and (width, height) == size:
        return (
            "image(s) that EXIF rotates, with maps that are not rotated (rotate the maps, or "
            "remove the orientation from the images)",
            detail,
        )
    return "label map(s) of another size than their image", detail


def _counts(values: NDArray[Any]) -> dict[int, int]:
    if values.dtype == np.uint8:
        counts = np.bincount(values.ravel(), minlength=256)
        found: Sequence[int] = np.flatnonzero(counts).tolist()
        return {value: int(counts[value]) for value in found}
    each, counts = np.unique(values, return_counts=True)
    return dict(zip(each.tolist(), counts.tolist(), strict=True))
