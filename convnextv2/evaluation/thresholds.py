"""Thresholds: the lowest probability at which a class counts as present, fitted for each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DEFAULT = 0.5
"""The threshold of a class without a fitted one."""

MIN_POSITIVES = 10
"""A class with fewer images than this gets the threshold that is best for all classes together."""


def fit_thresholds(probs: NDArray[np.float32], targets: NDArray[np.int8]) -> list[float]:
    """Choose for each class the threshold with the best F1.

    Candidates lie midway between neighbouring probabilities. Among equally good ones, the one
    nearest to 0.5 is chosen. A threshold from few images would be fitted to noise, so a class with
    few images gets the threshold that is best for the labels of all classes together.

    Args:
        probs: float32 (N, K), the probability of each class.
        targets: int8 (N, K): 1, 0, or -1 for unknown.

    Returns:
        A threshold for each class, from 0 to 1.
    """
    common = best_threshold(probs.ravel(), targets.ravel())
    few = (targets == 1).sum(axis=0) < MIN_POSITIVES
    return [
        common if few[k] else best_threshold(probs[:, k], targets[:, k])
        for k in range(targets.shape[1])
    ]


def best_threshold(probs: NDArray[np.float32], targets: NDArray[np.int8]) -> float:
    """Choose the threshold with the best F1; see `fit_thresholds`.

    Args:
        probs: float32 (N,).
        targets: int8 (N,): 1, 0, or -1 for unknown.

    Returns:
        The threshold; `DEFAULT` if there is no label 1.
    """
    known = targets >= 0
    scores, is_positive = probs[known].astype(np.float64), targets[known] == 1
    positives = int(is_positive.sum())
    if not positives:
        return DEFAULT
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(is_positive[order])
    # A threshold cannot lie between equal scores.
    last = np.append(np.flatnonzero(ranked[1:] < ranked[:-1]), len(ranked) - 1)
    f1 = 2 * hits[last] / (last + 1 + positives)
    below = np.append(ranked[1:], 0.0)
    midpoints = (ranked[last] + below[last]) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(midpoints[best[np.argmin(np.abs(midpoints[best] - DEFAULT))]])


def calibrated_thresholds(thresholds: Sequence[float], temperature: float) -> list[float]:
    """Convert thresholds for calibrated probabilities, so that images get the same labels.

    Args:
        thresholds: Thresholds on the sigmoid of logits.
        temperature: The number by which the logits will be divided.

    Returns:
        The thresholds on the sigmoid of logits / temperature.
    """
    if temperature == 1:
        return list(thresholds)
    values = np.clip(np.asarray(thresholds, np.float64), 1e-300, 1 - 1e-16)
    logits = np.log(values) - np.log1p(-values)
    return [float(value) for value in 1 / (1 + np.exp(-logits / temperature))]
