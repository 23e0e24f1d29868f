"""Bootstrap intervals: each draw by scikit-learn, the ends by SciPy."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from convnextv2.evaluation.intervals import bootstrap_intervals, figures_of
from convnextv2.evaluation.metrics import Evaluation, count, summarise


def measured(images: int, classes: int, seed: int = 0) -> tuple[Evaluation, np.ndarray, np.ndarray]:
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
                "top1": accuracy_score(targets, predicted),
                "balanced_accuracy": balanced_accuracy_score(targets, predicted),
                "macro_f1": f1_score(targets, predicted, average="macro", zero_division=0),
            }
        assert figures_of(pairs, drawn) == pytest.approx(expected, abs=1e-12)
    own = figures_of(pairs, counts)
    assert own["top1"] == evaluation.top1
    assert own["macro_f1"] == pytest.approx(evaluation.macro_f1, abs=1e-12)


def test_the_ends_are_those_of_a_bootstrap_over_images() -> None:
    evaluation, targets, best = measured(400, 8)
    found = bootstrap_intervals(evaluation)

    def ends(statistic, *columns: np.ndarray) -> list[float]:
        made = bootstrap(
            columns, statistic, paired=True, vectorized=False, n_resamples=2000,
            method="percentile", rng=np.random.default_rng(1),
        )  # fmt: skip
        return [made.confidence_interval.low, made.confidence_interval.high]

    predicted = best[:, 0]
    assert found["top1"] == pytest.approx(ends(lambda t, p: np.mean(t == p), targets, predicted),
                                          abs=0.008)  # fmt: skip
    in_five = (best == targets[:, None]).any(1).astype(float)
    assert found["top5"] == pytest.approx(ends(lambda hits: hits.mean(), in_five), abs=0.008)
    assert found["top1"][0] < evaluation.top1 < found["top1"][1]
    assert bootstrap_intervals(evaluation) == found


def test_one_image_and_one_class_have_an_interval() -> None:
    evaluation = summarise(
        count(torch.tensor([0]), torch.tensor([[0]]), torch.tensor([0.9]), 0.0, 1), 1
    )
    assert bootstrap_intervals(evaluation) == {
        name: (1.0, 1.0) for name in ("top1", "balanced_accuracy", "macro_f1")
    }
