"""The distance of features from known classes, by scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf, ledoit_wolf

from convnextv2.evaluation.foreign import distances_apart, fit_distance, shrunk_covariance


def features(count: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    targets = draw.integers(0, 3, count)
    centres, mix = 3 * draw.normal(size=(3, size)), draw.normal(size=(size, size))
    return (centres[targets] + draw.normal(size=(count, size)) @ mix).astype(np.float32), targets


@pytest.mark.parametrize(("count", "size"), [(200, 5), (40, 12), (8, 30)])
def test_the_covariance_is_that_of_ledoit_and_wolf(count: int, size: int) -> None:
    rows = features(count, size)[0].astype(np.float64)
    rows -= rows.mean(0)
    expected, _ = ledoit_wolf(rows, assume_centered=True)
    np.testing.assert_allclose(shrunk_covariance(rows), expected, rtol=1e-10, atol=1e-12)


def test_the_distance_is_mahalanobis_to_the_nearest_class() -> None:
    rows, targets = features(300, 8)
    means = np.stack([rows[targets == c].mean(0, dtype=np.float64) for c in range(3)])
    precision = LedoitWolf(assume_centered=True).fit(rows - means[targets]).get_precision()
    new = 4 * np.random.default_rng(9).normal(size=(20, 8))
    expected = [min(mahalanobis(row, mean, precision) for mean in means) for row in new]
    found = fit_distance(rows, targets)(new.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_distances_apart_never_know_the_image() -> None:
    """In as many dimensions as images, a fit is far nearer to its own images than to others."""
    rows, targets = features(60, 40)
    apart, own = distances_apart(rows, targets), fit_distance(rows, targets)(rows)
    assert np.median(apart) > 1.1 * np.median(own)
    part = np.arange(60) % 5 == 2
    alone = fit_distance(rows[~part], targets[~part])(rows[part])
    np.testing.assert_array_equal(apart[part], alone)


@pytest.mark.parametrize("rows", [np.zeros((9, 4)), np.ones((2, 4)), np.eye(4)[:3]])
def test_features_that_do_not_vary_give_finite_distances(rows: np.ndarray) -> None:
    rows, targets = rows.astype(np.float32), np.arange(len(rows)) % 2
    found = fit_distance(rows, targets)(np.full((1, 4), 7, np.float32))
    assert np.isfinite(found).all() and np.isfinite(distances_apart(rows, targets)).all()
