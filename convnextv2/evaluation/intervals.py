"""95 % confidence intervals of the figures of a classifier.

The accuracies top1 and top5 are shares of images, for which Wilson's score interval is computed
(Wilson 1927). It is also valid for few images, and for shares of 0 and 1.

For balanced accuracy and macro F1, percentile intervals are computed by a bootstrap over images
(Efron 1979). It draws as many images as there are, with replacement, and computes the figures of
each draw. The figures are functions of the counts of each pair of target and prediction, and
drawing images means drawing these counts from a multinomial distribution. The counts of all ranks
are therefore sufficient, and the intervals do not depend on the distribution of images over ranks.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from convnextv2.evaluation.metrics import ClassifierEvaluation

DRAWS = 2_000
TAILS = 0.025, 0.975
_Z = 1.959963984540054
"""The normal quantile of the upper tail."""

Interval = tuple[float, float]


def intervals_of(evaluation: ClassifierEvaluation) -> dict[str, Interval]:
    """Compute the 95 % intervals of the main figures.

    Args:
        evaluation: The figures of a classifier.

    Returns:
        The lower and the upper end for top1, top5 (if there is one), balanced_accuracy and
        macro_f1. The latter two are left out if all draws agree, as they do if every image is
        right, because the images then say nothing about the uncertainty of these figures.
    """
    found = {"top1": wilson_interval(evaluation.top1, evaluation.images)}
    if evaluation.top5 is not None:
        found["top5"] = wilson_interval(evaluation.top5, evaluation.images)
    draw, counts = np.random.default_rng(0), evaluation.pairs[:, 2]
    figures = []
    for _ in range(DRAWS):
        drawn = draw.multinomial(evaluation.images, counts / evaluation.images)
        figures.append(figures_of(evaluation.pairs[:, :2], drawn))
    for name in ("balanced_accuracy", "macro_f1"):
        low, high = np.quantile([each[name] for each in figures], TAILS).tolist()
        if low < high:
            found[name] = low, high
    return found


def wilson_interval(share: float, images: int) -> Interval:
    """Compute Wilson's 95 % score interval of a share of images.

    Args:
        share: The share, from 0 to 1.
        images: The number of images, at least one.
    """
    middle = share + _Z**2 / (2 * images)
    half = _Z * math.sqrt(share * (1 - share) / images + _Z**2 / (4 * images**2))
    whole = 1 + _Z**2 / images
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def with_intervals(evaluation: ClassifierEvaluation) -> ClassifierEvaluation:
    """Return the figures of a classifier, with 95 % intervals of the main ones."""
    return replace(evaluation, intervals=intervals_of(evaluation))


def figures_of(pairs: NDArray[np.int64], counts: NDArray[np.int64]) -> dict[str, float]:
    """Compute figures of some images that are means over classes, as `metrics.summarise` does.

    Args:
        pairs: int64 (P, 2), targets and predictions.
        counts: int64 (P,), the number of images of each pair.
    """
    classes = int(pairs.max()) + 1
    support, predicted, right = (
        np.bincount(column, weights=weights, minlength=classes)
        for column, weights in (
            (pairs[:, 0], counts),
            (pairs[:, 1], counts),
            (pairs[:, 0], counts * (pairs[:, 0] == pairs[:, 1])),
        )
    )
    occurs, both = support > 0, support + predicted
    return {
        "balanced_accuracy": float((right[occurs] / support[occurs]).mean()),
        "macro_f1": float((2 * right[both > 0] / both[both > 0]).mean()),
    }
