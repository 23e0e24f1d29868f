"""Figures of a segmentor, from counts of pixels that are added over images and ranks.

They are those of MMSegmentation's IoUMetric: intersections and unions of each class are summed over
the whole data set and then divided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.errors import DataError
from convnextv2.text import counted

_MAX_IN_TABLE = 12
"""The number of classes in a printed table."""
_LONGEST_NAME = 32
"""The maximum length of a name in a printed table."""
MAX_PAIRS = 15
"""The number of confusions in JSON and on the page."""


def count_pixels(targets: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Count pixels by their right class and their predicted class.

    Args:
        targets: Integers (H, W), class indices. Pixels with a negative index are not counted.
        predicted: Integers (H, W), class indices.
        num_classes: K.

    Returns:
        int64 (K, K). Rows are right classes, columns are predictions.
    """
    known = targets >= 0
    pairs = targets[known].long() * num_classes + predicted[known].long()
    counts = torch.bincount(pairs, minlength=num_classes**2)
    return counts.view(num_classes, num_classes)


@dataclass(frozen=True, eq=False)
class SegmentationEvaluation:
    """The figures of a segmentor of K classes on a set of images with label maps.

    Shares are from 0 to 1. A class that occurs neither in the maps nor in the predictions has no
    IoU and does not count in the mean. One that is only predicted has an IoU of 0 and counts.

    Attributes:
        images: The number of images.
        class_names: One for each class.
        confusion: int64 (K, K), pixels. Rows are right classes, columns are predictions.
    """

    images: int
    class_names: tuple[str, ...]
    confusion: NDArray[np.int64]

    @property
    def support(self) -> NDArray[np.int64]:
        """int64 (K,), the pixels of each class."""
        counts: NDArray[np.int64] = self.confusion.sum(axis=1)
        return counts

    @property
    def predicted(self) -> NDArray[np.int64]:
        """int64 (K,), the pixels that were predicted to be of each class."""
        counts: NDArray[np.int64] = self.confusion.sum(axis=0)
        return counts

    @property
    def iou(self) -> NDArray[np.float64]:
        """float64 (K,), intersection over union; NaN for a class that does not occur at all."""
        right = self.confusion.diagonal()
        return _share(right, self.support + self.predicted - right)

    @property
    def recall(self) -> NDArray[np.float64]:
        """float64 (K,), the share of a class's pixels that were found; NaN without pixels."""
        return _share(self.confusion.diagonal(), self.support)

    @property
    def miou(self) -> float:
        """The mean IoU over the classes that occur in the maps or in the predictions."""
        return _mean(self.iou)

    @property
    def accuracy(self) -> float:
        """The share of pixels whose class was found."""
        return float(self.confusion.trace() / self.confusion.sum())

    @property
    def mean_accuracy(self) -> float:
        """The mean recall over the classes that occur in the maps."""
        return _mean(self.recall)

    @property
    def classes_counted(self) -> int:
        """The number of classes in the mean IoU."""
        return int((~np.isnan(self.iou)).sum())

    def figures(self) -> dict[str, float]:
        """Return the main figures by name, for the log."""
        return {
            "miou": self.miou,
            "pixel_accuracy": self.accuracy,
            "mean_accuracy": self.mean_accuracy,
        }

    def confusions(self) -> list[tuple[int, int, int]]:
        """Return the most frequent mistakes: right class, predicted class, pixels."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_PAIRS]
        rows, columns = np.unravel_index(order, wrong.shape)
        return [
            (i, j, int(wrong[i, j]))
            for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
            if wrong[i, j]
        ]

    def to_dict(self) -> dict[str, Any]:
        """Convert the figures to JSON types. Undefined values are None."""
        columns = (self.class_names, self.iou, self.recall, self.support.tolist())
        return {
            "images": self.images,
            "miou": self.miou,
            "pixel_accuracy": self.accuracy,
            "mean_accuracy": self.mean_accuracy,
            "classes_counted": self.classes_counted,
            "classes": [
                {"name": name, "iou": _or_none(iou), "recall": _or_none(recall), "pixels": pixels}
                for name, iou, recall, pixels in zip(*columns, strict=True)
            ],
            "confusions": [
                {"class": self.class_names[i], "predicted": self.class_names[j], "pixels": pixels}
                for i, j, pixels in self.confusions()
            ],
        }

    def table(self) -> str:
        """Return the figures as a table for the terminal, with the most frequent classes first."""
        names = [_short(name) for name in self.class_names]
        width = max(len("class"), *(len(name) for name in names))
        total = self.support.sum()
        order = np.argsort(-self.support, kind="stable").tolist()
        occurring = [i for i in order if not math.isnan(self.iou[i])]
        lines = [
            f"mIoU {self.miou:.2%} over {counted(self.classes_counted, 'class(es)')}, pixel "
            f"accuracy {self.accuracy:.2%}, mean accuracy {self.mean_accuracy:.2%} "
            f"({counted(self.images, 'image(s)')})",
            f"{'class':<{width}}  {'IoU':>7}  {'recall':>7}  {'pixels':>7}",
        ]
        lines += [
            f"{names[i]:<{width}}  {self.iou[i]:7.2%}  {_percent(self.recall[i]):>7}  "
            f"{self.support[i] / total:7.2%}"
            for i in occurring[:_MAX_IN_TABLE]
        ]
        if len(occurring) > _MAX_IN_TABLE:
            lines.append(f"... and {len(occurring) - _MAX_IN_TABLE} more, in the report")
        return "\n".join(lines)


def summarise(counts: Tensor, images: int, class_names: tuple[str, ...]) -> SegmentationEvaluation:
    """Build the evaluation from the counts of all images.

    Raises:
        DataError: No pixel was counted.
    """
    if not int(counts.sum()):
        raise DataError("no pixel of the validation images has a class, so nothing is measured.")
    return SegmentationEvaluation(images, class_names, counts.cpu().numpy())


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
    return shares


def _percent(value: float) -> str:
    """Return a share in percent, or a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.2%}"


def _mean(values: NDArray[np.float64]) -> float:
    return float(values[~np.isnan(values)].mean())


def _short(name: str) -> str:
    """Shorten a name, such as ADE20K's lists of synonyms, to the width of a table."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
