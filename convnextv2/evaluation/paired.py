"""Paired comparison of two classifiers on the same images.

Images that both classifiers get right, or both get wrong, contain no information about which of
them is better. Pairing removes these images, so that much smaller differences are significant than
in a comparison of two accuracies with separate errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
"""The number of draws of the bootstrap."""


@dataclass(frozen=True)
class Paired:
    """The comparison of a classifier with a reference.

    Attributes:
        images: The number of images.
        gained: Images that only the classifier gets right.
        lost: Images that only the reference gets right.
        interval: The 95 % interval of `difference`, by the bootstrap over images.
        p_value: The probability of a difference at least this large in either direction if both
            were equally good: McNemar's test, exact.
    """

    images: int
    gained: int
    lost: int
    interval: tuple[float, float]
    p_value: float

    @property
    def difference(self) -> float:
        """The accuracy of the classifier minus that of the reference."""
        return (self.gained - self.lost) / self.images


def compare_hits(hits: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Paired:
    """Compare a classifier with a reference.

    Args:
        hits: bool (N,), True for images that the classifier gets right; N > 0.
        reference: bool (N,), True for images that the reference gets right.
    """
    gained, lost = int((hits & ~reference).sum()), int((reference & ~hits).sum())
    return Paired(
        len(hits),
        gained,
        lost,
        bootstrap_interval(len(hits), gained, lost),
        mcnemar(gained, lost),
    )


def mcnemar(gained: int, lost: int) -> float:
    """Compute the two-sided p-value of McNemar's exact test.

    If both classifiers were equally good, each image on which they differ would be gained or lost
    with probability 1/2 (McNemar 1947).

    Args:
        gained: Images that only the first classifier gets right.
        lost: Images that only the second one gets right.
    """
    count, fewer = gained + lost, min(gained, lost)
    log_half = -count * math.log(2)
    tail = sum(
        math.exp(
            math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) + log_half
        )
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)


def bootstrap_interval(images: int, gained: int, lost: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two accuracies, by the bootstrap over images.

    Drawing images with replacement is a multinomial draw of the numbers gained, lost and neither.

    Args:
        images: The number of images.
        gained: Images that only the first classifier gets right.
        lost: Images that only the second one gets right.
    """
    shares = np.array([gained, lost, images - gained - lost]) / images
    drawn = np.random.default_rng(0).multinomial(images, shares, size=DRAWS)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / images, [2.5, 97.5])
    return float(low), float(high)
