"""Figures of several labels per image, beside scikit-learn's."""

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn

from convnextv2.errors import DataError
from convnextv2.evaluation.multi_label_metrics import average_precision, summarise_labels


def cases(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and labels of classes from frequent to absent."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((97, 7)) < [0.6, 0.3, 0.2, 0.1, 0.05, 0.02, 0.0]).astype(np.int8)
    probs = np.clip(0.4 * targets + 0.6 * rng.random(targets.shape), 0, 1).round(2)
    return probs.astype(np.float32), targets


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_scikit_learns(seed: int) -> None:
    probs, targets = cases(seed)
    thresholds = tuple(np.linspace(0.3, 0.7, 7).tolist())
    found = summarise_labels(probs, targets, 0.0, thresholds)
    occurs = np.flatnonzero(targets.sum(axis=0))
    ap = [sklearn.average_precision_score(targets[:, k], probs[:, k]) for k in occurs]
    assert found.ap[occurs] == pytest.approx(ap, abs=1e-12)
    assert np.isnan(found.ap).sum() == found.absent == 7 - len(occurs) > 0
    assert found.map_macro == pytest.approx(
        sklearn.average_precision_score(targets[:, occurs], probs[:, occurs], average="macro"),
        abs=1e-12,
    )
    assert found.map_micro == pytest.approx(
        sklearn.average_precision_score(targets, probs, average="micro"), abs=1e-12
    )
    for part, limits in ((found.at_half, 0.5), (found.fitted, np.array(thresholds))):
        predicted = (probs >= limits).astype(int)
        f1 = sklearn.f1_score(targets, predicted, labels=occurs, average=None, zero_division=0)
        assert part.f1[occurs] == pytest.approx(f1, abs=1e-12)
        assert part.f1_macro == pytest.approx(f1.mean(), abs=1e-12)
        assert part.f1_micro == pytest.approx(
            sklearn.f1_score(targets, predicted, average="micro"), abs=1e-12
        )
        assert part.exact_match == pytest.approx(
            sklearn.accuracy_score(targets, predicted), abs=1e-12
        )
        assert part.hamming == pytest.approx(sklearn.hamming_loss(targets, predicted), abs=1e-12)
        recall = sklearn.recall_score(targets, predicted, labels=occurs, average=None)
        assert part.recall[occurs] == pytest.approx(recall, abs=1e-12)


def test_unknown_labels_count_nowhere() -> None:
    probs, targets = cases(0)
    rng = np.random.default_rng(1)
    known = rng.random(targets.shape) < 0.7
    masked = np.where(known, targets, -1).astype(np.int8)
    found = summarise_labels(probs, masked, 0.0)
    for k in range(3):
        some = known[:, k]
        expected = sklearn.average_precision_score(targets[some, k], probs[some, k])
        assert found.ap[k] == pytest.approx(expected, abs=1e-12)
    predicted = probs >= 0.5
    assert found.map_micro == pytest.approx(
        sklearn.average_precision_score(targets[known], probs[known]), abs=1e-12
    )
    assert found.at_half.f1_micro == pytest.approx(
        sklearn.f1_score(targets[known], predicted[known]), abs=1e-12
    )
    assert found.at_half.hamming == pytest.approx(
        (targets[known] != predicted[known]).mean(), abs=1e-12
    )
    assert found.unknown == (~known).sum()


def test_an_image_without_labels_is_right_if_nothing_is_found() -> None:
    probs = np.array([[0.9, 0.1], [0.2, 0.1], [0.2, 0.8]], np.float32)
    targets = np.array([[1, 0], [0, 0], [1, -1]], np.int8)
    found = summarise_labels(probs, targets, 0.25)
    assert found.at_half.exact_match == pytest.approx(2 / 3) and found.empty == 1
    assert found.at_half.counts.tolist() == [[1, 0, 1], [0, 0, 0]]  # 0.8 is of an unknown label
    assert found.together.tolist() == [[2, 0], [0, 0]]
    assert found.absent == 1 and "1 of 2 classes occur in none of these images" in found.table()
    content = found.to_dict()
    assert content["ap"][1] is None and content["fitted"] is None and content["loss"] == 0.25


def test_figures_that_are_undefined() -> None:
    assert math.isnan(average_precision(np.array([0.1]), np.array([0], np.int8)))
    with pytest.raises(DataError, match="No image to evaluate"):
        summarise_labels(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.int8), 0.0)
