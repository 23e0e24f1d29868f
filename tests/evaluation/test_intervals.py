"""Intervals: each draw by scikit-learn, the ends by SciPy."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import balanced_accuracy_score, f1_score

from convnextv2.evaluation.intervals import figures_of, intervals_of, wilson_interval
from convnextv2.evaluation.metrics import ClassifierEvaluation, count, summarise


def measured(
    images: int, classes: int, seed: int = 0
) -> tuple[ClassifierEvaluation, np.ndarray, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes - 1, (images,), generator=generator)
    logits = torch.randn(images, classes, generator=generator)
    logits[torch.arange(images), targets] += 1.5
    best = logits.softmax(-1).topk(min(5, classes))
    counts = count(targets, best.indices, best.values[:, 0], 0.0, classes)
    return summarise(counts, classes), targets.numpy(), best.indices.numpy()


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_the_figures_of_a_draw_are_those_of_scikit_learn(classes: int) -> None:
    evaluation, _, _ = measured(150, classes)
    pairs, counts = evaluation.pairs[:, :2], evaluation.pairs[:, 2]
    draw = np.random.default_rng(classes)
    for _ in range(20):
        drawn = draw.multinomial(150, counts / 150)
        targets, predicted = np.repeat(pairs, drawn, axis=0).T
        with warnings.catch_warnings():  # it notices that a class is predicted that is not a target
            warnings.simplefilter("ignore", UserWarning)
            expected = {
                "balanced_accuracy": balanced_accuracy_score(targets, predicted),
                "macro_f1": f1_score(targets, predicted, average="macro", zero_division=0),
            }
        assert figures_of(pairs, drawn) == pytest.approx(expected, abs=1e-12)
    own = figures_of(pairs, counts)
    assert own["balanced_accuracy"] == pytest.approx(evaluation.balanced_accuracy, abs=1e-12)
    assert own["macro_f1"] == pytest.approx(evaluation.macro_f1, abs=1e-12)


def test_the_ends_are_those_of_a_bootstrap_over_images() -> None:
    evaluation, targets, best = measured(400, 8)
    found = intervals_of(evaluation)

    def ends(statistic) -> list[float]:
        made = bootstrap(
            (targets, best[:, 0]), statistic, paired=True, vectorized=False, n_resamples=2000,
            method="percentile", rng=np.random.default_rng(1),
        )  # fmt: skip
        return [made.confidence_interval.low, made.confidence_interval.high]

    with warnings.catch_warnings():  # it notices that a class is predicted that is not a target
        warnings.simplefilter("ignore", UserWarning)
        balanced = ends(balanced_accuracy_score)
    assert found["balanced_accuracy"] == pytest.approx(balanced, abs=0.008)
    f1 = ends(lambda t, p: f1_score(t, p, average="macro", zero_division=0))
    assert found["macro_f1"] == pytest.approx(f1, abs=0.008)
    assert intervals_of(evaluation) == found


@pytest.mark.parametrize(("right", "images"), [(0, 1), (1, 1), (8, 8), (3, 10), (617, 1000)])
def test_the_interval_of_a_share_is_that_of_wilson(right: int, images: int) -> None:
    expected = binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right / images, images) == pytest.approx(tuple(expected), abs=1e-12)


def test_accuracies_of_a_classifier_have_the_interval_of_a_share() -> None:
    evaluation, targets, best = measured(400, 8)
    for name, columns in (("top1", 1), ("top5", 5)):
        right = int((best[:, :columns] == targets[:, None]).any(1).sum())
        expected = binomtest(right, 400).proportion_ci(0.95, method="wilson")
        assert intervals_of(evaluation)[name] == pytest.approx(tuple(expected), abs=1e-12)


def test_images_that_are_all_right_leave_only_the_interval_of_a_share() -> None:
    evaluation = summarise(
        count(torch.tensor([0]), torch.tensor([[0]]), torch.tensor([0.9]), 0.0, 1), 1
    )
    [(name, (low, high))] = intervals_of(evaluation).items()
    assert name == "top1" and 0.2 < low < 0.21 and high == 1.0
