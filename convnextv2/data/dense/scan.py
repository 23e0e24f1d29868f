"""Compares annotations of objects with their images, and builds a source from both.

Each kind of defect becomes one message, with the number of defects and their treatment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnextv2.data.decode.orientation import orientation_of
from convnextv2.data.dense.defects import Defect, Defects
from convnextv2.data.dense.objects import Objects, ObjectTable, objects_of, turned
from convnextv2.data.dense.raw import RawAnnotations, RawImage, RawObject
from convnextv2.data.dense.rle import Polygons, Region, Rle, area_of
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.path_list import PathList
from convnextv2.errors import DataError
from convnextv2.text import brief

_THREADS = 8
"""The number of file headers that are read at the same time, since the disk is the bottleneck."""
_TOLERANCE_PX = 1.0
"""A box may extend beyond its image by this much without a message, because other tools round."""
_MAX_REACH = 10
"""The farthest that an outline may reach from the first pixel, in multiples of the longer side of
its image. Rasterising an outline takes time and memory in proportion to its length."""
_MAX_WITHOUT_MASK = 0.1
"""The largest share of objects without a mask at which a data set is used with masks."""


class Header(NamedTuple):
    """The header of an image file: the stored height and width, and the EXIF orientation."""

    size: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        return self.size[::-1] if self.orientation in (5, 6, 7, 8) else self.size


def scan_objects(annotations: RawAnnotations, head: str) -> AnnotatedSource:
    """Compare annotations with the headers of their images.

    Args:
        annotations: The annotations.
        head: The beginning of messages, such as the name of the split.

    Returns:
        The images with their objects. Images without objects are kept. The notes of the source have
        one line for each kind of defect.

    Raises:
        DataError: No image or no annotation can be used.
    """
    defects, images = annotations.defects, list(annotations.images)
    names: list[str] = []
    kept: list[Objects] = []
    for image, header in zip(images, _headers(images), strict=True):
        defects.add(Defect.COPY, os.path.basename(image.path), _copies(image.objects))
        objects = _objects(image, header, defects)
        if objects is not None:
            names.append(image.path)
            kept.append(objects)
    if not kept:
        raise DataError(
            f"{annotations.where}: none of its {len(images):,} images can be used "
            f"({_in_one_line(defects, head) or 'it lists none'})."
        )
    _check_pixels(kept, annotations)
    table, note = _with_masks(kept, names, defects, head)
    objects_left = len(table.labels)
    if annotations.total and not objects_left:
        raise DataError(
            f"{annotations.where}: none of its {annotations.total:,} annotations can be used "
            f"({_in_one_line(defects, head)})."
        )
    empty = int((np.diff(table.starts) == 0).sum())
    lines = [*annotations.notes, *defects.lines(head), *note]
    if empty:
        one = empty == 1
        lines.append(
            f"{head}: {empty:,} image{' has' if one else 's have'} no objects. "
            f"{'It is' if one else 'They are'} kept: a model learns from "
            f"{'it' if one else 'them'} what is not an object."
        )
    if crowds := int(table.crowd.sum()) - defects.counts.get(Defect.DIFFICULT, 0):
        lines.append(
            f"{head}: {crowds:,} region{'s' * (crowds > 1)} of crowds: ignored in training and in "
            "evaluations."
        )
    return AnnotatedSource(
        PathList.of(names),
        class_names=annotations.class_names,
        notes=tuple(lines),
        annotations=table,
    )


def _copies(objects: Sequence[RawObject]) -> int:
    """Count the objects of an image with the class, the box and the region of an earlier one."""
    return len(objects) - len({(each.label, each.box, _hashed(each.region)) for each in objects})


def _hashed(region: Region) -> Rle | tuple[bytes, ...] | None:
    """Return a region in a form that can be hashed."""
    if region is None or isinstance(region, Rle):
        return region
    return tuple(outline.tobytes() for outline in region)


def compare_splits(training: AnnotatedSource, validation: AnnotatedSource | None) -> list[str]:
    """Return notes about classes without objects in training or validation."""
    lines = []
    for source, what in ((training, "training"), (validation, "validation")):
        if source is None:
            continue
        counts = object_counts(source)
        absent = [name for name, n in zip(source.class_names, counts, strict=True) if not n]
        if absent:
            effect = "cannot be learned" if what == "training" else "is left out of all metrics"
            lines.append(f"No {what} image has {brief(absent)}, which {effect}.")
    return lines


def object_counts(source: AnnotatedSource) -> list[int]:
    """Count the objects of each class, without crowds."""
    table = objects_of(source)
    labels = table.labels[~table.crowd]
    return np.bincount(labels, minlength=len(source.class_names)).tolist()


def read_header(path: str) -> Header | None:
    """Read the size and the orientation of an image file; return None if that is not possible.

    Such a file is kept, and later handled as the knob `bad_images` states.
    """
    try:
        with Image.open(path) as image:
            width, height = getattr(image, "_tile_size", image.size)
            return Header((height, width), orientation_of(image))
    except Exception:  # damaged files raise errors of many types
        return None


def _in_one_line(defects: Defects, head: str) -> str:
    """Return all defects in one line, for brackets in a message."""
    return "; ".join(line.removesuffix(".") for line in defects.lines(head))


def _check_pixels(kept: Sequence[Objects], annotations: RawAnnotations) -> None:
    """Check that boxes are in pixels, if the format requires it.

    Raises:
        DataError: All boxes lie within the first pixel, so they are relative coordinates.
    """
    if any(image.is_relative for image in annotations.images):
        return
    boxes = np.concatenate([objects.boxes for objects in kept])
    is_small = all(min(objects.size) > 2 for objects in kept)
    if len(boxes) and boxes[:, 2:].max() <= 1 and is_small:
        raise DataError(
            f"{annotations.where}: all boxes lie within the first pixel of their images, so they "
            "seem to be fractions of the width and height. Multiply them by the size of the image, "
            "because this format has pixels."
        )


def _headers(images: Sequence[RawImage]) -> Iterable[Header | None]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(read_header, [image.path for image in images]))


def _objects(image: RawImage, header: Header | None, defects: Defects) -> Objects | None:
    """Build the objects of an image, in the coordinates of the upright image.

    Returns:
        The objects; None if the image is left out.
    """
    name = os.path.basename(image.path)
    size, orientation = image.size, 1
    if header is not None:
        upright, stored = header.upright, header.size
        if size is None or upright == stored == size:
            if header.orientation != 1 and image.objects:
                defects.add(Defect.MAYBE_TURNED, name)
            size = upright
        elif size == stored:
            orientation = header.orientation
            defects.add(Defect.TURNED, name)
        elif size != upright:
            stated = f"{size[1]} x {size[0]}"
            defects.add(
                Defect.OTHER_SIZE, f"{name} is {upright[1]} x {upright[0]}, stated {stated}"
            )
            return None
    if size is None:  # the header cannot be read, so the image will fail when it is decoded
        size = (1, 1)
        return _packed(size, [])
    objects = [_absolute(each, size) if image.is_relative else each for each in image.objects]
    kept = [found for each in objects if (found := _inside(each, size, name, defects)) is not None]
    packed = _packed(size, kept)
    return turned(packed, orientation) if orientation != 1 else packed


def _absolute(each: RawObject, size: tuple[int, int]) -> RawObject:
    """Convert relative coordinates into pixels."""
    height, width = size
    x0, y0, x1, y1 = each.box
    region = each.region
    if region is not None and not isinstance(region, Rle):
        with np.errstate(over="ignore"):  # outlines that are too large are left out later
            region = tuple(outline * (width, height) for outline in region)
    return each._replace(box=(x0 * width, y0 * height, x1 * width, y1 * height), region=region)


def _inside(
    each: RawObject, size: tuple[int, int], name: str, defects: Defects
) -> RawObject | None:
    """Clip a box at the edges of its image; return None if the object must be left out."""
    height, width = size
    box = np.array(each.box, np.float64)
    if not np.isfinite(box).all():
        defects.add(Defect.NOT_FINITE, name)
        return None
    x0, y0, x1, y1 = box.tolist()
    if x1 <= x0 or y1 <= y0:
        defects.add(Defect.NO_AREA, name)
        return None
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        defects.add(Defect.OUTSIDE, name)
        return None
    if isinstance(each.region, Rle):
        if each.region.size != size:
            defects.add(Defect.WRONG_MASK, name)
            return None
        if not area_of(each.region):
            defects.add(Defect.EMPTY_MASK, name)
            return None
    elif each.region is not None:
        near = tuple(each for each in each.region if np.abs(each).max() <= _MAX_REACH * max(size))
        defects.add(Defect.FAR_OUTLINE, name, len(each.region) - len(near))
        each = each._replace(region=near or None)
    over = max(-x0, -y0, x1 - width, y1 - height)
    defects.add(Defect.BEYOND, name, int(over > _TOLERANCE_PX))
    # A box inside the image keeps its exact values, so that AP does not change.
    if over > 0:
        x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    return each._replace(box=(x0, y0, x1, y1))


def _packed(size: tuple[int, int], objects: Sequence[RawObject]) -> Objects:
    boxes = np.array([each.box for each in objects], np.float64).reshape(-1, 4)
    areas = [
        each.area if each.area is not None else _area(each.region, each.box) for each in objects
    ]
    return Objects(
        size,
        boxes,
        np.array([each.label for each in objects], np.int64),
        np.array([each.crowd for each in objects], np.bool_),
        np.array(areas, np.float64),
        tuple(each.region for each in objects),
    )


def _area(region: Region, box: tuple[float, float, float, float]) -> float:
    """Return the area of a region, or of a box without one."""
    if isinstance(region, Rle):
        return float(area_of(region))
    if region is not None:
        return sum(abs(_signed_area(outline)) for outline in region)
    x0, y0, x1, y1 = box
    return (x1 - x0) * (y1 - y0)


def _signed_area(outline: NDArray[np.float64]) -> float:
    x, y = outline[:, 0], outline[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _with_masks(
    kept: list[Objects], names: Sequence[str], defects: Defects, head: str
) -> tuple[ObjectTable, list[str]]:
    """Build the table of objects, with masks if nearly all objects have one.

    A few objects without a mask get their box as the mask.

    Returns:
        The table, and notes.
    """
    regions = [
        region is not None
        for objects in kept
        for region, crowd in zip(objects.regions, objects.crowd, strict=True)
        if not crowd
    ]
    without = regions.count(False)
    if not regions or without == len(regions):
        return ObjectTable(kept), []
    if without > _MAX_WITHOUT_MASK * len(regions):
        line = (
            f"{head}: {without:,} of {len(regions):,} objects have no mask, so only boxes are "
            "learned and measured."
        )
        return ObjectTable(kept), [line]
    filled = []
    for objects, name in zip(kept, names, strict=True):
        lacking = [region is None for region in objects.regions]
        defects.add(Defect.NO_MASK, os.path.basename(name), sum(lacking))
        if any(lacking):
            outlines = tuple(
                _outline_of(box) if region is None else region
                for region, box in zip(objects.regions, objects.boxes, strict=True)
            )
            objects = Objects(
                objects.size,
                objects.boxes,
                objects.labels,
                objects.crowd,
                objects.areas,
                outlines,
            )
        filled.append(objects)
    return ObjectTable(filled, has_masks=True), []


def _outline_of(box: NDArray[np.float64]) -> Polygons:
    x0, y0, x1, y1 = box.tolist()
    return (np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64),)
