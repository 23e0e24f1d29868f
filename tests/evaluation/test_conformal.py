"""Prediction sets: the limit by its definition, and the promise on new images."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest

from convnextv2.evaluation.conformal import least_probability, needed_images, rank_of


@pytest.mark.parametrize("percent", [1, 50, 70, 80, 90, 95, 99])
def test_the_number_that_is_needed_is_the_first_whose_rank_exists(percent: int) -> None:
    share = Fraction(percent, 100)
    first = next(n for n in range(1, 1000) if ceil((n + 1) * share) <= n)
    assert needed_images(percent / 100) == first
    assert rank_of(percent / 100, first) <= first < rank_of(percent / 100, first - 1) + 1


def test_known_numbers() -> None:
    """0.9 / (1 - 0.9) is more than 9 in floats."""
    assert [needed_images(coverage) for coverage in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]
    assert rank_of(0.7, 9) == 7 and 10 * 0.7 == 7.000000000000001 - 1e-15


@pytest.mark.parametrize(("images", "coverage"), [(9, 0.9), (10, 0.9), (57, 0.8), (1000, 0.95)])
def test_the_limit_is_the_quantile_of_one_minus_p(images: int, coverage: float) -> None:
    probs = np.random.default_rng(images).random(images).astype(np.float32)
    level = ceil(Fraction(str(coverage)) * (images + 1)) / images
    quantile = np.quantile(1 - probs.astype(np.float64), level, method="inverted_cdf")
    assert least_probability(probs, coverage) == pytest.approx(1 - quantile, abs=1e-12)


def test_new_images_are_covered_as_promised() -> None:
    """The coverage of one fit on n images is Beta(rank, n + 1 - rank): its mean is rank/(n + 1)."""
    draw = np.random.default_rng(3)
    covered = []
    for _ in range(400):
        probs = draw.beta(2, 1, 50 + 400).astype(np.float32)
        covered.append((probs[50:] >= least_probability(probs[:50], 0.9)).mean())
    assert np.mean(covered) == pytest.approx(rank_of(0.9, 50) / 51, abs=0.007)


def test_equal_probabilities_are_all_kept() -> None:
    """Coverage is then larger than asked for, never smaller."""
    assert least_probability(np.full(20, 0.25, np.float32), 0.9) == 0.25
