"""The images to audit, with their splits and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.dense.layouts import split_kind
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.split_names import Kind, kind_of
from convnextv2.data.splits import HERE

TaskName = Literal["classification", "segmentation", "detection"]


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a data set, split by split.

    Attributes:
        task: The task that the data are annotated for.
        root: The folder or the table.
        paths: The files.
        splits: The split of each image as the data call it; "" if it has none.
        targets: int64 (N,), the class of each image, -1 if unknown; int8 (N, K), 1 for each class
            that an image has, 0 for those that it does not have, -1 if unknown; None without
            labels.
        class_names: The classes.
        amounts: int64 (N, K), for detection the objects and for segmentation the pixels of each
            class; None for other tasks.
        maps: The label map of each image, "" if it has none that can be used; empty for other
            tasks.
        map_knobs: Knob -> value as typed on a command line, for the knobs that training needs to
            read the label maps in the same way.
        sources: Split -> images with objects, for detection.
        asked: The splits for training and for validation that the user named; None for the usual
            names.
        notes: Messages about the images and labels that were found.
        defects: Lines about annotations that cannot be used.
    """

    task: TaskName
    root: Path
    paths: tuple[str, ...]
    splits: tuple[str, ...]
    targets: NDArray[np.integer[Any]] | None = None
    class_names: tuple[str, ...] = ()
    amounts: NDArray[np.int64] | None = None
    maps: tuple[str, ...] = ()
    map_knobs: Mapping[str, str] = field(default_factory=dict)
    sources: dict[str, AnnotatedSource] | None = None
    asked: tuple[str | None, str | None] = (None, None)
    notes: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def is_multi_label(self) -> bool:
        """True if an image may have any number of classes (multi-label data)."""
        return self.targets is not None and self.targets.ndim == 2

    @property
    def split_names(self) -> list[str]:
        """The splits in the order in which they were found."""
        return list(dict.fromkeys(self.splits))

    def kind_of(self, split: str) -> Kind | None:
        """Return the kind of a split by its name, as training on data of this task does."""
        return split_kind(split) if self.task == "detection" else kind_of(split)

    def splits_used(self) -> tuple[str | None, str | None]:
        """Return the splits that are used for training and for validation.

        They are the splits that the user named. If the user named none for training, and none has a
        usual name for it, the splits of unknown kind are used for training. If there is none for
        validation either, the last of them is used for that, as with the folds of a
        cross-validation.

        Returns:
            The names of the splits for training, separated by commas, and the name of the split for
            validation; None for the usual names.
        """
        train_split, val_split = self.asked
        splits = [split for split in self.split_names if split]
        kinds = {self.kind_of(split) for split in splits}
        if train_split is not None or not splits or "train" in kinds:
            return train_split, val_split
        unknown = [each for each in splits if self.kind_of(each) is None and each != val_split]
        if val_split is None and "validation" not in kinds and len(unknown) > 1:
            val_split = unknown.pop()
        chosen = unknown or splits[:1]
        if self.task == "detection":
            chosen = chosen[:1]  # training on objects takes only one split
        return ",".join(chosen), val_split

    def training_splits(self) -> frozenset[str]:
        """Return the splits for training: those that were asked for, or all without another use."""
        asked = self.asked[0]
        if asked not in (None, HERE):
            return self._meant(asked)
        train_split, val_split = self.splits_used()
        if self.task == "detection" and train_split is not None:
            return self._meant(train_split)
        others = self._meant(val_split)
        return frozenset(
            split
            for split in self.split_names
            if split not in others and self.kind_of(split) not in ("validation", "test")
        )

    def _meant(self, name: str | None) -> frozenset[str]:
        """Return the splits that a name stands for. It may list several, separated by commas."""
        if name is None:
            return frozenset()
        splits, kind = frozenset(self.split_names), self.kind_of(name)
        exact = splits & {name, *(part.strip() for part in name.split(","))}
        return exact or frozenset(each for each in splits if kind and self.kind_of(each) == kind)

    def label_of(self, index: int) -> str:
        """Return the class of an image, or its classes with | between them."""
        if self.targets is None:
            return ""
        if self.targets.ndim == 1:
            number = int(self.targets[index])
            return self.class_names[number] if number >= 0 else ""
        return "|".join(self.class_names[k] for k in np.flatnonzero(self.targets[index] == 1))
