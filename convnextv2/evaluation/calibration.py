"""Temperature scaling (Guo et al. 2017): divide the logits by one fitted number.

Predictions that are made with 80 % confidence are then right 80 % of the time.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from convnextv2.evaluation.losses import known_binary_cross_entropy

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def fit_temperature(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Fit the temperature with the lowest cross entropy, within fixed limits.

    The loss is convex in 1 / T, so an interval can be narrowed from both ends.

    Args:
        logits: float (N, classes).
        targets: int64 (N,); or (N, classes) of 1, 0 and -1 for unknown if images may have several
            labels, whose probabilities are the sigmoid of logits / T.
        weights: (N,), the weight of each image; None for equal weights.

    Returns:
        The temperature T.
    """
    logits = logits.double()

    def loss(inverse: float) -> float:
        if targets.dim() == 2:
            return float(known_binary_cross_entropy(logits * inverse, targets))
        if weights is None:
            return float(cross_entropy(logits * inverse, targets))
        each = cross_entropy(logits * inverse, targets, reduction="none")
        return float((each * weights).sum() / weights.sum())

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    shrink = (5**0.5 - 1) / 2  # golden section
    for _ in range(60):
        left, right = high - shrink * (high - low), low + shrink * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return round(2 / (low + high), 4)
