"""The images to audit, with their splits and labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.dense.source import AnnotatedSource

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
        maps: The label map of each image, "" if it has none; empty for other tasks.
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

    def label_of(self, index: int) -> str:
        """Return the class of an image, or its classes with | between them."""
        if self.targets is None:
            return ""
        if self.targets.ndim == 1:
            number = int(self.targets[index])
            return self.class_names[number] if number >= 0 else ""
        return "|".join(self.class_names[k] for k in np.flatnonzero(self.targets[index] == 1))
