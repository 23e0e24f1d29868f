"""Sources of images: folders, manifests, named sets, the bundled images. A source knows names and targets and yields pixels; it
holds no open file, so worker processes can have copies of it.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.data.chance import stream
from convnextv2.data.decode import SUFFIXES, Picture, open_picture
from convnextv2.data.named import imagenet_names, load_named
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe

MAX_PIXELS = 178_956_970

Targets = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Source:
    """Images by index.

    names: for messages and predictions; the path where it is a file. targets: class indices, None without labels.
    class_names: one per class. arrays: uint8 (N, H, W) or (N, H, W, 3) of sets that are held in memory, else None and names are
    files.
    notes: what the user should be told once."""

    names: Sequence[str]
    targets: Targets | None = None
    class_names: tuple[str, ...] = ()
    arrays: NDArray[np.uint8] | None = None
    max_pixels: int = MAX_PIXELS
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, index: int, channels: int = 3, value_range: tuple[float, float] | None = None) -> Tensor:
        """The image, uint8 (channels, H, W); see `open_picture`. Raises DataError with its name where it cannot be read."""
        image = self.picture(index, channels, value_range)
        return image.decode() if isinstance(image, Picture) else image

    def picture(self, index: int, channels: int = 3, value_range: tuple[float, float] | None = None) -> Tensor | Picture:
        """The same, not decoded yet where it is a file."""
        if self.arrays is not None:
            return _channels_first(self.arrays[index], channels)
        try:
            with open(self.names[index], "rb") as file:
                data = file.read()
        except OSError as error:
            raise DataError(f"{self.names[index]}: cannot be opened ({error.strerror}).") from None
        return open_picture(data, name=self.names[index], channels=channels, max_pixels=self.max_pixels, value_range=value_range)

    def subset(self, indices: Sequence[int]) -> Source:
        """The images at these indices, in this order."""
        return replace(
            self,
            names=[self.names[i] for i in indices],
            targets=None if self.targets is None else self.targets[list(indices)],
            arrays=None if self.arrays is None else self.arrays[list(indices)],
        )


def find_sources(recipe: Recipe, *, labelled: bool) -> tuple[Source, Source | None]:
    """Training and validation images of a recipe; the latter None where there are none.

    labelled False: only images count, as for pre-training; where the data have a training split, nothing else is used. A folder
    of classes without a split gets one, by class, that follows from the seed. Raises DataError."""
    training, validation = _named(recipe) if recipe.dataset not in ("", "imagenet") else _from_disk(recipe, labelled)
    if not labelled:
        training, validation = replace(training, targets=None), None
    if recipe.num_samples is not None and recipe.num_samples < len(training):
        chosen = torch.randperm(len(training), generator=stream(recipe.seed, "num_samples"))[: recipe.num_samples]
        training = training.subset(chosen.sort().values.tolist())
    return training, validation


def validation_source(recipe: Recipe, class_names: Sequence[str], *, trained_on: bool = True) -> Source:
    """The images to evaluate a model of these classes on: the validation split, where the data have one. Of data without a split,
    those that training held out, or where the model was not `trained_on` these data, all of them.

    Raises DataError for a class that the model does not know, and where the data have a training split only."""
    if recipe.dataset not in ("", "imagenet"):
        source = _named(recipe)[1]
    else:
        root = _folder(recipe)
        if root.is_file():
            has_split = _has_split(root)
            source = manifest(root, split=recipe.val_split, class_names=class_names)
        elif (root / recipe.val_split).is_dir():
            has_split = True
            source = image_folder(root / recipe.val_split, class_names)
        elif (root / recipe.train_split).is_dir() or _names_split(recipe, "val_split") or (root / "val").is_dir():
            there = ", ".join(f"{entry.name}/" for entry in _entries(root) if entry.is_dir())[:100] or "nothing"
            raise DataError(f"{root}: has {there}, but no {recipe.val_split}/ to validate on. Set val_split.")
        else:
            has_split = False
            source = image_folder(root, class_names)
        if trained_on and not has_split:
            if not recipe.val_while_train:
                raise DataError(
                    f"{root}: was trained on as a whole (val_while_train = False). Give other images with data_dir, or val_split."
                )
            source = _split_off(source, recipe)[1]
    if class_names and len(source.class_names) > len(class_names):
        raise DataError(f"the data have {len(source.class_names)} classes, the model has {len(class_names)}.")
    return replace(source, max_pixels=recipe.max_image_pixels)


def image_folder(root: Path, class_names: Sequence[str] | None = None) -> Source:
    """Images below one folder for each class. Classes are sorted by name, or given (the trained ones, for a validation split).

    Raises DataError for a class without images, and for one that is not among the given."""
    folders = {entry.name: Path(entry.path) for entry in _entries(root) if entry.is_dir()}
    if not folders:
        what = "images, but no folder for each class" if any(_image_files(root)) else "no folders of images"
        raise DataError(f"{root}: has {what}. Expected {root}/CLASS/IMAGE, or a CSV/JSONL manifest.")
    names = list(class_names) if class_names else sorted(folders)
    shown = imagenet_names(sorted(folders))
    if class_names and shown is not None and set(folders) != set(names):
        folders = {shown[wnid]: path for wnid, path in folders.items()}
    if unknown := sorted(folders.keys() - set(names)):
        raise DataError(f"{root}: class {unknown[0]!r} is not among the {len(names)} trained ones ({', '.join(names[:5])}, ...).")
    paths: list[str] = []
    targets: list[int] = []
    for name in (name for name in names if name in folders):
        found = sorted(_image_files(folders[name]))
        if not found:
            raise DataError(f"{folders[name]}: holds no image. Remove the folder, or put images of the class {name!r} into it.")
        paths += found
        targets += [names.index(name) if class_names else len(set(targets))] * len(found)
    notes: tuple[str, ...] = ()
    if absent := [name for name in names if name not in folders]:
        notes = (f"{root}: has no images of {len(absent)} of the {len(names)} classes ({', '.join(absent[:5])}).",)
    if not class_names and shown is not None:
        names = [shown[wnid] for wnid in names]
    return Source(paths, np.array(targets, dtype=np.int64), tuple(names), notes=notes)


def unlabelled(root: Path) -> Source:
    """Every image in a folder and those below it, sorted by path. Raises DataError where there is none."""
    paths = sorted(_image_files(root))
    if not paths:
        raise DataError(f"{root}: holds no image ({', '.join(sorted(SUFFIXES))}), nor do the folders in it.")
    return Source(paths)


def files(paths: Iterable[str | Path], *, max_pixels: int = MAX_PIXELS) -> Source:
    """Image files as they are named, and the images in folders. Raises DataError for a path that does not exist."""
    names: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            names += unlabelled(path).names
        elif path.exists():
            names.append(str(path))
        else:
            raise DataError(f"{path}: no such file or folder.")
    if not names:
        raise DataError("no images given. Name files or folders.")
    return Source(names, max_pixels=max_pixels)


def manifest(path: Path, *, split: str | None = None, class_names: Sequence[str] | None = None, labelled: bool = True) -> Source:
    """Images listed in a CSV file with a header, or in JSONL: `path` (from the manifest's folder on), `label`, and perhaps
    `split`.

    split: only rows of this split, where the manifest has that column. Raises DataError with the line's number."""
    rows = list(_rows(path))
    if split is not None and any("split" in row for _, row in rows):
        rows = [(line, row) for line, row in rows if row.get("split") == split]
    if not rows:
        raise DataError(f"{path}: lists no images" + (f" of the split {split!r}." if split else "."))
    names, labels = [], []
    for line, row in rows:
        if not row.get("path"):
            raise DataError(f"{path}, line {line}: has no path. Expected the columns path and label.")
        if labelled and row.get("label") in (None, ""):
            raise DataError(f"{path}, line {line}: has no label.")
        image = path.parent / str(row["path"])
        if not image.is_file():
            raise DataError(f"{path}, line {line}: {image} does not exist.")
        names.append(str(image))
        labels.append(str(row.get("label", "")))
    if not labelled:
        return Source(names)
    classes = list(class_names) if class_names else sorted(set(labels))
    if unknown := [(line, label) for (line, _), label in zip(rows, labels, strict=True) if label not in classes]:
        raise DataError(f"{path}, line {unknown[0][0]}: class {unknown[0][1]!r} is not among the {len(classes)} trained ones.")
    number = {name: i for i, name in enumerate(classes)}
    return Source(names, np.array([number[label] for label in labels], dtype=np.int64), tuple(classes))


def _from_disk(recipe: Recipe, labelled: bool) -> tuple[Source, Source | None]:
    root = _folder(recipe)
    validation: Source | None = None
    if root.is_file():
        training = manifest(root, split=recipe.train_split, labelled=labelled)
        if labelled and _has_split(root):
            validation = manifest(root, split=recipe.val_split, class_names=training.class_names)
        elif labelled and recipe.val_while_train:
            training, validation = _split_off(training, recipe)
    elif (root / recipe.train_split).is_dir():
        folder, held_out = root / recipe.train_split, root / recipe.val_split
        training = image_folder(folder) if labelled else unlabelled(folder)
        if labelled and held_out.is_dir():
            validation = image_folder(held_out, training.class_names)
        elif labelled:
            _check_val_split(recipe, root)
            training = replace(training, notes=(*training.notes, f"{held_out}: not there, so nothing is validated."))
    else:
        _check_train_split(recipe, root, labelled)
        training = image_folder(root) if labelled else unlabelled(root)
        if labelled and recipe.val_while_train:
            training, validation = _split_off(training, recipe)
    training = replace(training, max_pixels=recipe.max_image_pixels)
    return training, validation and replace(validation, max_pixels=recipe.max_image_pixels)


def _check_train_split(recipe: Recipe, root: Path, labelled: bool) -> None:
    """A folder without train_split has the classes in it, unless it was meant to have one: its splits must not become classes."""
    others = ["train", recipe.val_split] if labelled else ["train"]
    found = [f"{name}/" for name in others if name not in ("", ".") and (root / name).is_dir()]
    if found or _names_split(recipe, "train_split"):
        there = f"has {' and '.join(found)}, but " if found else ""
        raise DataError(
            f"train_split = {recipe.train_split}: {root} {there}has no such folder. Set train_split to the one with the training "
            "images, or leave it out where the folders are the classes."
        )
    if labelled:
        _check_val_split(recipe, root, only_named=True)


def _check_val_split(recipe: Recipe, root: Path, *, only_named: bool = False) -> None:
    """Validation that was asked for is not left out."""
    asked = not only_named and (recipe.keep_policy == "top_k" or _is_set(recipe, "val_while_train"))
    if recipe.val_while_train and (asked or _names_split(recipe, "val_split")):
        raise DataError(
            f"val_split = {recipe.val_split}: {root} has no such folder, so there is nothing to validate on. Set it to the one "
            "with the validation images, or val_while_train = False."
        )


def _names_split(recipe: Recipe, knob: str) -> bool:
    return _is_set(recipe, knob) or getattr(recipe, knob) != Recipe.model_fields[knob].default


def _is_set(recipe: Recipe, knob: str) -> bool:
    """Whether the user set a knob. The recipe.yaml of a run has them all, so that says nothing there."""
    return knob in recipe.model_fields_set and len(recipe.model_fields_set) < len(Recipe.model_fields)


def _has_split(path: Path) -> bool:
    return any("split" in row for _, row in _rows(path))


def _folder(recipe: Recipe) -> Path:
    if not recipe.data_dir:
        raise DataError(
            "data_dir is missing. Give a folder of images, a manifest, or a named dataset (dataset = bundled needs nothing)."
        )
    root = Path(recipe.data_dir)
    if not root.exists():
        parent = next((p for p in root.parents if p.exists()), Path("."))
        raise DataError(f"data_dir = {root}: no such folder ({parent} is the nearest that exists).")
    return root


def _named(recipe: Recipe) -> tuple[Source, Source]:
    training, validation = (
        Source([f"{recipe.dataset}/{split}/{i}" for i in range(len(part.pixels))], part.targets, part.class_names, part.pixels)
        for split, part in zip(("train", "val"), load_named(recipe), strict=True)
    )
    return training, validation


def _split_off(source: Source, recipe: Recipe) -> tuple[Source, Source]:
    """Hold out val_fraction of each class, at least one image of a class that has two; the choice follows from the seed."""
    assert source.targets is not None
    held_out: set[int] = set()
    for target in range(len(source.class_names)):
        members = np.flatnonzero(source.targets == target)
        order = members[torch.randperm(len(members), generator=stream(recipe.seed, "split", target)).numpy()]
        count = max(1, round(recipe.val_fraction * len(members))) if len(members) > 1 else 0
        held_out.update(order[:count].tolist())
    held = f"{len(held_out)} of {len(source)} images are held out for validation"
    note = f"No {recipe.train_split}/ and {recipe.val_split}/ in {recipe.data_dir}: {held}."
    training = replace(source.subset([i for i in range(len(source)) if i not in held_out]), notes=(*source.notes, note))
    return training, source.subset(sorted(held_out))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and content of each row of a manifest."""
    kind: Literal["csv", "jsonl"] | str = path.suffix.lower().lstrip(".")
    if kind not in ("csv", "jsonl"):
        raise DataError(f"{path}: a file, but no manifest. Expected a folder, or a .csv or .jsonl file.")
    with open(path, encoding="utf-8-sig", newline="") as file:
        if kind == "csv":
            reader = csv.DictReader(file)
            yield from ((reader.line_num, row) for row in reader)
            return
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: is not JSON ({error.msg}).") from None
            if not isinstance(row, dict):
                raise DataError(f'{path}, line {number}: expected an object such as {{"path": "a.jpg", "label": "cat"}}.')
            yield number, row


def _image_files(root: Path) -> Iterator[str]:
    """Paths of the images in a folder and those below it; hidden files and folders are passed over, links followed."""
    for entry in _entries(root):
        if entry.is_dir():
            yield from _image_files(Path(entry.path))
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            yield entry.path


def _entries(root: Path) -> list[os.DirEntry[str]]:
    with os.scandir(root) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _channels_first(array: NDArray[np.uint8], channels: int) -> Tensor:
    pixels = torch.from_numpy(np.array(array))
    pixels = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)
    if len(pixels) == channels:
        return pixels.contiguous()
    if len(pixels) == 1:
        return pixels.expand(channels, -1, -1).contiguous()
    assert channels == 1, "the recipe checks that"
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (pixels * luma).sum(0, keepdim=True).round().to(torch.uint8)
