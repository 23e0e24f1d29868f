"""Reads annotations in the XML format of Pascal VOC: one file for each image."""

from __future__ import annotations

import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from convnextv2.data.dense.defects import Defect, Defects
from convnextv2.data.dense.image_finder import ImageFinder
from convnextv2.data.dense.image_sets import listed_names
from convnextv2.data.dense.letter_case import in_either_case
from convnextv2.data.dense.raw import RawAnnotations, RawImage, RawObject
from convnextv2.data.dense.rle import Region
from convnextv2.errors import DataError
from convnextv2.text import counted, plain


def read_voc(files: Sequence[Path], folders: Sequence[Path], where: str) -> RawAnnotations:
    """Read XML files in the format of Pascal VOC.

    In this format, pixels count from 1, and a box includes both ends: a box from 1 to 1 is one
    pixel wide.

    Args:
        files: The XML files, in the order of the images.
        folders: The folders that are searched for their images, in this order.
        where: The name of the whole set of files in messages.

    Returns:
        The annotations. The classes are sorted by name.

    Raises:
        DataError: No file can be used.
    """
    defects = Defects()
    finder = ImageFinder(folders, defects)
    named: list[tuple[RawImage, list[tuple[str, RawObject]]]] = []
    by_path: dict[str, list[tuple[str, RawObject]]] = {}
    found_images = total = 0
    for file in files:
        root = _parse(file, defects)
        if root is None:
            continue
        path = _find(root, file, finder, defects)
        if path is None:
            defects.add(Defect.NO_IMAGE, file.name)
            continue
        found_images += 1
        total += sum(1 for _ in root.iter("object"))
        objects = _objects(root, file.name, defects)
        if path in by_path:
            defects.add(Defect.TWICE, file.name)
            by_path[path].extend(objects)
            continue
        by_path[path] = objects
        named.append((RawImage(path, _stated_size(root)), objects))
    if files and not found_images:
        _raise_reason(files, finder, where, defects)
    names = tuple(sorted({name for _, objects in named for name, _ in objects}))
    numbers = {name: i for i, name in enumerate(names)}
    for image, objects in named:
        image.objects = [each._replace(label=numbers[name]) for name, each in objects]
    return RawAnnotations([image for image, _ in named], names, total, where, defects)


def _parse(file: Path, defects: Defects) -> ElementTree.Element | None:
    """Read an XML file; return None and note the defect if it cannot be read."""
    try:
        return ElementTree.parse(file).getroot()
    except FileNotFoundError:
        defects.add(Defect.MISSING_IMAGE, f"{file.name}, which a list of images names")
    except (OSError, ElementTree.ParseError, ValueError, LookupError):  # no such encoding
        defects.add(Defect.MALFORMED, file.name)
    return None


def _raise_reason(
    files: Sequence[Path], finder: ImageFinder, where: str, defects: Defects
) -> NoReturn:
    """Raise DataError with the reason why none of the files could be used."""
    if defects.counts.get(Defect.MALFORMED, 0) == len(files):
        raise DataError(
            f"{where}: none of its {len(files):,} XML files can be read, such as {files[0].name}. "
            "Expected Pascal VOC's format."
        )
    if defects.counts.get(Defect.MISSING_IMAGE, 0) == len(files):
        raise DataError(
            f"{where}: lists {counted(len(files), 'file(s)')} of annotations, none of which is "
            f"there, such as {plain(files[0])}. Fix the names in it."
        )
    looked = ", ".join(folder for folder in finder.folders if os.path.isdir(folder))
    raise DataError(
        f"{where}: none of its {len(files):,} XML files has an image, such as {files[0].name}. "
        f"Looked in {looked}. Name the folder with images_dir."
    )


def _find(
    root: ElementTree.Element, file: Path, finder: ImageFinder, defects: Defects
) -> str | None:
    """Find the image of an XML file by the name in it, or else by the name of the file.

    If the two names belong to different images, the name of the file counts, as in other readers of
    this format: tools that copy an image with its XML file do not change the name in it.
    """
    stated = (root.findtext("filename") or "").strip()
    folder = (root.findtext("folder") or "").strip()
    stem, ending = os.path.splitext(stated.replace("\\", "/").rpartition("/")[2])
    if ending and stem.casefold() != file.stem.casefold():
        if own := finder.find(f"{file.stem}{ending}"):
            defects.add(Defect.STALE_NAME, file.name)
            return own
    for name in filter(None, (stated, stated and folder and f"{folder}/{stated}")):
        if os.path.splitext(name)[1] and (path := finder.find(name)):
            return path
    return finder.find(file.stem)


def _objects(
    root: ElementTree.Element, where: str, defects: Defects
) -> list[tuple[str, RawObject]]:
    objects = []
    for element in root.iter("object"):
        name = (element.findtext("name") or "").strip()
        box = element.find("bndbox")
        if not name or not name.isprintable() or box is None:
            defects.add(Defect.MALFORMED, where)
            continue
        try:
            x0, y0, x1, y1 = (
                float(box.findtext(side) or "") for side in ("xmin", "ymin", "xmax", "ymax")
            )
            region = _outline(element)
        except ValueError:
            defects.add(Defect.MALFORMED, where)
            continue
        if not all(map(math.isfinite, (x0, y0, x1, y1))):
            defects.add(Defect.NOT_FINITE, where)
            continue
        if x1 <= x0 or y1 <= y0:  # a box of one pixel counts as a mistake too
            defects.add(Defect.NO_AREA, where)
            continue
        is_difficult = (element.findtext("difficult") or "0").strip() == "1"
        defects.add(Defect.DIFFICULT, where, int(is_difficult))
        objects.append((name, RawObject((x0 - 1, y0 - 1, x1, y1), 0, is_difficult, None, region)))
    return objects


def _outline(element: ElementTree.Element) -> Region:
    """Read the polygon that exports of Roboflow have in addition to the box.

    Raises:
        ValueError: A coordinate is not a number.
    """
    polygon = element.find("polygon")
    if polygon is None:
        return None
    values = {each.tag: float(each.text or "") for each in polygon}
    points = [
        (values[f"x{i}"], values[f"y{i}"])
        for i in range(1, len(values) // 2 + 1)
        if f"x{i}" in values and f"y{i}" in values
    ]
    return (np.array(points, np.float64),) if len(points) >= 3 else None


def _stated_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Return the stated height and width. Some tools write 0 if they are unknown."""
    try:
        height = int(float(root.findtext("size/height") or ""))
        width = int(float(root.findtext("size/width") or ""))
    except (ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def listed_files(path: Path, annotations: Path) -> list[Path]:
    """Return the XML files that a list in ImageSets/Main names.

    Args:
        path: The list; see `listed_names`.
        annotations: The folder of the XML files.

    Raises:
        DataError: The list cannot be read.
    """

    def xml_of(name: str) -> str | None:
        return in_either_case(annotations / name, ".xml")

    names = listed_names(path, lambda name: xml_of(name) is not None)
    return [Path(xml_of(name) or annotations / f"{name}.xml") for name in names]
