"""Reads annotations in the text format of YOLO: one file for each image."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from convnextv2.data.dense.class_table import MAX_CLASSES
from convnextv2.data.dense.defects import Defect, Defects
from convnextv2.data.dense.image_finder import ImageFinder
from convnextv2.data.dense.letter_case import files_ending_in, folders_called, in_either_case
from convnextv2.data.dense.raw import RawAnnotations, RawImage, RawObject
from convnextv2.data.formats import SUFFIXES
from convnextv2.data.listing import Walk
from convnextv2.data.path_list import PathListBuilder
from convnextv2.errors import DataError
from convnextv2.recipe.files import check_size
from convnextv2.text import plain

NOTHING = (None, "", "null", "~")
"""The values of an entry in data.yaml that is left empty."""

_IN_IMAGES = re.compile("(.*/)?images/(.+)", re.IGNORECASE | re.DOTALL)
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt")


def read_yolo(
    images: Images, class_names: Sequence[str] | None, where: str, *, keypoints: int = 0
) -> RawAnnotations:
    """Read the text files of images, which lie beside the images or in labels/ beside images/.

    A line has a class index and a box (centre, width and height), or a class index and the polygon
    of the object, in coordinates relative to the image. An image without a file, or with an empty
    one, has no objects.

    Args:
        images: The images.
        class_names: The names of the classes; None if they are unknown.
        where: The name of the whole set of images in messages.
        keypoints: The number of values that may follow the box in each line, for its keypoints.

    Raises:
        DataError: No image has a file, or none of the lines can be used.
    """
    defects = images.defects or Defects()
    raw, lines, files, highest = [], 0, 0, -1
    used: set[str] = set()
    labels_in = cache(lambda folder: folders_called(Path(folder), "labels"))
    for path in images.paths:
        image = RawImage(path, None, is_relative=True)
        raw.append(image)
        stems = _label_stems(path, labels_in)
        label_file = next(filter(None, (in_either_case(stem, ".txt") for stem in stems)), None)
        if label_file is None:
            continue
        files += 1
        label_file = os.path.normpath(label_file)
        defects.add(Defect.SHARED_LABELS, os.path.basename(path), int(label_file in used))
        used.add(label_file)
        classes = None if class_names is None else len(class_names)
        found = _read_objects(label_file, classes, defects, keypoints)
        image.objects = found.objects
        lines += found.lines
        highest = max(highest, found.highest)
    if images.paths and not files:
        raise DataError(
            f"{where}: none of its {len(images.paths):,} images has a text file of labels, such as "
            f"{_label_stems(images.paths[0], labels_in)[0]}.txt."
        )
    if not images.is_listed:  # a list may leave out some of the images
        _add_lone_files(used, defects)
    if lines and not any(image.objects for image in raw):
        raise DataError(
            f"{where}: none of its {lines:,} lines can be used ({_most_frequent(defects)}). "
            "Expected a class number, and a box (centre, width, height) or an outline as shares of "
            "the image's width and height."
        )
    notes = images.notes
    if class_names is None:
        class_names = [str(i) for i in range(highest + 1)]
        notes += (f"{where}: no data.yaml or classes.txt names the classes, so they get numbers.",)
    if keypoints:
        notes += (f"{where}: keypoints (kpt_shape in data.yaml) are skipped; boxes are read.",)
    if outlines := _rotated_boxes(raw):
        notes += (
            f"{where}: every outline ({outlines:,}) has 4 corners, as rotated boxes have. Outlines "
            "are masks; --masks off learns the upright boxes around them.",
        )
    return RawAnnotations(raw, tuple(class_names), lines, where, defects, notes)


class _Read(NamedTuple):
    """The content of a label file.

    Attributes:
        objects: The objects that can be used.
        lines: The number of lines.
        highest: The highest index of a class; -1 without objects.
    """

    objects: list[RawObject]
    lines: int
    highest: int


def _read_objects(label_file: str, classes: int | None, defects: Defects, keypoints: int) -> _Read:
    """Read the objects in a label file.

    Args:
        label_file: The file.
        classes: The number of classes; None if it is unknown.
        defects: The lines that cannot be used are added to it.
        keypoints: See `read_yolo`.
    """
    objects, highest = [], -1
    lines = _lines(label_file)
    for number, line in enumerate(lines, start=1):
        at = f"{os.path.basename(label_file)}, line {number}"
        found = _object(line, at, defects, keypoints)
        if found is None:
            continue
        highest = max(highest, found.label)
        if classes is not None and found.label >= classes:
            defects.add(Defect.UNKNOWN_CLASS, at)
        else:
            objects.append(found)
    return _Read(objects, len(lines), highest)


def _add_lone_files(used: Collection[str], defects: Defects) -> None:
    """Add label files without an image to the defects, if they lie beside files that are used."""
    known = {path.casefold() for path in used}  # for disks on which a.txt is a.TXT
    for folder in dict.fromkeys(map(os.path.dirname, used)):
        for file in files_ending_in(Path(folder), ".txt"):
            is_label = file.name.lower() not in _NAME_FILES
            if is_label and os.path.normpath(file).casefold() not in known:
                defects.add(Defect.NO_IMAGE, file.name)


def _rotated_boxes(images: Sequence[RawImage]) -> int:
    """Count the outlines if each has four corners, which may be those of a rotated box; else 0."""
    regions = [each.region for image in images for each in image.objects]
    outlines = [region[0] for region in regions if region is not None]
    return len(outlines) if all(len(outline) == 4 for outline in outlines) else 0


def read_keypoints(root: Path, content: dict[str, Any] | None) -> int:
    """Return the number of values that data.yaml states for the keypoints of an object.

    Args:
        root: The folder of the data.
        content: The content of data.yaml; None without one.

    Raises:
        DataError: `kpt_shape` is not two whole numbers.
    """
    shape = content.get("kpt_shape", "") if content else ""
    if shape in NOTHING:
        return 0
    sides = shape if isinstance(shape, list) else []
    if len(sides) != 2 or not all(re.fullmatch("[0-9]{1,4}", str(side)) for side in sides):
        raise DataError(
            f"{root}: data.yaml has kpt_shape: {plain(shape)[:40]}, expected two whole numbers, "
            "such as [17, 3]."
        )
    return int(sides[0]) * int(sides[1])


def read_names(root: Path, content: dict[str, Any] | None) -> list[str] | None:
    """Find the names of the classes.

    Args:
        root: The folder of the data.
        content: The content of data.yaml; None without one.

    Returns:
        The names; None if they are not stated.

    Raises:
        DataError: The names in data.yaml are not a list, or two classes have the same name.
    """
    names = _stated_names(root, content)
    if names is not None:
        wrong = [name for name in names if not name or not name.isprintable()]
        wrong += [name for name in names if names.count(name) > 1]
        if wrong or not names:
            what = f"calls a class {ascii(wrong[0])}" if wrong else "names no class"
            twice = " twice" * (bool(wrong) and names.count(wrong[0]) > 1 and bool(wrong[0]))
            raise DataError(
                f"{root}: the list of classes {what}{twice}. Give each class a name of its own."
            )
        return names
    count = str(content.get("nc", "")) if content else ""
    if not count.isdecimal():
        return None
    if len(count.lstrip("0")) > 5 or int(count) > MAX_CLASSES:
        raise DataError(
            f"{root}: data.yaml has nc: {count[:40]}, expected at most {MAX_CLASSES:,} classes."
        )
    return [str(i) for i in range(int(count))]


def _stated_names(root: Path, content: dict[str, Any] | None) -> list[str] | None:
    names = content.get("names") if content else None
    if isinstance(names, str) and names in NOTHING:
        names = None
    if isinstance(names, dict):
        names = _numbered(names, root)
    if isinstance(names, list):
        return ["" if name is None else str(name).strip() for name in names]
    if names is not None:
        raise DataError(f"{root}: the names in data.yaml are neither a list nor numbered.")
    folders = (root, *folders_called(root, "labels"), root / "train")
    for name in _NAME_FILES:
        stem, ending = os.path.splitext(name)
        for folder in folders:
            if file := in_either_case(folder / stem, ending):
                return _lines(file)
    return None


def _numbered(names: dict[Any, Any], root: Path) -> list[Any]:
    """Return the names of numbered classes in their order; a class without a name is its number.

    Raises:
        DataError: A key is not the number of a class, or two keys are the same number.
    """
    numbered: dict[int, Any] = {}
    for key, name in names.items():
        text = str(key)
        if not text.isdecimal() or len(text) > 9 or int(text) >= MAX_CLASSES:
            raise DataError(
                f"{root}: the names in data.yaml are not numbered from 0: found "
                f"{plain(text)[:40]}, expected whole numbers below {MAX_CLASSES:,}."
            )
        if int(text) in numbered:
            raise DataError(f"{root}: data.yaml names the class {int(text)} twice. Remove one.")
        numbered[int(text)] = name
    return [numbered.get(i, str(i)) for i in range(max(numbered, default=-1) + 1)]


def find_yaml(root: Path) -> tuple[Path, dict[str, Any]] | None:
    """Find the YAML file of a data set for YOLO.

    Args:
        root: The folder of the data, or the file.

    Returns:
        The file and its content, in which every value is text as it is written; None if no YAML
        file in the folder has both train and names (or nc).

    Raises:
        DataError: data.yaml, or the given file, cannot be read.
    """
    files = [root] if root.is_file() else [*root.glob("*.yaml"), *root.glob("*.yml")]
    for path in sorted(files, key=_is_not_data):
        try:
            text = path.read_text(encoding="utf-8-sig", errors="replace")
            content = yaml.load(text, Loader=yaml.BaseLoader)  # a class may be called no, or 01
            check_size([content])
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            if path.stem == "data" or path == root:
                raise DataError(
                    f"{path}: cannot be read as YAML ({plain(error)[:200]}). Fix the file."
                ) from None
            continue
        if isinstance(content, dict) and "train" in content and content.keys() & {"names", "nc"}:
            return path, content
    return None


class Images(NamedTuple):
    """The images of a split.

    Attributes:
        paths: Their paths.
        notes: Messages to the user.
        defects: The defects of the text files that list them; None without such a file.
        is_listed: Whether a text file lists them, so that their folders may hold others.
    """

    paths: list[str]
    notes: tuple[str, ...] = ()
    defects: Defects | None = None
    is_listed: bool = False


def images_of(entry: Any, file: Path, root: Any) -> Images:
    """List the images of an entry in data.yaml.

    Args:
        entry: A folder, a text file that lists images, or a list of these.
        file: The path of data.yaml.
        root: The entry `path` in data.yaml; None without one.

    Raises:
        DataError: There is no such folder or file, it is an image, or none of the listed images is
            there.
    """
    found: list[str] = []
    notes: tuple[str, ...] = ()
    defects, is_listed = Defects(), False
    for each in entry if isinstance(entry, list) else [entry]:
        place = _place(str(each), file, root)
        if place.is_dir():
            inner = below(place)
            found += inner.paths
            notes += inner.notes
        elif place.suffix.lower() in SUFFIXES:
            raise DataError(
                f"{file}: names {plain(each)}, which is an image. Expected a folder, or a text "
                "file that lists images."
            )
        else:
            found += _listed(place, _roots(file, root), defects)
            is_listed = True
    times = Counter(found)
    for path, count in times.items():
        defects.add(Defect.TWICE, os.path.basename(path), count - 1)
    return Images(list(times), notes, defects, is_listed)


def _listed(file: Path, roots: Sequence[Path], defects: Defects) -> list[str]:
    """Find the images that a text file lists.

    Args:
        file: The text file. Its paths are relative to its folder. Exports of CVAT begin them with
            data/, a folder that they do not have, so the last parts of a path are enough.
        roots: Further folders in which images are searched.
        defects: Counts images that are not there.

    Raises:
        DataError: The file cannot be read, or none of its images is there.
    """
    lines = _lines(str(file))
    finder = ImageFinder([file.parent, *roots], defects)
    found, lost = list[str](), list[str]()
    for line in lines:
        path = os.path.normpath(file.parent / line)
        if os.path.isfile(path) or (path := finder.find(line) or ""):
            found.append(path)
        else:
            lost.append(line)
            defects.add(Defect.MISSING_FILE, line)
    if lost and not found:
        raise DataError(
            f"{file}: none of its {len(lines):,} images is there, such as {plain(lost[0])[:200]}. "
            f"Looked in {', '.join(finder.folders)}. Fix the paths in it."
        )
    return found


def below(folder: Path) -> Images:
    """List all images in a folder and the folders below it, sorted by path.

    Raises:
        DataError: A folder cannot be read.
    """
    walk, builder = Walk(SUFFIXES), PathListBuilder()
    walk.add_images(folder, builder)
    return Images(sorted(builder.build()), walk.notes(folder))


def _place(entry: str, file: Path, root: Any) -> Path:
    """Find the file or folder of a path in data.yaml.

    Exports of Roboflow write ../train where train is meant.
    """
    bare = entry
    while bare.startswith("../"):
        bare = bare[3:]
    for folder in _roots(file, root):
        for name in (entry, bare):
            if os.path.exists(folder / name):  # unlike the method, it takes any name
                return folder / name
    raise DataError(f"{file}: names {plain(entry)}, which does not exist. Fix the path.")


def _roots(file: Path, root: Any) -> list[Path]:
    """Return the folders to which paths in data.yaml may be relative; see `images_of`."""
    if not root:
        return [file.parent]
    given = Path(str(root))
    return [given if given.is_absolute() else file.parent / given, file.parent]


def _label_stems(image: str, labels_in: Callable[[str], list[Path]]) -> list[str]:
    """Return the possible paths of an image's labels, without the ending.

    Args:
        image: The image.
        labels_in: Finds the folders in a folder that are called labels.
    """
    stem = os.path.splitext(image)[0]
    stems = []
    if parts := _IN_IMAGES.fullmatch(stem):
        stems += [f"{each}/{parts[2]}" for each in labels_in(parts[1] or "")]
    head, tail = os.path.split(stem)
    return [*stems, stem, *(f"{each}/{tail}" for each in labels_in(head))]


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return [line for line in map(str.strip, file) if line]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None


def _object(line: str, at: str, defects: Defects, keypoints: int) -> RawObject | None:
    """Parse one line. If it cannot be used, count a defect and return None."""
    try:
        values = [float(part) for part in line.split()]
        label = int(values[0])
        is_class = label == values[0] and 0 <= label < MAX_CLASSES
        if not is_class or not all(map(math.isfinite, values)):
            raise ValueError
    except (ValueError, IndexError, OverflowError):
        defects.add(Defect.MALFORMED, at)
        return None
    rest = values[1:]
    if keypoints and len(rest) == 4 + keypoints:
        rest = rest[:4]
    if len(rest) == 4:
        x, y, width, height = rest
        if max(x, y) > 1.01 or min(x, y) < -0.01:
            defects.add(Defect.OUTSIDE, at)
            return None
        return RawObject((x - width / 2, y - height / 2, x + width / 2, y + height / 2), label)
    if not keypoints and len(rest) >= 6 and len(rest) % 2 == 0:
        points = np.array(rest, np.float64).reshape(-1, 2)
        (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
        return RawObject((x0, y0, x1, y1), label, region=(points,))
    defects.add(Defect.MALFORMED, at)
    return None


def _is_not_data(path: Path) -> tuple[bool, str]:
    return path.stem != "data", path.name


def _most_frequent(defects: Defects) -> str:
    """Return the most frequent defect, with its number."""
    kind = max(defects.counts, key=lambda each: defects.counts[each])
    return f"{defects.counts[kind]:,} {kind.value[1]}"
