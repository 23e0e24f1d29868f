"""Sources of images from data sets of the Hugging Face library `datasets`.

A data set is read by index (map-style), never as a stream. Only then can a run start at any
position, and read each row once in an epoch on any number of ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.class_names import class_name_of, is_not_trained
from convnextv2.data.shards.tar import LABEL_FIELDS
from convnextv2.data.source import Source
from convnextv2.data.split_names import Kind, kind_of
from convnextv2.errors import DataError, MissingPackageError
from convnextv2.text import plain

PREFIX = "hf:"
"""The beginning of a `data_dir` that names a data set on the Hub, or anything else that
`load_dataset` accepts."""

_SAVED = ("dataset_dict.json", "state.json")


def is_row_set(data_dir: str) -> bool:
    """Return whether `data_dir` names a data set on the Hub, or a folder of `save_to_disk`."""
    if data_dir.startswith(PREFIX):
        return True
    return bool(data_dir) and any((Path(data_dir) / name).is_file() for name in _SAVED)


@dataclass(frozen=True, eq=False)
class RowSplits:
    """The splits of a data set.

    Attributes:
        splits: The name of each split -> its rows, a `datasets.Dataset`.
        training: The name of the training split.
        validation: The name of the validation split; "" if there is none.
        has_splits: Whether there is more than one split.
        notes: Messages to the user about what was found.
    """

    splits: Mapping[str, Any]
    training: str
    validation: str
    has_splits: bool
    notes: tuple[str, ...] = ()


def open_rows(data_dir: str, train_split: str | None, val_split: str | None) -> RowSplits:
    """Open a data set, and find its splits.

    Args:
        data_dir: hf:OWNER/NAME, hf:OWNER/NAME:CONFIGURATION, or a folder that `save_to_disk` wrote.
        train_split: The user's name of the training split; None to look for usual names.
        val_split: The user's name of the validation split; None likewise.

    Raises:
        DataError: The data set or a split does not exist.
        MissingPackageError: The package datasets is not installed.
    """
    splits = _opened(data_dir)
    if len(splits) == 1 and (train_split in (None, ".", *splits)):
        return RowSplits(splits, next(iter(splits)), "", has_splits=False)
    training = _chosen(data_dir, splits, "train", train_split)
    validation = _chosen(data_dir, splits, "validation", val_split)
    if not training:
        raise DataError(
            f"{data_dir}: has the splits {', '.join(splits)}, none of which is for training. Set "
            "train_split to the right one."
        )
    note = f"{data_dir}: the split {training} is for training"
    note += f", {validation} for validation" if validation else ""
    left = [name for name in splits if name not in (training, validation)]
    note += f"; not used: {', '.join(left)}." if left else "."
    return RowSplits(splits, training, validation, True, (note,))


def row_source(
    data_dir: str,
    found: RowSplits,
    split: str,
    *,
    labelled: bool,
    class_names: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> Source:
    """List the images of a split, in the order of its rows.

    Args:
        data_dir: The `data_dir` of the user, for error messages.
        found: The splits of the data set.
        split: The name of the split.
        labelled: Whether each image needs a class.
        class_names: The classes in the order of their indices; empty for those of the data set.
        columns: Role (path or label) -> the name of its column, if the user gave it.

    Raises:
        DataError: There is no column of images or labels, or a label is not a class.
    """
    data, columns = found.splits[split], columns or {}
    if not len(data):
        raise DataError(f"{data_dir}: the split {split} has no rows.")
    images = RowImages(
        data, _image_column(data_dir, data, columns.get("path", "")), data_dir, split
    )
    if not labelled:
        return Source(images)
    names, targets = _labels(data_dir, data, columns.get("label", ""), class_names)
    return Source(images, targets, tuple(names))


class RowImages(Sequence[str]):
    """The images of a split, or some of them. As a sequence, it holds their names.

    A name consists of `data_dir`, the split and the number of the row.
    """

    def __init__(
        self,
        data: Any,
        column: str,
        where: str,
        split: str,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        from datasets import Image

        self._column, self._where, self._split, self._rows = column, where, split, rows
        # Only the bytes of the files are read, since this package decodes them itself.
        self._data = data.with_format(None).select_columns([column])
        if self._data.features[column].decode:
            self._data = self._data.cast_column(column, Image(decode=False))

    def __len__(self) -> int:
        return len(self._data) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> RowImages: ...
    def __getitem__(self, index: int | slice) -> str | RowImages:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return f"{self._where}/{self._split}/{self._row(index)}"

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> RowImages:
        """Return the images at these indices, in this order."""
        chosen = np.asarray(indices, np.int64)
        rows = chosen if self._rows is None else self._rows[chosen]
        return RowImages(self._data, self._column, self._where, self._split, rows)

    def read(self, index: int) -> bytes:
        """Return the bytes of an image file.

        Raises:
            DataError: The row has no image, or names a file that cannot be read.
        """
        image = self._data[self._row(index)][self._column]
        if image is None:
            raise DataError(f"{self[index]}: has no image in the column {self._column}.")
        if image["bytes"] is not None:
            content: bytes = image["bytes"]
            return content
        try:
            return Path(image["path"]).read_bytes()
        except (OSError, TypeError) as error:
            raise DataError(
                f"{self[index]}: names the file {plain(str(image['path']))}, which cannot be read "
                f"({getattr(error, 'strerror', None) or error})."
            ) from None

    def names_sha256(self) -> str:
        """Return a hash of the split and of the numbers of the rows, in order."""
        digest = hashlib.sha256(self._split.encode())
        rows = np.arange(len(self)) if self._rows is None else self._rows
        digest.update(np.ascontiguousarray(rows, "<i8").data)
        return digest.hexdigest()

    def _row(self, index: int) -> int:
        place = range(len(self))[index]
        return place if self._rows is None else int(self._rows[place])


def _opened(data_dir: str) -> dict[str, Any]:
    try:
        import datasets
    except ImportError:
        raise MissingPackageError("datasets", "datasets") from None
    try:
        if data_dir.startswith(PREFIX):
            name, _, configuration = data_dir.removeprefix(PREFIX).partition(":")
            found = datasets.load_dataset(name, configuration or None)
        else:
            found = datasets.load_from_disk(data_dir)
    except Exception as error:  # from the network, a file, or the data set's own script
        reason = plain(str(error).split("\n")[0])[:200].rstrip(".")
        raise DataError(
            f"{data_dir}: cannot be opened ({reason}). Check its name, and whether it can be "
            "reached."
        ) from None
    return dict(found) if isinstance(found, Mapping) else {"all": found}


def _chosen(data_dir: str, splits: Mapping[str, Any], kind: Kind, given: str | None) -> str:
    if given is not None and given in splits:
        return given
    wanted = kind_of(given) if given is not None else kind
    found = [name for name in splits if kind_of(name) and kind_of(name) == wanted]
    if len(found) > 1:
        knob = "train_split" if kind == "train" else "val_split"
        raise DataError(
            f"{data_dir}: has the splits {' and '.join(found)}. Set {knob} to the right one."
        )
    return found[0] if found else ""


def _image_column(data_dir: str, data: Any, given: str) -> str:
    from datasets import Image

    found = [name for name, kind in data.features.items() if isinstance(kind, Image)]
    if given and given not in found:
        raise DataError(
            f"{data_dir}: has no column of images {given!r}. Columns of images: "
            f"{', '.join(found) or 'none'}."
        )
    if not given and len(found) != 1:
        what = f"several columns of images ({', '.join(found)})" if found else "no column of images"
        raise DataError(f"{data_dir}: has {what}. Name one of the type Image: --columns path=NAME.")
    return given or found[0]


def _label_column(data_dir: str, data: Any, given: str) -> str:
    from datasets import ClassLabel

    if given:
        if given not in data.features:
            raise DataError(
                f"{data_dir}: has no column {given!r}. It has {', '.join(data.features)}."
            )
        return given
    classes = [name for name, kind in data.features.items() if isinstance(kind, ClassLabel)]
    usual = [name for name in (*LABEL_FIELDS, "labels") if name in data.features]
    best = [name for name in usual if name in classes] or (classes if len(classes) == 1 else usual)
    if not best:
        raise DataError(
            f"{data_dir}: has no column that is clearly the label. It has "
            f"{', '.join(data.features)}. Name one: --columns label=NAME."
        )
    return best[0]


def _labels(
    data_dir: str, data: Any, given: str, class_names: Sequence[str]
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the classes, and the class of each row."""
    from datasets import ClassLabel

    column = _label_column(data_dir, data, given)
    kind = data.features[column]
    values = data.with_format("numpy").select_columns([column])[:][column]
    if getattr(values, "ndim", 0) != 1 or values.dtype.kind not in "iuOUS":
        raise DataError(
            f"{data_dir}: the column {column} does not hold one class for each image ({kind}). "
            "Name another one: --columns label=NAME."
        )
    if values.dtype.kind in "iu":
        if (values < 0).any():
            row = int(np.flatnonzero(values < 0)[0])
            raise DataError(f"{data_dir}: row {row} has no class ({column} = {int(values[row])}).")
        top = int(values.max())
        words = list(kind.names) if isinstance(kind, ClassLabel) else list(map(str, range(top + 1)))
        codes = values.astype(np.int64)
    else:
        texts = [class_name_of(str(value)) if value is not None else "" for value in values]
        if "" in texts:
            raise DataError(f"{data_dir}: row {texts.index('')} has no class in {column}.")
        words = sorted(set(texts))
        number = {word: i for i, word in enumerate(words)}
        codes = np.array([number[text] for text in texts], np.int64)
    if not class_names:
        return words, codes
    place = {class_name_of(name): i for i, name in enumerate(class_names)}
    if unknown := [words[i] for i in np.unique(codes) if class_name_of(words[i]) not in place]:
        raise DataError(f"{data_dir}: class {unknown[0]!r} {is_not_trained(class_names)}.")
    mapped = np.array([place.get(class_name_of(word), -1) for word in words], np.int64)
    return list(class_names), mapped[codes]
