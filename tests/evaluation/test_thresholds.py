import numpy as np
import pytest
from sklearn.metrics import f1_score

from convnextv2.evaluation.thresholds import (
    best_threshold,
    calibrated_thresholds,
    fit_thresholds,
)


def test_a_threshold_lies_midway_between_neighbours() -> None:
    probs = np.array([0.9, 0.7, 0.3, 0.2], np.float32)
    assert best_threshold(probs, np.array([1, 1, 0, 0], np.int8)) == pytest.approx(0.5)
    assert best_threshold(probs, np.array([1, 0, 0, 0], np.int8)) == pytest.approx(0.8)
    # All have it: the threshold lies below the least.
    assert best_threshold(probs, np.array([1, 1, 1, 1], np.int8)) == pytest.approx(0.1)
    assert best_threshold(probs, np.array([-1, 1, 0, 0], np.int8)) == pytest.approx(0.5)
    assert best_threshold(probs, np.array([0, 0, -1, 0], np.int8)) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_has_a_better_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = (rng.random(60) < 0.4).astype(np.int8)
    probs = np.clip(0.3 * targets + 0.7 * rng.random(60), 0, 1).round(1).astype(np.float32)
    chosen = f1_score(targets, probs >= best_threshold(probs, targets))
    grid = [f1_score(targets, probs >= limit, zero_division=0) for limit in np.linspace(0, 1, 201)]
    assert chosen == pytest.approx(max(grid))


def test_a_class_of_few_images_gets_the_common_threshold() -> None:
    rng = np.random.default_rng(0)
    targets = np.zeros((40, 3), np.int8)
    targets[:20, 0] = targets[:10, 1] = targets[:9, 2] = 1
    probs = np.clip(0.5 * targets + 0.5 * rng.random((40, 3)), 0, 1).astype(np.float32)
    found = fit_thresholds(probs, targets)
    assert found[0] == best_threshold(probs[:, 0], targets[:, 0])
    assert found[1] == best_threshold(probs[:, 1], targets[:, 1])  # ten are enough
    assert found[2] == best_threshold(probs.ravel(), targets.ravel())


def test_calibration_moves_thresholds_with_the_probabilities() -> None:
    logits = np.linspace(-4, 4, 101)
    for limit in (0.05, 0.31, 0.9):
        (moved,) = calibrated_thresholds([limit], 2.5)
        same = (1 / (1 + np.exp(-logits)) >= limit) == (1 / (1 + np.exp(-logits / 2.5)) >= moved)
        assert same.all() and moved != limit
    assert calibrated_thresholds([0.0, 0.3, 1.0], 1.0) == [0.0, 0.3, 1.0]
    assert all(0 <= limit <= 1 for limit in calibrated_thresholds([0.0, 1.0], 3.0))
