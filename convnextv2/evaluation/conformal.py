"""Conformal prediction: sets of possible classes with a stated coverage.

Split conformal prediction (Vovk et al. 2005) with the score 1 - p of the right class (Sadinle et
al. 2019, "least ambiguous sets"). The sets of new images contain the right class in at least the
stated share of cases, if the new images come from the same distribution as those that the limit was
fitted on. This holds for any model; a poor one needs larger sets.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import NDArray


def needed_images(coverage: float) -> int:
    """Return the smallest number of images for which a coverage can be guaranteed.

    Args:
        coverage: The share of images whose right class is to be in the set, above 0 and below 1.
    """
    share = _exact(coverage)
    return ceil(share / (1 - share))


def rank_of(coverage: float, images: int) -> int:
    """Return the rank of the limit among the sorted scores: ceil((n + 1) * coverage), from 1.

    It is larger than the number of images if there are too few.

    Args:
        coverage: The share of images whose right class is to be in the set.
        images: The number n of images.
    """
    return ceil((images + 1) * _exact(coverage))


def least_probability(probs: NDArray[np.float32], coverage: float) -> float:
    """Fit the lowest probability at which a class cannot be excluded.

    Args:
        probs: float (N,), the probability of the right class of each image.
        coverage: See `rank_of`. N is at least `needed_images(coverage)`.
    """
    rank = rank_of(coverage, len(probs))
    assert rank <= len(probs)
    return float(np.sort(probs)[len(probs) - rank])


def _exact(coverage: float) -> Fraction:
    """Return the decimal number as a fraction, since 10 * 0.7 > 7 in floating point."""
    return Fraction(coverage).limit_denominator(1_000_000)
