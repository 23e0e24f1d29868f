"""The objects in images: boxes, classes and regions, stored compactly for many images."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.dense.rle import Polygons, Region, Rle, decode, encode
from convnextv2.data.dense.source import AnnotatedSource

_NOTHING, _POLYGONS, _RLE = 0, 1, 2
"""The kinds of regions in a table."""


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects in one image.

    Attributes:
        size: Height and width of the upright image, to which the coordinates refer.
        boxes: float64 (n, 4), x0, y0, x1 and y1 in px. The box of the pixel at the top left is
            (0, 0, 1, 1).
        labels: int64 (n,), class indices from 0.
        crowd: bool (n,), whether the region contains several objects, or one that is hard to
            recognise. Such regions are ignored in training and in metrics.
        areas: float64 (n,), the area of the region in px, or that of the box without a region.
        regions: The region that each object covers.
    """

    size: tuple[int, int]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    regions: tuple[Region, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: NDArray[np.bool_]) -> Objects:
        """Return the objects that a mask, bool (n,), selects."""
        return Objects(
            self.size,
            self.boxes[chosen],
            self.labels[chosen],
            self.crowd[chosen],
            self.areas[chosen],
            tuple(region for region, keep in zip(self.regions, chosen, strict=True) if keep),
        )


class ObjectTable:
    """The objects of many images in a few arrays, whose memory forked workers share.

    Attributes:
        has_masks: Whether the region of every object is known. Those of crowds may be unknown.
        sizes: int32 (N, 2), height and width of each image.
        starts: int64 (N + 1,), the index of the first object of each image; at the end M.
        boxes: float64 (M, 4), the boxes of the objects of all images; see `Objects`.
        labels: int64 (M,).
        crowd: bool (M,).
        areas: float64 (M,).
        kinds: uint8 (M,), the kind of each region: none, polygons or run-length code.
        region_starts: int64 (M + 1,), the position of each region in `regions`.
        regions: The regions of all objects, joined.
    """

    def __init__(self, images: Sequence[Objects], *, has_masks: bool = False) -> None:
        self.has_masks = has_masks
        counts = [len(each) for each in images]
        self.sizes = np.array([each.size for each in images], np.int32).reshape(-1, 2)
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.boxes = _joined([each.boxes for each in images], (0, 4), np.float64)
        self.labels = _joined([each.labels for each in images], (0,), np.int64)
        self.crowd = _joined([each.crowd for each in images], (0,), np.bool_)
        self.areas = _joined([each.areas for each in images], (0,), np.float64)
        packed = [_pack(region) for each in images for region in each.regions]
        self.kinds = np.array([kind for kind, _ in packed], np.uint8)
        lengths = [len(content) for _, content in packed]
        self.region_starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.regions = b"".join(content for _, content in packed)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Objects:
        first, last = self.starts[index : index + 2].tolist()
        height, width = self.sizes[index].tolist()
        return Objects(
            (height, width),
            self.boxes[first:last],
            self.labels[first:last],
            self.crowd[first:last],
            self.areas[first:last],
            tuple(self._region(i, (height, width)) for i in range(first, last)),
        )

    def relabelled(self, numbers: NDArray[np.int64]) -> ObjectTable:
        """Return the table with new class indices; `numbers`, int64 (K,), maps old to new ones."""
        table = copy.copy(self)
        table.labels = numbers[self.labels]
        return table

    def take(self, indices: NDArray[np.int64]) -> ObjectTable:
        """Return the objects of the images at these indices, in this order."""
        return ObjectTable([self[i] for i in indices.tolist()], has_masks=self.has_masks)

    def digest(self) -> str:
        """Return the SHA-256 of all objects, by which a resumed run notices changes."""
        found = hashlib.sha256(self.regions)
        for part in (self.starts, self.boxes, self.labels, self.crowd, self.region_starts):
            found.update(np.ascontiguousarray(part).data)
        return found.hexdigest()

    def is_out_of_reach(self, index: int) -> bool:
        """Return False, because the objects are in memory."""
        return False

    def classes_of(self, index: int) -> NDArray[np.int64]:
        """Return the class indices of the objects in an image, int64 (n,), without crowds."""
        first, last = self.starts[index : index + 2].tolist()
        return self.labels[first:last][~self.crowd[first:last]]

    def _region(self, i: int, size: tuple[int, int]) -> Region:
        start, end = self.region_starts[i : i + 2].tolist()
        content = self.regions[start:end]
        if self.kinds[i] == _RLE:
            return Rle(content, size)
        return _polygons(content) if self.kinds[i] == _POLYGONS else None


def objects_of(source: AnnotatedSource) -> ObjectTable:
    """Return the objects of all images of a source."""
    assert isinstance(source.annotations, ObjectTable)
    return source.annotations


class Turn(NamedTuple):
    """The effect of an EXIF orientation on coordinates: first a transposition, then mirroring."""

    transposes: bool
    mirrors_x: bool
    mirrors_y: bool


_TURNS = {
    1: Turn(False, False, False),
    2: Turn(False, True, False),
    3: Turn(False, True, True),
    4: Turn(False, False, True),
    5: Turn(True, False, False),
    6: Turn(True, True, False),
    7: Turn(True, True, True),
    8: Turn(True, False, True),
}


def turned(objects: Objects, orientation: int) -> Objects:
    """Convert objects from the coordinates of the stored image to those of the upright image.

    Args:
        objects: The objects, in the coordinates of the stored pixels.
        orientation: The EXIF orientation of the file, 1 to 8.
    """
    turn = _TURNS[orientation]
    height, width = objects.size[::-1] if turn.transposes else objects.size

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        moved = points[:, ::-1].copy() if turn.transposes else points.copy()
        if turn.mirrors_x:
            moved[:, 0] = width - moved[:, 0]
        if turn.mirrors_y:
            moved[:, 1] = height - moved[:, 1]
        return moved

    corners = [move(objects.boxes[:, :2]), move(objects.boxes[:, 2:])]
    boxes = np.concatenate([np.minimum(*corners), np.maximum(*corners)], axis=1)
    regions: list[Region] = []
    for region in objects.regions:
        if isinstance(region, Rle):
            mask = decode(region)
            mask = mask.T if turn.transposes else mask
            mask = mask[:, ::-1] if turn.mirrors_x else mask
            regions.append(encode(mask[::-1] if turn.mirrors_y else mask))
        else:
            regions.append(None if region is None else tuple(map(move, region)))
    return replace(objects, size=(height, width), boxes=boxes, regions=tuple(regions))


def _joined(parts: list[NDArray[Any]], empty: tuple[int, ...], dtype: type) -> NDArray[Any]:
    return np.concatenate([np.empty(empty, dtype), *parts]).astype(dtype, copy=False)


def _pack(region: Region) -> tuple[int, bytes]:
    if region is None:
        return _NOTHING, b""
    if isinstance(region, Rle):
        return _RLE, region.counts
    lengths = np.array([len(region), *map(len, region)], np.int32)
    return _POLYGONS, lengths.tobytes() + b"".join(
        np.ascontiguousarray(polygon, np.float64).tobytes() for polygon in region
    )


def _polygons(content: bytes) -> Polygons:
    count = int(np.frombuffer(content, np.int32, 1)[0])
    lengths = np.frombuffer(content, np.int32, count, 4).tolist()
    points = np.frombuffer(content, np.float64, offset=4 * (count + 1)).reshape(-1, 2).copy()
    ends = np.cumsum(lengths)[:-1]
    return tuple(np.split(points, ends))
