"""Temperature scaling (Guo et al. 2017): one number by which logits are divided, so that confidence is how often one is right."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

LEAST, MOST = 0.05, 20.0


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature, from LEAST to MOST, with the least cross entropy. logits: (N, classes). targets: int64 (N,).

    The loss is convex in 1 / T, so that an interval can be narrowed from both ends."""
    logits = logits.double()

    def loss(inverse: float) -> float:
        return float(cross_entropy(logits * inverse, targets))

    low, high = 1 / MOST, 1 / LEAST
    shrink = (5**0.5 - 1) / 2  # golden section
    for _ in range(60):
        left, right = high - shrink * (high - low), low + shrink * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return round(2 / (low + high), 4)
