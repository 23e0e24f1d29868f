"""Paired comparison of two classifiers on the same images.

What two classifiers both get right, or both get wrong, says nothing about which of them is better.
Pairing removes it, so that much smaller differences can be told from chance than by comparing two
accuracies with their own errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
"""Draws of the bootstrap."""


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
        """The accuracy of the classifier less that of the reference."""
        return (self.gained - self.lost) / self.images


def compare_hits(hits: NDArray[np.bool_], reference: NDArray[np.bool_], seed: int = 0) -> Paired:
    """Compare a classifier with a reference.

    Args:
        hits: bool (N,), which images the classifier gets right; N > 0.
        reference: bool (N,), which images the reference gets right.
        seed: Seeds the bootstrap.
    """
    gained, lost = int((hits & ~reference).sum()), int((reference & ~hits).sum())
    return Paired(
        len(hits),
        gained,
        lost,
        bootstrap_interval(len(hits), gained, lost, seed),
        mcnemar(gained, lost),
    )


def mcnemar(gained: int, lost: int) -> float:
    """Compute the two-sided p-value of McNemar's exact test.

    If both classifiers were equally good, each of the images on which they differ would be gained
    or lost by the toss of a coin (McNemar 1947).

    Args:
        gained: Images that only the one gets right.
        lost: Images that only the other gets right.
    """
    tosses, fewer = gained + lost, min(gained, lost)
    log_half = -tosses * math.log(2)
    tail = sum(
        math.exp(
            math.lgamma(tosses + 1) - math.lgamma(k + 1) - math.lgamma(tosses - k + 1) + log_half
        )
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)


def bootstrap_interval(images: int, gained: int, lost: int, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two accuracies, by the bootstrap over images.

    Drawing images with replacement is a multinomial draw of how many are gained, lost or neither.

    Args:
        images: The number of images.
        gained: Images that only the one gets right.
        lost: Images that only the other gets right.
        seed: Seeds the draws.
    """
    shares = np.array([gained, lost, images - gained - lost]) / images
    drawn = np.random.default_rng(seed).multinomial(images, shares, size=DRAWS)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / images, [2.5, 97.5])
    return float(low), float(high)
