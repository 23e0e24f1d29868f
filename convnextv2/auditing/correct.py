"""Writes a corrected data set that `train` reads. The original data are not changed."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from convnextv2.auditing.findings import Finding
from convnextv2.auditing.images import Images
from convnextv2.data.dense.class_table import find_class_table
from convnextv2.data.dense.objects import objects_of
from convnextv2.data.dense.rle import Rle, to_json
from convnextv2.data.manifest import Words
from convnextv2.data.manifest.columns import NAMES, rate
from convnextv2.data.manifest.label_sets import reads_several
from convnextv2.data.manifest.labels import MISSING, whole_numbers
from convnextv2.files import replacing, write_json
from convnextv2.text import typed

WrongLabels = Literal["drop", "keep", "change"]


class Corrected(NamedTuple):
    """A corrected data set.

    Attributes:
        path: The table or folder for `data_dir`; None if nothing is left to train on.
        kept: The number of images in it.
        dropped: Reason -> number of images that were left out.
        changed: The number of labels that were changed.
        options: Further options that `train` or `pretrain` needs to read it.
    """

    path: Path | None
    kept: int
    dropped: Mapping[str, int]
    changed: int
    options: str


def correct(
    images: Images,
    findings: Sequence[Finding],
    copies: Mapping[int, str],
    out: Path,
    wrong_labels: WrongLabels,
) -> Corrected:
    """Write a data set without the faults that were found.

    Files that cannot be read and copies are left out. Training images whose labels are probably
    wrong are left out, kept, or given the suggested labels, as `wrong_labels` says. Such images of
    other splits are kept, because a figure must not be measured only on images that a model agrees
    with.

    Args:
        images: The images.
        findings: What was found.
        copies: Index of each copy to leave out -> the reason.
        out: The folder of the audit.
        wrong_labels: What to do with training images whose labels are probably wrong.
    """
    dropped, labels, changed = _decide(images, findings, copies, wrong_labels)
    if images.task == "classification":
        dropped |= _unlistable(images, labels, dropped)
    if images.task == "segmentation" and images.targets is not None:
        for i, label_map in enumerate(images.maps):
            if not label_map:
                dropped.setdefault(i, "without a label map that can be used")
    kept = [i for i in range(len(images)) if i not in dropped]
    counts = dict(Counter(dropped.values()))
    if not kept:
        return Corrected(None, 0, counts, changed, "")
    path, options = _write(images, kept, labels, out)
    return Corrected(path, len(kept), counts, changed, options)


def _decide(
    images: Images,
    findings: Sequence[Finding],
    copies: Mapping[int, str],
    wrong_labels: WrongLabels,
) -> tuple[dict[int, str], list[str], int]:
    """Decide which images are left out, and which get another label; see `correct`.

    Returns:
        Index -> reason, for images that are left out; the label of each image; and the number of
        labels that changed.
    """
    named = zip(images.paths, images.splits, strict=True)
    at = {path_and_split: i for i, path_and_split in enumerate(named)}
    training = images.training_splits()
    dropped = {i: _reason(why) for i, why in copies.items()}
    labels = [images.label_of(i) for i in range(len(images))]
    changed = 0
    for finding in findings:
        i = at[finding.path, finding.split]
        if finding.kind == "unreadable":
            dropped[i] = "cannot be read"
        elif finding.kind == "wrong_label" and i not in dropped and finding.split in training:
            if wrong_labels == "drop":
                dropped[i] = "probably a wrong label"
            elif wrong_labels == "change":
                labels[i] = finding.suggested
                changed += 1
    return dropped, labels, changed


def _write(
    images: Images, kept: Sequence[int], labels: Sequence[str], out: Path
) -> tuple[Path, str]:
    """Write the images that are kept in the format of their task.

    Returns:
        The folder or the table, and the options that training needs to read it.
    """
    if images.task == "detection":
        path = _write_coco(images, kept, out / "corrected")
        return path, " --task detection" + _split_options(images)
    if images.task == "segmentation":
        path, options = _write_links(images, kept, out / "corrected"), ""
        if images.targets is not None:
            knobs = {"task": "segmentation", **images.map_knobs}
            options = "".join(f" --{knob} {typed(text)}" for knob, text in knobs.items())
        return path, options
    path = _write_table(images, kept, labels, out / "manifest.csv")
    return path, _table_options(images, labels) + _split_options(images)


def _reason(why: str) -> str:
    return "a copy of another image" if why.startswith("a copy of ") else why


def _unlistable(images: Images, labels: Sequence[str], dropped: Collection[int]) -> dict[int, str]:
    """Find the images whose path or class would be read back differently from a table."""
    found = {}
    for i, (path, label) in enumerate(zip(images.paths, labels, strict=True)):
        path = os.path.abspath(path)
        # A path that is not UTF-8 has halves of surrogate pairs.
        is_text = not any("\ud800" <= letter <= "\udfff" for letter in path)
        if i in dropped:
            continue
        if path != path.strip() or not is_text:
            found[i] = "a path that a table cannot hold"
        elif label and label in MISSING:
            found[i] = "a class that a table cannot hold"
    return found


def _write_table(images: Images, kept: Sequence[int], labels: Sequence[str], path: Path) -> Path:
    """Write a table with full paths."""
    has_splits = any(images.splits)
    head = ["path"]
    if images.is_multi_label:
        head += images.class_names
    elif images.targets is not None:
        # A column "label" of 1.0, 2.0, ... would be read as whole numbers that pandas wrote.
        written = {labels[i]: labels[i] for i in kept}
        head.append("label" if whole_numbers(written) == written else NAMES)
    head += ["split"] * has_splits
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for i in kept:
            row = [os.path.abspath(images.paths[i])]
            if images.is_multi_label:
                assert images.targets is not None
                row += ["" if value < 0 else str(value) for value in images.targets[i].tolist()]
            elif images.targets is not None:
                row.append(labels[i])
            writer.writerow([*row, *[images.splits[i]] * has_splits])
    return path


def _table_options(images: Images, labels: Sequence[str]) -> str:
    """Return the options that are needed to read the labels of the table as they are meant."""
    if not images.is_multi_label:
        texts = list(dict.fromkeys(labels))
        words = Words(texts, np.arange(len(texts), dtype=np.int32))
        return " --labels single" * reads_several(words, (), "auto", "")
    if not rate(images.class_names, {}):
        return " --labels multi"
    # A class has the usual name of another column, so columns are given by number, from 1.
    columns = "|".join(str(k) for k in range(2, 2 + len(images.class_names)))
    split = "split" * any(images.splits)
    return f" --labels multi --columns {shlex.quote(f'path=1,label={columns},split={split}')}"


def _split_options(images: Images) -> str:
    """Name the splits for training and validation if their names do not say what they are for."""
    train_split, val_split = images.splits_used()
    splits = {*images.split_names}
    options = ""
    for knob, name, kind in (
        ("train_split", train_split, "train"),
        ("val_split", val_split, "validation"),
    ):
        if name is not None and images.kind_of(name) != kind and splits & {*name.split(",")}:
            options += f" --{knob} {typed(name)}"
    return options


def _write_coco(images: Images, kept: Sequence[int], folder: Path) -> Path:
    """Write COCO's JSON of each split, with full paths."""
    assert images.sources is not None
    _empty(folder)
    chosen = set(kept)
    first = 0
    for split, source in images.sources.items():
        part = [i for i in range(len(source)) if first + i in chosen]
        first += len(source)
        if part:
            write_json(folder / f"instances_{split or 'train'}.json", _coco(source, part))
    return folder


