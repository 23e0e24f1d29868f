"""Figures of a classifier, from counts that are added over batches and ranks.

`count` turns predictions into `Counts`. The counts of different images are added, and `summarise`
turns the sum into a `ClassifierEvaluation`. Every image thus has the same weight, on any rank. A
new figure must also be added to `verbs.answers.validated`, and to `tasks.classification.goal` if
runs log it.

Confusions are counted only for the pairs of classes that occur. A matrix of all pairs would take
3.6 GiB for the 21,841 classes of ImageNet-22K, while there are never more pairs than images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.evaluation.unknown import Coverage

MAX_CLASSES_IN_JSON = 2_000
"""With more classes, JSON has only the pairs that occur instead of the matrix of all pairs."""

BINS = 15
"""Bins of equal width for the calibration error (Guo et al. 2017, arXiv 1706.04599)."""


@dataclass(frozen=True, eq=False)
class ClassifierEvaluation:
    """The figures of a classifier of K classes on a set of labelled images.

    Shares are from 0 to 1. The macro averages are means over the classes that occur as target or
    prediction. Undefined values count as 0, as in scikit-learn.

    Attributes:
        balanced_accuracy: The mean recall over the classes that occur as target, so that a rare
            class counts as much as a frequent one.
        top5: The top-5 accuracy; None if there are fewer than five classes.
        precision: float64 (K,), NaN for a class that was never predicted.
        recall: float64 (K,), NaN for a class without images.
        f1: float64 (K,), NaN for a class that neither occurs nor was predicted.
        support: int64 (K,), the number of images of each class.
        pairs: int64 (P, 3), one row for each pair that occurs: target, predicted class, and number
            of images, in the order of the classes.
        ece: The expected calibration error.
        calibration: float64 (BINS, 3): images, mean confidence and accuracy in each bin of the
            confidence; NaN in an empty bin.
        intervals: The 95 % intervals of the main figures, if they were computed; see
            `evaluation.intervals`.
        unknown: The figures of the "unknown" answer, if they were measured.
    """

    images: int
    top1: float
    top5: float | None
    loss: float
    balanced_accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    ece: float
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]
    pairs: NDArray[np.int64]
    calibration: NDArray[np.float64]
    intervals: Mapping[str, tuple[float, float]] | None = None
    unknown: Coverage | None = None

    @property
    def confusion(self) -> NDArray[np.int64]:
        """The matrix of all pairs, int64 (K, K). Rows are targets, columns are predictions."""
        matrix = np.zeros((len(self.support), len(self.support)), dtype=np.int64)
        targets, predicted, images = self.pairs.T
        matrix[targets, predicted] = images
        return matrix

    @property
    def only_prediction(self) -> int | None:
        """The class that every image got, although the images are of several classes; or None.

        A classifier that has collapsed, or learned nothing, answers like this. If one class is
        frequent, the top-1 accuracy does not show it.
        """
        targets, predicted = np.unique(self.pairs[:, 0]), np.unique(self.pairs[:, 1])
        return int(predicted[0]) if len(predicted) == 1 and len(targets) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Convert the figures to JSON types: lists for arrays, None for undefined values.

        Returns:
            The attributes by name. Up to `MAX_CLASSES_IN_JSON` classes, `confusion` replaces
            `pairs`. `intervals` and `unknown` are present if they were measured.
        """
        figures = dict(vars(self))
        del figures["unknown"], figures["intervals"]
        if self.intervals is not None:
            figures["intervals"] = {name: list(ends) for name, ends in self.intervals.items()}
        if self.unknown is not None:
            figures["unknown"] = asdict(self.unknown)
        if len(self.support) <= MAX_CLASSES_IN_JSON:
            named = {"pairs": "confusion"}
            figures = {
                named.get(name, name): self.confusion if name == "pairs" else value
                for name, value in figures.items()
            }
        return {name: json_types(value) for name, value in figures.items()}

    def collapse_line(self) -> str:
        """Return a warning if all images get the same class; else an empty text."""
        if self.only_prediction is None:
            return ""
        return (
            "all images get the same class. The classifier has collapsed, or has not begun to "
            "learn. A smaller lr, or clip_norm = 1, may help."
        )

    def table(self) -> str:
        """Return the main figures as lines of plain text."""
        rows = [("images", f"{self.images:,}", ""), ("top-1", f"{self.top1:.2%}", "top1")]
        if self.top5 is not None:
            rows.append(("top-5", f"{self.top5:.2%}", "top5"))
        rows += [
            ("loss", f"{self.loss:.4f}", ""),
            ("balanced accuracy", f"{self.balanced_accuracy:.2%}", "balanced_accuracy"),
            ("macro precision", f"{self.macro_precision:.2%}", ""),
            ("macro recall", f"{self.macro_recall:.2%}", ""),
            ("macro F1", f"{self.macro_f1:.2%}", "macro_f1"),
            ("calibration error", f"{self.ece:.2%}", ""),
        ]
        width = max(len(value) for _, value, _ in rows)
        return "\n".join(
            f"{title:<18} {value:>{width}}{self._interval(name)}" for title, value, name in rows
        )

    def _interval(self, name: str) -> str:
        """Return the interval of a figure as text; empty if there is none."""
        if self.intervals is None or name not in self.intervals:
            return ""
        low, high = self.intervals[name]
        return f"  ({low:.2%} to {high:.2%})"


