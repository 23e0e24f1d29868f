"""The classes that cannot be excluded: prediction sets with a stated coverage.

Split conformal prediction (Vovk et al. 2005) with the score 1 - p of the right class (Sadinle et
al. 2019, "least ambiguous sets"): the sets of new images hold the right class in at least the
stated share of cases, however good the model is, as long as the new images come from the same
distribution as those that the limit was fitted on. A poor model needs large sets for that.
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
    """Return which of the sorted scores is the limit, counted from 1: ceil((n + 1) * coverage).

    It is larger than the number of images if these are too few.

    Args:
        coverage: The share of images whose right class is to be in the set.
        images: The number n of images.
    """
    return ceil((images + 1) * _exact(coverage))


def least_probability(probs: NDArray[np.float32], coverage: float) -> float:
    """Fit the probability from which on a class cannot be excluded.

    Args:
        probs: float (N,), the probability of the right class of each image.
        coverage: As above. N is at least `needed_images(coverage)`.
    """
    rank = rank_of(coverage, len(probs))
    assert rank <= len(probs)
    return float(np.sort(probs)[len(probs) - rank])


def _exact(coverage: float) -> Fraction:
    """Return the decimal number that was meant: 10 * 0.7 is more than 7 in floats."""
    return Fraction(coverage).limit_denominator(1_000_000)
