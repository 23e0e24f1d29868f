"""Confidence intervals of the figures of a classifier, by the bootstrap over images.

The bootstrap (Efron 1979) draws as many images as there are, with replacement, and computes the
figures of each draw. The figures are functions of the counts of each pair of target and prediction,
and drawing images means drawing these counts from a multinomial distribution. The counts of all
ranks are therefore sufficient, and the intervals do not depend on the distribution of images over
ranks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from convnextv2.evaluation.metrics import Evaluation

DRAWS = 2_000
LEVEL = 0.95

Interval = tuple[float, float]


def bootstrap_intervals(evaluation: Evaluation, *, seed: int = 0) -> dict[str, Interval]:
    """Compute the 95 % percentile intervals of the main figures.

    Args:
        evaluation: The figures of a classifier.
        seed: The seed of the draws.

    Returns:
        The lower and the upper end for top1, top5 (if there is one), balanced_accuracy and
        macro_f1. An interval of few images may be too narrow: for 100 %, it is 100 % to 100 %.
    """
    draw, images = np.random.default_rng(seed), evaluation.images
    counts = evaluation.pairs[:, 2]
    found: dict[str, list[float]] = {"top1": [], "balanced_accuracy": [], "macro_f1": []}
    for _ in range(DRAWS):
        drawn = draw.multinomial(images, counts / images)
        for name, value in figures_of(evaluation.pairs[:, :2], drawn).items():
            found[name].append(value)
    if evaluation.top5 is not None:
        found["top5"] = (draw.binomial(images, min(1.0, evaluation.top5), DRAWS) / images).tolist()
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {name: _ends(np.quantile(values, tails)) for name, values in found.items()}


def with_intervals(evaluation: Evaluation) -> Evaluation:
    """Return the figures of a classifier, with 95 % intervals of the main ones."""
    return replace(evaluation, intervals=bootstrap_intervals(evaluation))


def figures_of(pairs: NDArray[np.int64], counts: NDArray[np.int64]) -> dict[str, float]:
    """Compute the main figures of some images, as `metrics.summarise` defines them.

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
        "top1": float(right.sum() / counts.sum()),
        "balanced_accuracy": float((right[occurs] / support[occurs]).mean()),
        "macro_f1": float((2 * right[both > 0] / both[both > 0]).mean()),
    }


def _ends(quantiles: NDArray[np.float64]) -> Interval:
    return float(quantiles[0]), float(quantiles[1])