@dataclass(frozen=True, eq=False)
class Counts:
    """The counts of some images. Counts of different images are added with +.

    Attributes:
        totals: float64 (2,), the sum of the losses, and the hits among the k most probable classes.
        bins: float64 (3, BINS), images, confidence and hits in each bin of the confidence.
        pairs: int64 (P, 2), ascending: target * num_classes + prediction, and the number of images
            with that pair. Only pairs that occur have a row.
    """

    totals: Tensor
    bins: Tensor
    pairs: Tensor

    def __add__(self, other: Counts) -> Counts:
        pairs = merge_pairs(torch.cat([self.pairs, other.pairs]))
        return Counts(self.totals + other.totals, self.bins + other.bins, pairs)


def count(
    targets: Tensor, classes: Tensor, confidences: Tensor, loss_sum: float, num_classes: int
) -> Counts:
    """Count the predictions for some images.

    Args:
        targets: int64 (N,).
        classes: int64 (N, k), the k most probable first, k = min(5, num_classes).
        confidences: float (N,), the probability of the first class.
        loss_sum: The sum of the losses of the images.
        num_classes: The number of classes.
    """
    predicted = classes[:, 0]
    hits = (classes == targets[:, None]).double()
    keys, images = torch.unique(targets * num_classes + predicted, return_counts=True)
    # Bins are open below and closed above, so that a confidence of 1 falls into the last one.
    bins = ((confidences.double() * BINS).ceil().nan_to_num(BINS).long() - 1).clamp(0, BINS - 1)
    filled = torch.zeros(3, BINS, dtype=torch.float64)
    filled.index_add_(
        1,
        bins,
        torch.stack([torch.ones(len(bins), dtype=torch.float64), confidences.double(), hits[:, 0]]),
    )
    totals = torch.tensor([loss_sum, hits.sum()], dtype=torch.float64)
    return Counts(totals, filled, torch.stack([keys, images], dim=1))


def merge_pairs(pairs: Tensor) -> Tensor:
    """Add up the images of equal pairs.

    Args:
        pairs: int64 (P, 2), keys and images. A key may occur several times.

    Returns:
        int64 (Q, 2), each key once, ascending.
    """
    keys, which = torch.unique(pairs[:, 0], return_inverse=True)
    return torch.stack([keys, torch.zeros_like(keys).index_add_(0, which, pairs[:, 1])], dim=1)


def add_over_ranks(counts: Counts, place: Place) -> Counts:
    """Add the counts of all ranks. Every rank returns the sum.

    Args:
        counts: The counts of this rank.
        place: This rank.
    """
    if place.world_size == 1:
        return counts
    lengths = torch.zeros(place.world_size, dtype=torch.int64)
    lengths[place.rank] = len(counts.pairs)
    lengths = place.sum(lengths)
    # Each rank writes its pairs into its own rows, so the sum contains the pairs of all ranks.
    first = int(lengths[: place.rank].sum())
    everyones = torch.zeros(int(lengths.sum()), 2, dtype=torch.int64)
    everyones[first : first + len(counts.pairs)] = counts.pairs
    pairs = merge_pairs(place.sum(everyones))
    return Counts(place.sum(counts.totals.clone()), place.sum(counts.bins.clone()), pairs)


def summarise(counts: Counts, num_classes: int) -> ClassifierEvaluation:
    """Compute the figures from a sum of counts.

    Raises:
        DataError: No image was counted.
    """
    loss_sum, hits = counts.totals.tolist()
    keys, each = counts.pairs.cpu().numpy().T
    pairs = np.stack([keys // num_classes, keys % num_classes, each], axis=1)
    bin_images, bin_confidence, bin_hits = counts.bins.cpu().numpy()
    images = int(each.sum())
    if images == 0:
        raise DataError(
            "No image to evaluate: there is none, or none could be read. Give a folder with "
            "labelled images."
        )
    support, predicted, right = (np.zeros(num_classes, dtype=np.int64) for _ in range(3))
    np.add.at(support, pairs[:, 0], each)
    np.add.at(predicted, pairs[:, 1], each)
    is_right = pairs[:, 0] == pairs[:, 1]
    right[pairs[is_right, 0]] = each[is_right]
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: undefined
        precision, recall, f1 = (
            right / predicted,
            right / support,
            2 * right / (predicted + support),
        )
        calibration = np.stack(
            [bin_images, bin_confidence / bin_images, bin_hits / bin_images], axis=1
        )
    occurs = predicted + support > 0
    macro_precision, macro_recall, macro_f1 = (
        float(np.nan_to_num(of[occurs]).mean()) for of in (precision, recall, f1)
    )
    return ClassifierEvaluation(
        images=images,
        top1=float(right.sum()) / images,
        top5=hits / images if num_classes >= 5 else None,
        loss=loss_sum / images,
        balanced_accuracy=float(recall[support > 0].mean()),
        macro_precision=macro_precision,
        macro_recall=macro_recall,
        macro_f1=macro_f1,
        ece=float(np.abs(bin_confidence - bin_hits).sum()) / images,
        precision=precision,
        recall=recall,
        f1=f1,
        support=support,
        pairs=pairs,
        calibration=calibration,
    )


def json_types(value: Any) -> Any:
    """Convert a value to JSON types: lists for arrays and tuples, None for NaN and infinity."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: json_types(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_types(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
