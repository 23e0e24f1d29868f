"""Detects the format and the layout of the annotations of objects in a folder.

- COCO: JSON files such as instances_train.json, train.json or
  annotations/instances_train2017.json; or exports of Roboflow with train/_annotations.coco.json.
- YOLO: data.yaml; or images/train and labels/train; or text files beside the images.
- Pascal VOC: Annotations, JPEGImages and ImageSets/Main; or XML files beside the images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from convnextv2.data.dense import yolo
from convnextv2.data.dense.coco import read_coco
from convnextv2.data.dense.image_finder import images_in
from convnextv2.data.dense.letter_case import files_ending_in, folders_called
from convnextv2.data.dense.raw import RawAnnotations
from convnextv2.data.dense.voc import listed_files, read_voc
from convnextv2.data.dense.yolo import read_yolo
from convnextv2.data.listing import visible_folders
from convnextv2.data.split_names import Kind, kind_of
from convnextv2.errors import DataError

Format = Literal["coco", "voc", "yolo"]

ROBOFLOW_COCO = "_annotations.coco.json"
_FEW_FILES = 20
_SMALL_JSON = 2**20
"""The largest JSON file that is looked into before it is taken for annotations, in bytes."""
YAML_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Layout:
    """The format and the splits of the annotations in a folder.

    Attributes:
        format: The format.
        splits: The name of each split -> a function that reads its annotations. A folder without
            splits has one split with the name "".
        others: Further formats in the folder, which are not read.
    """

    format: Format
    splits: Mapping[str, Callable[[], RawAnnotations]]
    others: tuple[Format, ...] = ()

    def choose(self, name: str | None, kind: Kind) -> str | None:
        """Choose a split.

        Args:
            name: The user's name of the split; None to look for usual names.
            kind: The kind of the split.

        Returns:
            The name of the split in the folder; None if there is none.
        """
        if name is not None:
            if name in self.splits:
                return name
            wanted = [split for split in self.splits if plain_split(split) == plain_split(name)]
            return wanted[0] if wanted else None
        return next((split for split in self.splits if split_kind(split) == kind), None)

    def only(self) -> str | None:
        """Return the split for training if none has a usual name: "" or the only one, or None."""
        if "" in self.splits:
            return ""
        name = next(iter(self.splits))
        return name if len(self.splits) == 1 and split_kind(name) is None else None


def find_layout(root: Path, asked: str = "auto", images_dir: str = "") -> Layout:
    """Detect the format and the layout of the annotations in a folder.

    Args:
        root: The folder, a JSON file of COCO, or the YAML file of a data set for YOLO.
        asked: The format; "auto" for the first of COCO, YOLO and Pascal VOC that is found.
        images_dir: A folder that is searched for images first; "" for none.

    Raises:
        DataError: There are no annotations in this format.
    """
    images = [Path(images_dir)] if images_dir else []
    finders: dict[Format, Callable[[], Mapping[str, Callable[[], RawAnnotations]]]] = {
        "coco": lambda: _coco(root, images),
        "yolo": lambda: _yolo(root),
        "voc": lambda: _voc(root, images),
    }
    if asked != "auto":
        finders = {name: find for name, find in finders.items() if name == asked}
    found: dict[Format, Mapping[str, Callable[[], RawAnnotations]]] = {
        name: splits for name, find in finders.items() if (splits := find())
    }
    if not found:
        names = {"coco": "COCO JSON", "voc": "Pascal VOC", "yolo": "YOLO"}
        what = f"annotations in the format of {names[asked]}" if asked in names else "objects"
        raise DataError(
            f"{root}: has no {what}. Expected COCO JSON (instances_train.json, or "
            f"train/{ROBOFLOW_COCO}), YOLO (data.yaml, or images/ and labels/), or Pascal VOC "
            "(Annotations/ and JPEGImages/, or XML files beside the images)."
        )
    first, *others = found
    return Layout(first, found[first], tuple(others))


def split_kind(name: str) -> Kind | None:
    """Return the kind of a split by its name, such as train2017 or valid."""
    return kind_of(plain_split(name))


def plain_split(name: str) -> str:
    """Return the name of a split without a year, such as train for train2017."""
    return re.sub(r"[-_ ]?(19|20)\d\d$", "", name)


def _coco(root: Path, images: list[Path]) -> dict[str, Callable[[], RawAnnotations]]:
    if root.suffix.lower() in YAML_SUFFIXES and root.is_file():
        return {}
    if root.is_file():
        split = _split_in(root.stem)
        outside = _near(root.parent.parent, split) if root.parent.name == "annotations" else []
        return {"": partial(read_coco, root, [*images, *_near(root.parent, split), *outside])}
    splits: dict[str, Callable[[], RawAnnotations]] = {}
    folders = visible_folders(root)[0]
    for name, folder in folders.items():
        if (file := folder / ROBOFLOW_COCO).is_file():
            splits[name] = partial(read_coco, file, [*images, folder])
    if splits:
        return splits
    if (file := root / ROBOFLOW_COCO).is_file():
        return {"": partial(read_coco, file, [*images, root])}
    for folder in (root / "annotations", root, *folders.values()):
        for name, (file, *others) in _json_files(folder).items():
            where = [*images, *_near(root, name), *_near(folder, name)]
            splits.setdefault(name, partial(_read_first, file, where, others))
    return splits


def _read_first(file: Path, where: list[Path], others: list[Path]) -> RawAnnotations:
    """Read the first of several JSON files of a split, and say that the others are not read."""
    found = read_coco(file, where)
    if not others:
        return found
    names = ", ".join(other.name for other in others[:3]) + ", ..." * (len(others) > 3)
    line = f"{file}: is read alone. Passed over, though of the same split by its name: {names}."
    return found._replace(notes=(*found.notes, line))


def _json_files(folder: Path) -> dict[str, list[Path]]:
    """Return the JSON files with annotations in a folder by the split in their names."""
    found: dict[str, list[Path]] = {}
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    # COCO has captions_*.json and person_keypoints_*.json beside instances_*.json.
    instances = [file for file in files if file.stem.startswith("instances")]
    few = files if len(files) <= _FEW_FILES else []  # many are those of single images
    unnamed = [file for file in few if not _split_in(file.stem) and _may_be_coco(file)]
    for file in instances or files:
        stem = file.stem.removeprefix("instances").strip("_-. ")
        if name := _split_in(file.stem):
            found.setdefault(name, []).append(file)
        elif instances:
            found.setdefault(stem, []).append(file)
        elif unnamed == [file] or stem in ("", "annotations", "coco"):
            found.setdefault("", []).append(file)
    return found


def _may_be_coco(file: Path) -> bool:
    """Return whether a JSON file may have annotations of COCO.

    Small files, such as class tables and the settings of labelling tools, are looked into.
    """
    try:
        if file.stat().st_size > _SMALL_JSON:
            return True
        content = file.read_bytes()
    except OSError:  # reading it will say why
        return True
    return re.search(rb'"(annotations|images)"\s*:', content) is not None


def _split_in(stem: str) -> str:
    """Return the name of a split in the name of a file; "" if there is none."""
    stem = stem.removeprefix("instances").strip("_-. ")
    parts = [stem, *re.split(r"[_\-. ]", stem)]
    return next((part for part in parts if split_kind(part)), "")


def _near(root: Path, split: str) -> list[Path]:
    """Return the folders that may hold the images of a split."""
    names = dict.fromkeys([split, plain_split(split)]) if split else {}
    images = folders_called(root, "images")
    inner = [folder / name for folder in images for name in names]
    inner += [root / name for name in names]
    inner += [folder for name in names for folder in folders_called(root / name, "images")]
    return [*inner, *images, *folders_called(root, "JPEGImages"), root / "data", root]


def _yolo(root: Path) -> dict[str, Callable[[], RawAnnotations]]:
    if root.is_file() and root.suffix.lower() not in YAML_SUFFIXES:
        return {}
    content: dict[str, Any] | None = None
    entries: dict[str, Callable[[], yolo.Images]] = {}
    if found := yolo.find_yaml(root):
        file, content = found
        for name in ("train", "val", "valid", "test"):
            entry = content.get(name)
            if entry and entry not in yolo.NOTHING:
                entries[name] = partial(yolo.images_of, entry, file, content.get("path"))
        folder = file.parent
    elif root.is_file():
        return {}
    else:
        folder = root
        entries = _yolo_folders(root)
    return {
        name: partial(_read_yolo, images, folder, content, str(folder / name))
        for name, images in entries.items()
    }


def _read_yolo(
    images: Callable[[], yolo.Images], folder: Path, content: dict[str, Any] | None, where: str
) -> RawAnnotations:
    names, keypoints = yolo.read_names(folder, content), yolo.read_keypoints(folder, content)
    return read_yolo(images(), names, where, keypoints=keypoints)


def _yolo_folders(root: Path) -> dict[str, Callable[[], yolo.Images]]:
    """Find the images of each split in folders without a data.yaml."""
    images, labels = (folders_called(root, name)[:1] for name in ("images", "labels"))
    if images and labels:
        splits = visible_folders(images[0])[0]
        splits = {name: each for name, each in splits.items() if (labels[0] / name).is_dir()}
        if splits:
            return {name: partial(yolo.below, each) for name, each in splits.items()}
        has_labels = bool(files_ending_in(labels[0], ".txt"))
        return {"": partial(yolo.below, images[0])} if has_labels else {}
    found: dict[str, Callable[[], yolo.Images]] = {}
    for name, folder in visible_folders(root)[0].items():
        images = folders_called(folder, "images")
        if images and folders_called(folder, "labels"):
            found[name] = partial(yolo.below, images[0])
        elif _has_beside(folder, ".txt"):
            of_cvat = re.fullmatch("obj_(.+)_data", name)
            found[of_cvat[1] if of_cvat else name] = partial(yolo.below, folder)
    return found or ({"": partial(yolo.below, root)} if _has_beside(root, ".txt") else {})


def _voc(root: Path, images: list[Path]) -> dict[str, Callable[[], RawAnnotations]]:
    if root.is_file():
        return {}
    inner = root / "VOCdevkit"
    years = sorted(inner.glob("VOC*")) if inner.is_dir() else []
    root = years[-1] if len(years) == 1 else root
    folders = folders_called(root, "Annotations")
    annotations = next((each for each in folders if files_ending_in(each, ".xml")), None)
    where = [*images, *folders_called(root, "JPEGImages", "images"), root]
    if annotations is not None:
        lists = {
            file.stem: file
            for file in sorted((root / "ImageSets" / "Main").glob("*.txt"))
            if "_" not in file.stem
        }
        if lists:
            return {
                name: partial(_read_list, file, annotations, where) for name, file in lists.items()
            }
        return {"": partial(_read_xml, annotations, [*where, annotations])}
    splits = {
        name: partial(_read_xml, folder, [*images, folder])
        for name, folder in visible_folders(root)[0].items()
        if _has_beside(folder, ".xml")
    }
    if splits:
        return dict(splits)
    return {"": partial(_read_xml, root, [*images, root])} if _has_beside(root, ".xml") else {}


def _read_list(file: Path, annotations: Path, where: list[Path]) -> RawAnnotations:
    return read_voc(listed_files(file, annotations), [*where, annotations], str(file))


def _read_xml(folder: Path, where: list[Path]) -> RawAnnotations:
    return read_voc(files_ending_in(folder, ".xml"), where, str(folder))


def _has_beside(folder: Path, ending: str) -> bool:
    """Return whether a file with this ending lies beside an image in a folder."""
    stems = {path.stem for path in files_ending_in(folder, ending)}
    return any(Path(path).stem in stems for path in images_in(folder).values())
