"""Figures of a model that gives an image any number of labels.

They are computed from the scores of all images at once, which every rank has, so they do not depend
on the number of ranks. Unknown labels are left out of all figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnextv2.errors import DataError
from convnextv2.evaluation.metrics import json_types
from convnextv2.evaluation.thresholds import DEFAULT


@dataclass(frozen=True, eq=False)
class LabelFigures:
    """The figures of the labels above a threshold.

    Shares are from 0 to 1. Undefined values count as 0, as in scikit-learn.

    Attributes:
        f1_macro: The mean F1 of the classes that at least one image has.
        f1_micro: F1 of the labels of all classes together.
        exact_match: The share of images with no wrong label.
        hamming: The share of wrong labels.
        precision: float64 (K,), NaN for a class that was never predicted.
        recall: float64 (K,), NaN for a class that no image has.
        f1: float64 (K,), NaN for a class that no image has.
        counts: int64 (K, 3): true positives, false positives and false negatives.
    """

    f1_macro: float
    f1_micro: float
    exact_match: float
    hamming: float
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    counts: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MultiLabelEvaluation:
    """The figures of a model of K classes on images that may have any number of them.

    Attributes:
        images: The number of images.
        loss: The mean binary cross entropy of the known labels.
        map_macro: The mean average precision (AP) of the classes that at least one image has.
        map_micro: AP of the labels of all classes together.
        ap: float64 (K,), the AP of each class; NaN for a class that no image has.
        support: int64 (K,), the number of images that have each class.
        unknown: The number of labels that are not known.
        empty: The number of images that have none of the classes.
        at_half: The figures at a threshold of 0.5 for every class.
        fitted: The figures at the thresholds; None if there are none.
        thresholds: A threshold for each class; empty if there are none.
        together: int64 (K, K), the number of images that have both classes.
    """

    images: int
    loss: float
    map_macro: float
    map_micro: float
    ap: NDArray[np.float64]
    support: NDArray[np.int64]
    unknown: int
    empty: int
    at_half: LabelFigures
    fitted: LabelFigures | None
    thresholds: tuple[float, ...]
    together: NDArray[np.int64]

    @property
    def absent(self) -> int:
        """The number of classes that no image has. They have no AP, and no mean includes them."""
        return int((self.support == 0).sum())

    @property
    def chosen(self) -> LabelFigures:
        """The figures at the thresholds, or at 0.5 if there are none."""
        return self.fitted or self.at_half

    def figures(self) -> dict[str, float]:
        """Return the main figures by name, for the log."""
        found = {
            "map": self.map_macro,
            "map_micro": self.map_micro,
            "f1_macro": self.chosen.f1_macro,
            "f1_micro": self.chosen.f1_micro,
            "exact_match": self.chosen.exact_match,
            "hamming": self.chosen.hamming,
            "loss": self.loss,
        }
        return found

    def to_dict(self) -> dict[str, Any]:
        """Convert the figures to JSON types: lists for arrays, None for undefined values."""
        found = dict(vars(self)) | {"absent": self.absent}
        for name in ("at_half", "fitted"):
            part = found[name]
            found[name] = None if part is None else dict(vars(part))
        return {name: json_types(value) for name, value in found.items()}

    def table(self) -> str:
        """Return the main figures as lines of plain text."""
        rows = [
            ("images", f"{self.images:,}"),
            ("mAP (macro)", f"{self.map_macro:.2%}"),
            ("mAP (micro)", f"{self.map_micro:.2%}"),
        ]
        for where, part in (("at 0.5", self.at_half), ("at thresholds", self.fitted)):
            if part is not None:
                rows += [
                    (f"F1 macro, {where}", f"{part.f1_macro:.2%}"),
                    (f"F1 micro, {where}", f"{part.f1_micro:.2%}"),
                    (f"exact match, {where}", f"{part.exact_match:.2%}"),
                    (f"Hamming loss, {where}", f"{part.hamming:.2%}"),
                ]
        rows.append(("loss", f"{self.loss:.4f}"))
        width = max(len(value) for _, value in rows)
        lines = [f"{name:<28} {value:>{width}}" for name, value in rows]
        if self.absent:
            lines.append(
                f"{self.absent} of {len(self.support)} classes occur in none of these images, and "
                "are left out of all means."
            )
        return "\n".join(lines)


def summarise_labels(
    probs: NDArray[np.float32],
    targets: NDArray[np.int8],
    loss: float,
    thresholds: tuple[float, ...] = (),
    scores: NDArray[np.float32] | None = None,
) -> MultiLabelEvaluation:
    """Compute the figures of all images.

    Args:
        probs: float32 (N, K), the probability of each class.
        targets: int8 (N, K): 1, 0, or -1 for unknown.
        loss: The mean loss.
        thresholds: A threshold for each class; empty for none.
        scores: float32 (N, K), the scores for ranking images; default `probs`. Logits can differ
            where probabilities are equal in float32.

    Raises:
        DataError: There is no image.
    """
    if not len(targets):
        raise DataError(
            "No image to evaluate: there is none, or none could be read. Give a table with "
            "labelled images."
        )
    ranked = probs if scores is None else scores
    ap = np.array([average_precision(ranked[:, k], targets[:, k]) for k in range(targets.shape[1])])
    positive = (targets == 1).astype(np.int64)
    support = positive.sum(axis=0)
    half = np.full(targets.shape[1], DEFAULT)
    return MultiLabelEvaluation(
        images=len(targets),
        loss=loss,
        map_macro=_mean(ap[support > 0]),
        map_micro=average_precision(ranked.ravel(), targets.ravel()),
        ap=ap,
        support=support,
        unknown=int((targets < 0).sum()),
        empty=int(((targets == 1).sum(axis=1) == 0).sum()),
        at_half=label_figures(probs >= half, targets),
        fitted=label_figures(probs >= np.array(thresholds), targets) if thresholds else None,
        thresholds=thresholds,
        together=positive.T @ positive,
    )


def average_precision(scores: NDArray[Any], targets: NDArray[np.int8]) -> float:
    """Compute the average precision: the sum of (R_n - R_(n-1)) P_n over the distinct scores.

    Args:
        scores: float (N,), higher for images that are more likely to have the label.
        targets: int8 (N,): 1, 0, or -1 for unknown.

    Returns:
        A share from 0 to 1; NaN if there is no label 1.
    """
    known = targets >= 0
    scores, is_positive = scores[known], targets[known] == 1
    positives = int(is_positive.sum())
    if not positives:
        return math.nan
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(is_positive[order])
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    gained = np.diff(hits[last], prepend=0)
    return float((gained * hits[last] / (last + 1)).sum() / positives)


def label_figures(found: NDArray[np.bool_], targets: NDArray[np.int8]) -> LabelFigures:
    """Compare the labels that were found with those that images have.

    Args:
        found: bool (N, K).
        targets: int8 (N, K): 1, 0, or -1 for unknown.
    """
    known, has = targets >= 0, targets == 1
    right = (found & has).sum(axis=0)
    false = (found & known & ~has).sum(axis=0)
    missed = (~found & has).sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: undefined
        precision, recall = right / (right + false), right / (right + missed)
        f1 = np.where(right + missed > 0, 2 * right / (2 * right + false + missed), np.nan)
    total, wrong = right.sum(), false.sum() + missed.sum()
    is_wrong = (found != has) & known
    judged = known.any(axis=1)
    return LabelFigures(
        f1_macro=_mean(f1[right + missed > 0]),
        f1_micro=float(2 * total / (2 * total + wrong)) if total + wrong else 0.0,
        exact_match=_mean(~is_wrong.any(axis=1)[judged]),
        hamming=float(is_wrong.sum() / max(1, known.sum())),
        precision=precision,
        recall=recall,
        f1=f1,
        counts=np.stack([right, false, missed], axis=1).astype(np.int64),
    )


def _mean(values: NDArray[Any]) -> float:
    """Return the mean; NaN without values."""
    return float(values.mean()) if len(values) else math.nan
