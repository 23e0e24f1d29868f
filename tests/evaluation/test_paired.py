import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from convnextv2.evaluation.paired import compare_hits, mcnemar


@pytest.mark.parametrize(
    ("gained", "lost"), [(0, 0), (1, 0), (3, 3), (12, 4), (5, 40), (700, 650), (0, 2000)]
)
def test_mcnemars_p_value_is_that_of_an_exact_binomial_test(gained: int, lost: int) -> None:
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_gains_and_losses_are_counted_and_their_interval_is_that_of_scipy() -> None:
    chance = np.random.default_rng(3)
    reference, hits = chance.random(341) < 0.8, chance.random(341) < 0.84
    paired = compare_hits(hits, reference)
    assert paired.gained == sum(a and not b for a, b in zip(hits, reference, strict=True))
    assert paired.lost == sum(b and not a for a, b in zip(hits, reference, strict=True))
    assert paired.difference == pytest.approx(hits.mean() - reference.mean(), abs=1e-12)
    each = hits.astype(int) - reference.astype(int)
    expected = bootstrap(
        (each,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert paired.interval == pytest.approx((expected.low, expected.high), abs=0.004)


def test_equal_classifiers_have_no_difference() -> None:
    hits = np.array([True, False, True])
    paired = compare_hits(hits, hits)
    assert (paired.difference, paired.interval, paired.p_value) == (0.0, (0.0, 0.0), 1.0)
