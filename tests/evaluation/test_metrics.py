"""Figures against scikit-learn, torchmetrics, and cases that can be counted by hand."""

import json
import warnings

import numpy as np
import pytest
import torch

from convnextv2.errors import DataError
from convnextv2.evaluation.metrics import BINS, ClassifierEvaluation, Counts, count, summarise


def made_up(num_classes: int, n: int = 400, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities that are right about half of the time, and targets.

    The last class is never a target.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, num_classes - 1, (n,), generator=generator)
    logits = torch.randn(n, num_classes, generator=generator)
    logits[torch.arange(n), targets] += 1.5
    return logits.softmax(-1), targets


def counted(probs: torch.Tensor, targets: torch.Tensor, loss_sum: float = 0.0) -> Counts:
    best = probs.topk(min(5, probs.shape[1]))
    return count(targets, best.indices, best.values[:, 0], loss_sum, probs.shape[1])


def measured(
    probs: torch.Tensor, targets: torch.Tensor, loss_sum: float = 0.0
) -> ClassifierEvaluation:
    return summarise(counted(probs, targets, loss_sum), probs.shape[1])


@pytest.mark.parametrize("num_classes", [2, 5, 11])
def test_figures_per_class_equal_scikit_learns(num_classes):
    sklearn = pytest.importorskip("sklearn.metrics")
    probs, targets = made_up(num_classes)
    predicted = probs.argmax(-1)
    ours = measured(probs, targets)
    labels = range(num_classes)
    np.testing.assert_array_equal(
        ours.confusion, sklearn.confusion_matrix(targets, predicted, labels=labels)
    )
    of_classes = sklearn.precision_recall_fscore_support(
        targets, predicted, labels=labels, zero_division=np.nan
    )
    for figure, expected in zip(
        (ours.precision, ours.recall, ours.f1, ours.support), of_classes, strict=True
    ):
        np.testing.assert_allclose(figure, expected, rtol=1e-12)
    macro = sklearn.precision_recall_fscore_support(
        targets, predicted, average="macro", zero_division=0
    )[:3]
    np.testing.assert_allclose(
        (ours.macro_precision, ours.macro_recall, ours.macro_f1), macro, rtol=1e-12
    )
    assert ours.top1 == sklearn.accuracy_score(targets, predicted)
    with warnings.catch_warnings():  # it notices that a class is predicted that is not a target
        warnings.simplefilter("ignore", UserWarning)
        balanced = sklearn.balanced_accuracy_score(targets, predicted)
    assert ours.balanced_accuracy == pytest.approx(balanced, rel=1e-12)
    if num_classes > 5:
        assert ours.top5 == pytest.approx(
            sklearn.top_k_accuracy_score(targets, probs, k=5, labels=labels)
        )


def test_balanced_accuracy_counted_by_hand():
    # Class 0: 3 of 4 are found. Class 1: 0 of 1. Class 2 is predicted once, but is not a target.
    probs = torch.eye(3)[[0, 0, 0, 2, 0]]
    ours = measured(probs, torch.tensor([0, 0, 0, 0, 1]))
    assert ours.balanced_accuracy == pytest.approx((3 / 4 + 0) / 2)
    assert ours.macro_recall == pytest.approx((3 / 4 + 0 + 0) / 3)  # over three classes


def test_calibration_error_equals_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.classification")
    probs, targets = made_up(7)
    expected = functional.multiclass_calibration_error(probs, targets, num_classes=7, n_bins=BINS)
    assert measured(probs, targets).ece == pytest.approx(float(expected), rel=1e-5)


def test_calibration_error_of_two_bins_counted_by_hand():
    # Two images at 0.9, one of them right; two at 0.6, both right:
    # (2 * |0.9 - 0.5| + 2 * |0.6 - 1|) / 4.
    probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    evaluation = measured(probs, torch.tensor([0, 1, 0, 1]))
    assert evaluation.ece == pytest.approx(0.4)
    filled = evaluation.calibration[evaluation.calibration[:, 0] > 0]
    np.testing.assert_allclose(filled, [[2, 0.6, 1.0], [2, 0.9, 0.5]], rtol=1e-6)


def test_a_confidence_of_one_falls_into_the_last_bin():
    evaluation = measured(torch.eye(3), torch.tensor([0, 1, 0]))
    assert evaluation.calibration[-1].tolist() == [3, 1, pytest.approx(2 / 3)]
    assert evaluation.ece == pytest.approx(1 / 3)