def _coco(source: Any, part: Sequence[int]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    pictures = []
    for number, index in enumerate(part, 1):
        objects = objects_of(source)[index]
        height, width = objects.size
        name = os.path.abspath(source.names[index])
        pictures.append({"id": number, "file_name": name, "height": height, "width": width})
        for k in range(len(objects)):
            x0, y0, x1, y1 = objects.boxes[k].tolist()
            record = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": int(objects.labels[k]) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": float(objects.areas[k]),
                "iscrowd": int(objects.crowd[k]),
            }
            region = objects.regions[k]
            if isinstance(region, Rle):
                record["segmentation"] = to_json(region)
            elif region is not None:
                record["segmentation"] = [polygon.reshape(-1).tolist() for polygon in region]
            annotations.append(record)
    names = [{"id": k, "name": name} for k, name in enumerate(source.class_names, 1)]
    return {"images": pictures, "annotations": annotations, "categories": names}


def _write_links(images: Images, kept: Sequence[int], folder: Path) -> Path:
    """Write folders of links to the images and their label maps, if these can be used."""
    linked = {"images": images.paths}
    if images.targets is not None:
        linked["annotations"] = images.maps
    _empty(folder)
    taken: set[str] = set()
    number: Counter[str] = Counter()
    for i in kept:
        split = images.splits[i]
        original = stem = Path(images.paths[i]).stem
        while f"{split}/{stem}".casefold() in taken:  # maps are paired without regard to case
            number[f"{split}/{original}"] += 1
            stem = f"{original}-{number[f'{split}/{original}'] + 1}"
        taken.add(f"{split}/{stem}".casefold())
        for kind, paths in linked.items():
            link = folder / kind / split / f"{stem}{Path(paths[i]).suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.abspath(paths[i]))
    table = find_class_table(images.root)
    if table is not None:
        shutil.copyfile(table, folder / table.name)
    return folder


def _empty(folder: Path) -> None:
    """Create an empty folder, without anything that an earlier audit wrote into it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
