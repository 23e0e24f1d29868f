"""Reads annotations in the JSON format of COCO: boxes, polygons, run-length codes and crowds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.dense.defects import Defect, Defects
from convnextv2.data.dense.image_finder import ImageFinder
from convnextv2.data.dense.raw import RawAnnotations, RawImage, RawObject
from convnextv2.data.dense.rle import Region, Rle, box_of, from_counts, is_whole
from convnextv2.errors import DataError
from convnextv2.text import brief, plain

_WHOLE = re.compile(r"-?\d{1,1000}")
"""A whole number. Python does not convert text of more than 4,300 digits to a number."""


def read_coco(path: Path, folders: Sequence[Path]) -> RawAnnotations:
    """Read a JSON file in the format of COCO.

    Args:
        path: The file.
        folders: The folders that are searched for its images, in this order.

    Returns:
        The annotations, in the order of the images in the file.

    Raises:
        DataError: The file has another format, or none of its images or annotations can be used.
    """
    content = _content(path)
    defects = Defects()
    numbers, class_names, notes = _classes(content, path)
    finder = ImageFinder(folders, defects)
    images, by_path, missing = _images(content["images"], finder, defects, path)
    listed, total = content["images"], len(content["annotations"])
    for record in content["annotations"]:
        _add(record, images, missing, numbers, defects)
    lost = defects.counts.get(Defect.MISSING_IMAGE, 0) + defects.counts.get(Defect.UNKNOWN_CLASS, 0)
    if total and lost == total:
        record = content["annotations"][0]
        raise DataError(
            f"{path}: none of its {total:,} annotations fits its {len(listed):,} images and "
            f"{len(numbers)} categories (the first has image_id {plain(record.get('image_id'))} "
            f"and category_id {plain(record.get('category_id'))}). Do they belong to another data "
            "set?"
        )
    return RawAnnotations(
        list(by_path.values()), class_names, total, str(path), defects, tuple(notes)
    )


def _images(
    listed: Sequence[Any], finder: ImageFinder, defects: Defects, path: Path
) -> tuple[dict[Any, RawImage], dict[str, RawImage], set[Any]]:
    """Find the files of the listed images.

    Returns:
        The images by id, the images by path, and the ids of images whose file is missing.

    Raises:
        DataError: Two images have the same id, or no image can be used.
    """
    images: dict[Any, RawImage] = {}
    by_path: dict[str, RawImage] = {}
    missing: set[Any] = set()
    for record in listed:
        name = _name_of(record)
        if not name or "id" not in record:
            defects.add(Defect.MALFORMED, f"image {brief([str(record)])}")
            continue
        found = finder.find(name)
        if found is None:
            missing.add(_key(record["id"]))
            defects.add(Defect.MISSING_FILE, name)
            continue
        if found in by_path:
            defects.add(Defect.TWICE, name)
        image = by_path.setdefault(found, RawImage(found, _stated_size(record)))
        if (other := images.setdefault(_key(record["id"]), image)) is not image:
            raise DataError(
                f"{path}: two images have the id {plain(record['id'])}, {Path(other.path).name} "
                f"and {Path(found).name}, so it is unknown whose the annotations are. Give each "
                "image an id of its own."
            )
    if listed and not images:
        if not missing:
            raise DataError(
                f"{path}: none of its {len(listed):,} images has an id and a file_name, such as "
                f"{brief([str(listed[0])])}. Expected records as in COCO's format."
            )
        lost_names = [_name_of(record) for record in listed if _name_of(record)]
        raise DataError(
            f"{path}: none of its {len(listed):,} images is there, such as "
            f"{plain(lost_names[0])}. Looked in {_folders(finder)}. Name the folder with "
            "images_dir."
        )
    return images, by_path, missing


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({plain(error)[:200]}).") from None
    lists = ("images", "annotations", "categories")
    wrong = [
        name
        for name in lists
        if not isinstance(content, dict) or not isinstance(content.get(name), list)
    ]
    if wrong:
        raise DataError(
            f"{path}: has no list {wrong[0]!r}, so it is not in COCO's format for detection. "
            "Expected the keys images, annotations and categories."
        )
    return content


def _classes(
    content: Mapping[str, Any], path: Path
) -> tuple[dict[Any, int], tuple[str, ...], list[str]]:
    """Assign class indices to the categories, in the order of their ids, which may have gaps.

    Returns:
        The class index of each category id, the names, and notes.
    """
    try:
        categories = sorted(content["categories"], key=lambda each: _order(each["id"]))
        named = [(_key(each["id"]), _text(each["name"]).strip()) for each in categories]
    except (KeyError, TypeError):
        raise DataError(f"{path}: a category has no id or no name.") from None
    names: dict[Any, str] = {}
    for key, name in named:
        if (other := names.setdefault(key, name)) != name:
            raise DataError(
                f"{path}: two categories have the id {plain(key)}, {plain(other)!r} and "
                f"{plain(name)!r}, so it is unknown which one is meant. Give each an id of its own."
            )
    if not names:
        raise DataError(f"{path}: declares no categories.")
    notes = []
    used = {_key(each.get("category_id")) for each in content["annotations"] if _is_record(each)}
    parent = categories[0]
    others = categories[1:]
    if (
        others
        and _key(parent["id"]) not in used
        and all(each.get("supercategory") == parent["name"] for each in others)
    ):
        notes.append(
            f"{path}: category {plain(parent['name'])!r} (id {plain(parent['id'])}) only groups "
            "the others, as in exports of Roboflow, and is not a class."
        )
        del names[_key(parent["id"])]
    if twice := sorted({name for name in names.values() if list(names.values()).count(name) > 1}):
        raise DataError(f"{path}: two categories are called {plain(twice[0])!r}. Rename one.")
    _check_names(names.values(), path)
    return {key: i for i, key in enumerate(names)}, tuple(names.values()), notes


def _check_names(names: Any, path: Path) -> None:
    """Check that the names of classes can be printed. They become part of the weights file."""
    for name in names:
        if not name or not name.isprintable():
            raise DataError(
                f"{path}: a category is called {ascii(name)}, which cannot be printed. Rename it."
            )


def _add(
    record: Any,
    images: Mapping[Any, RawImage],
    missing: set[Any],
    numbers: Mapping[Any, int],
    defects: Defects,
) -> None:
    """Add one annotation to its image, or count its defect."""
    if not _is_record(record):
        defects.add(Defect.MALFORMED, brief([str(record)]))
        return
    what = f"annotation {plain(record.get('id', '?'))}"
    key = _key(record.get("image_id"))
    if key in missing:
        return  # its missing image has been counted
    if key not in images:
        defects.add(Defect.MISSING_IMAGE, what)
        return
    image = images[key]
    what += f" of {Path(image.path).name}"
    label = numbers.get(_key(record.get("category_id")))
    if label is None:
        defects.add(Defect.UNKNOWN_CLASS, what)
        return
    try:
        region, is_wrong = _region(record.get("segmentation"), image.size, what, defects)
        box = _box(record.get("bbox"), region)
        crowd = _flag(record.get("iscrowd"))
        area = record.get("area")
        area = float(area) if area is not None and 0 < float(area) < math.inf else None
    except (TypeError, ValueError, OverflowError, KeyError, IndexError):
        defects.add(Defect.MALFORMED, what)
        return
    if not is_wrong:
        image.objects.append(RawObject(box, label, crowd, area, region))


def _region(
    segmentation: Any, size: tuple[int, int] | None, what: str, defects: Defects
) -> tuple[Region, bool]:
    """Read the segmentation of an object.

    Returns:
        The region, and whether the object must be left out because its mask is damaged.

    Raises:
        ValueError, TypeError, OverflowError, KeyError: It is neither a list of polygons nor a
            run-length code.
    """
    if isinstance(segmentation, dict):
        height, width = (int(side) for side in segmentation["size"])
        counts = segmentation["counts"]
        if size is not None and (height, width) != size:
            defects.add(Defect.WRONG_MASK, what)
            return None, True
        if isinstance(counts, str):
            rle = Rle(counts.encode("ascii"), (height, width))
            if is_whole(rle):
                return rle, False
        elif isinstance(counts, list) and sum(counts) == height * width:
            return from_counts(counts, (height, width)), False
        defects.add(Defect.WRONG_MASK, what)
        return None, True
    if not segmentation:
        return None, False
    if isinstance(segmentation[0], int | float):  # a single polygon without the outer list
        segmentation = [segmentation]
    outlines: list[NDArray[np.float64]] = []
    for outline in segmentation:
        points = np.asarray(outline, np.float64).reshape(-1, 2)
        if len(points) < 3 or not np.isfinite(points).all():
            defects.add(Defect.SHORT_OUTLINE, what)
        else:
            outlines.append(points)
    return (tuple(outlines) or None), False


def _box(bbox: Any, region: Region) -> tuple[float, float, float, float]:
    """Read a box, or compute it from the region if the annotation has none."""
    if bbox:
        x, y, width, height = (float(value) for value in bbox)
        return x, y, x + width, y + height
    if isinstance(region, Rle):
        x0, y0, x1, y1 = box_of(region).tolist()
        return x0, y0, x1, y1
    if region is None:
        raise ValueError("neither a box nor a region")
    points = np.concatenate(region)
    (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
    return x0, y0, x1, y1


def _stated_size(record: Mapping[str, Any]) -> tuple[int, int] | None:
    try:
        height, width = int(record["height"]), int(record["width"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _name_of(record: Any) -> str:
    """Return the file name in the record of an image; "" if it has none."""
    name = record.get("file_name") if _is_record(record) else None
    return name if isinstance(name, str) else ""


def _text(value: Any) -> str:
    """Return a text or a number as text.

    Raises:
        TypeError: The value is neither.
    """
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError("no name")


def _flag(value: Any) -> bool:
    """Parse a flag, 0 or 1, which some tools write as text.

    Raises:
        ValueError, TypeError: The value is not a number.
    """
    return value is not None and float(value) != 0


def _key(value: Any) -> Any:
    """Return an id in a form that can be compared.

    Some tools write ids as text in one list and as numbers in the other, and pandas turns integers
    with gaps into floats.
    """
    text = str(value).strip()
    whole = text.removesuffix(".0")
    return int(whole) if _WHOLE.fullmatch(whole) else text


def _order(value: Any) -> tuple[bool, Any]:
    key = _key(value)
    return isinstance(key, str), key


def _is_record(record: Any) -> bool:
    return isinstance(record, dict)


def _folders(finder: ImageFinder) -> str:
    there = [folder for folder in finder.folders if Path(folder).is_dir()]
    return ", ".join(there[:4]) + (", ..." if len(there) > 4 else "")
