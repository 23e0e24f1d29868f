"""Figures of a classifier, from counts that add up over batches and ranks.

`count` turns what was predicted into one vector of counts; vectors of different images are added; `summarise` turns the sum into
an `Evaluation`. So every image weighs the same, wherever it was counted.
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

BINS = 15
"""Bins of equal width for the calibration error (Guo et al. 2017, arXiv 1706.04599)."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a classifier is worth on a set of labelled images. Shares are from 0 to 1; K classes.

    top5 is None below five classes. precision, recall, f1: float64 (K,), NaN where undefined (a class never predicted has no
    precision, one without images no recall). The macro averages are means over the classes that occur as target or prediction,
    undefined taken as 0 (as scikit-learn does). support: int64 (K,), images of each class. confusion: int64 (K, K), rows are
    targets, columns predictions. ece: expected calibration error. calibration: float64 (BINS, 3), for each bin of the confidence
    its images, their mean confidence and their accuracy (NaN in an empty bin)."""

    images: int
    top1: float
    top5: float | None
    loss: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    ece: float
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]
    confusion: NDArray[np.int64]
    calibration: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON holds it: lists for arrays, None for what is undefined."""
        return {name: _plain(value) for name, value in vars(self).items()}

    def table(self) -> str:
        """The main figures as lines of plain text."""
        rows = [("images", f"{self.images:,}"), ("top-1", f"{self.top1:.2%}")]
        if self.top5 is not None:
            rows.append(("top-5", f"{self.top5:.2%}"))
        rows += [
            ("loss", f"{self.loss:.4f}"),
            ("macro precision", f"{self.macro_precision:.2%}"),
            ("macro recall", f"{self.macro_recall:.2%}"),
            ("macro F1", f"{self.macro_f1:.2%}"),
            ("calibration error", f"{self.ece:.2%}"),
        ]
        width = max(len(value) for _, value in rows)
        return "\n".join(f"{name:<18} {value:>{width}}" for name, value in rows)


def count(targets: Tensor, classes: Tensor, confidences: Tensor, loss_sum: float, num_classes: int) -> Tensor:
    """The counts of some images, to be added to those of others.

    targets: int64 (N,). classes: int64 (N, k), the k most probable first, k = min(5, num_classes). confidences: float (N,), the
    probability of the first. loss_sum: sum of the images' losses.
    Returns float64, flat: loss sum, hits among the k, confusion matrix, and images, confidence and hits of each bin."""
    predicted = classes[:, 0]
    hits = (classes == targets[:, None]).double()
    confusion = torch.bincount(targets * num_classes + predicted, minlength=num_classes**2)
    # Bins are open below and closed above, so that a confidence of 1 falls into the last one.
    bins = ((confidences.double() * BINS).ceil().nan_to_num(BINS).long() - 1).clamp(0, BINS - 1)
    filled = torch.zeros(3, BINS, dtype=torch.float64)
    filled.index_add_(1, bins, torch.stack([torch.ones(len(bins), dtype=torch.float64), confidences.double(), hits[:, 0]]))
    totals = torch.tensor([loss_sum, hits.sum()], dtype=torch.float64)
    return torch.cat([totals, confusion.double(), filled.flatten()])


def summarise(counts: Tensor, num_classes: int) -> Evaluation:
    """The figures that follow from a sum of counts. Raises DataError where no image was counted."""
    loss_sum, hits = counts[:2].tolist()
    confusion = counts[2 : 2 + num_classes**2].cpu().numpy().astype(np.int64).reshape(num_classes, num_classes)
    bin_images, bin_confidence, bin_hits = counts[2 + num_classes**2 :].cpu().numpy().reshape(3, BINS)
    images = int(confusion.sum())
    if images == 0:
        raise DataError("No image to evaluate. Give a folder with labelled images.")
    right, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: undefined
        precision, recall, f1 = right / predicted, right / support, 2 * right / (predicted + support)
        calibration = np.stack([bin_images, bin_confidence / bin_images, bin_hits / bin_images], axis=1)
    occurs = predicted + support > 0
    macro_precision, macro_recall, macro_f1 = (float(np.nan_to_num(of[occurs]).mean()) for of in (precision, recall, f1))
    return Evaluation(
        images=images,
        top1=float(right.sum()) / images,
        top5=hits / images if num_classes >= 5 else None,
        loss=loss_sum / images,
        macro_precision=macro_precision,
        macro_recall=macro_recall,
        macro_f1=macro_f1,
        ece=float(np.abs(bin_confidence - bin_hits).sum()) / images,
        precision=precision,
        recall=recall,
        f1=f1,
        support=support,
        confusion=confusion,
        calibration=calibration,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
