import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from convnextv2.evaluation.probes import (
    TEMPERATURE,
    fit_logistic,
    linear_probe,
    nearest_neighbours,
)


@pytest.fixture
def blobs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features and labels of four classes that overlap, for training and for testing."""
    chance = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 12, generator=chance)
    labels = torch.arange(240) % 4
    features = centres[labels] + 1.6 * torch.randn(240, 12, generator=chance)
    return features[:160], labels[:160], features[160:], labels[160:]


@pytest.mark.parametrize("k", [1, 5, 20, 500])
def test_neighbours_vote_as_those_of_scikit_learn(blobs, k: int) -> None:
    features, labels, queries, _ = blobs
    theirs = KNeighborsClassifier(
        min(k, len(features)), metric="cosine", algorithm="brute",
        weights=lambda distances: np.exp((1 - distances) / TEMPERATURE),
    ).fit(features.numpy(), labels.numpy())  # fmt: skip
    found = nearest_neighbours(features, labels, queries, classes=4, k=k)
    assert found.tolist() == theirs.predict(queries.numpy()).tolist()


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_the_logistic_regression_is_that_of_scikit_learn(blobs, l2: float) -> None:
    features, labels, _, _ = blobs
    theirs = LogisticRegression(C=1 / (l2 * len(features)), max_iter=10_000, tol=1e-10)
    theirs.fit(features.numpy().astype(np.float64), labels.numpy())
    weights, bias = fit_logistic(features, labels, 4, l2)
    # The weights of all classes may be shifted together: the probabilities are the same.
    torch.testing.assert_close(
        weights - weights.mean(0), torch.tensor(theirs.coef_).float(), atol=2e-3, rtol=1e-2
    )
    shift = torch.tensor(theirs.intercept_).float()
    torch.testing.assert_close(bias - bias.mean(), shift - shift.mean(), atol=5e-3, rtol=1e-2)


def test_the_linear_probe_reads_what_can_be_read_and_does_not_mind_scales(blobs) -> None:
    features, labels, queries, truth = blobs
    found, l2 = linear_probe(features, labels, queries, classes=4)
    theirs = LogisticRegression(max_iter=1000).fit(features.numpy(), labels.numpy())
    least = theirs.score(queries.numpy(), truth.numpy()) - 0.05
    assert (found == truth).float().mean() >= least > 0.4 and l2 > 0
    scaled, _ = linear_probe(1000 * features + 7, labels, 1000 * queries + 7, classes=4)
    assert (scaled == found).float().mean() > 0.95


def test_classes_with_few_images_are_no_error(blobs) -> None:
    features, labels, queries, _ = blobs
    found, _ = linear_probe(features[:3], labels[:3], queries, classes=4)
    assert set(found.tolist()) <= {0, 1, 2}
    assert len(nearest_neighbours(features[:3], labels[:3], queries, classes=4)) == len(queries)