def test_counts_of_parts_add_up_to_the_counts_of_the_whole():
    probs, targets = made_up(6)
    parts = counted(probs[:100], targets[:100], 3.0) + counted(probs[100:], targets[100:], 4.0)
    whole = counted(probs, targets, 7.0)
    for name in ("totals", "bins", "pairs"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_pairs_that_occur_are_those_of_the_whole_matrix_in_its_order():
    probs, targets = made_up(11)
    matrix = np.zeros((11, 11), dtype=np.int64)
    for target, predicted in zip(targets.tolist(), probs.argmax(-1).tolist(), strict=True):
        matrix[target, predicted] += 1
    evaluation = measured(probs, targets)
    rows, columns = np.nonzero(matrix)
    np.testing.assert_array_equal(
        evaluation.pairs, np.stack([rows, columns, matrix[rows, columns]], 1)
    )
    np.testing.assert_array_equal(evaluation.confusion, matrix)
    np.testing.assert_array_equal(evaluation.support, matrix.sum(1))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(evaluation.precision, matrix.diagonal() / matrix.sum(0))
        np.testing.assert_array_equal(evaluation.recall, matrix.diagonal() / matrix.sum(1))
        both = 2 * matrix.diagonal() / (matrix.sum(0) + matrix.sum(1))
    np.testing.assert_array_equal(evaluation.f1, both)
    assert evaluation.top1 == np.trace(matrix) / 400


def test_memory_follows_the_images_and_not_the_pairs_of_classes():
    """The matrix of these classes would have 10^12 cells, which is 8 TB."""
    num_classes, n = 1_000_000, 1000
    generator = torch.Generator().manual_seed(0)
    targets, predicted = torch.randint(num_classes, (2, n), generator=generator)
    predicted[:100] = targets[:100]
    classes = predicted[:, None].repeat(1, 5)
    halves = [
        count(targets[part], classes[part], torch.ones(500), 0.0, num_classes)
        for part in (slice(0, 500), slice(500, n))
    ]
    evaluation = summarise(halves[0] + halves[1], num_classes)
    right = int((targets == predicted).sum())
    assert (evaluation.images, evaluation.top1) == (n, right / n)
    assert len(evaluation.pairs) == len({*zip(targets.tolist(), predicted.tolist(), strict=True)})
    assert evaluation.support.sum() == evaluation.pairs[:, 2].sum() == n
    figures = evaluation.to_dict()
    assert figures["pairs"] == evaluation.pairs.tolist() and "confusion" not in figures


def test_top5_needs_five_classes():
    assert measured(*made_up(4)).top5 is None
    assert measured(*made_up(5)).top5 == 1.0


def test_loss_is_the_mean_over_images():
    probs, targets = made_up(3, n=8)
    assert measured(probs, targets, loss_sum=20.0).loss == 2.5


def test_to_dict_is_json_with_none_for_the_undefined():
    # Class 2 is never predicted and class 0 never a target.
    probs = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    evaluation = measured(probs, torch.tensor([1, 2]), loss_sum=float("nan"))
    plain = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert plain["precision"] == [0.0, 0.0, None]
    assert plain["recall"] == [None, 0.0, 0.0]
    assert plain["loss"] is None
    assert plain["confusion"] == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert plain["images"] == 2 and plain["top5"] is None


def test_table_shows_the_main_figures():
    table = measured(*made_up(3, n=8), loss_sum=20.0).table()
    assert [line.split()[0] for line in table.splitlines()[:3]] == ["images", "top-1", "loss"]
    assert "2.5000" in table and len({len(line) for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    ("predicted", "targets", "only"),
    [
        ([1, 1, 1, 1], [1, 1, 1, 0], 1),
        ([1, 1, 1, 2], [1, 1, 1, 0], None),
        ([1, 1, 1, 1], [1, 1, 1, 1], None),  # there is only one class to tell
    ],
)
def test_that_every_image_gets_one_class_is_noticed(predicted, targets, only):
    probs = torch.full((4, 3), 0.1)
    probs[torch.arange(4), torch.tensor(predicted)] = 0.8
    evaluation = measured(probs, torch.tensor(targets))
    assert evaluation.only_prediction == only
    assert bool(evaluation.collapse_line()) is (only is not None)


def test_no_images_is_an_error_of_the_user():
    with pytest.raises(DataError, match="No image to evaluate"):
        measured(torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
