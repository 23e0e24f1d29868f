"""Probes: measure how well frozen features separate the classes.

Neither probe changes the encoder. Nearest neighbours need no training, so they measure the features
as they are. The linear probe measures what one trained layer can extract from them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07
"""The vote of a neighbour has the weight exp(cosine similarity / TEMPERATURE), as in DINO (arXiv
2104.14294)."""
L2 = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""The strengths of regularisation that the linear probe tries."""
_FOLDS = 5
_MAX_SIMILARITIES = 1 << 24
"""The largest number of similarities in memory at once."""


class Probed(NamedTuple):
    """The accuracies of the probes, as shares of the validation images.

    Attributes:
        knn: The accuracy of the nearest neighbours.
        linear: The accuracy of the linear probe.
        l2: Its strength of regularisation.
        commonest: The share of the most frequent class, the accuracy of a constant guess.
        training_images: The number of training images.
        validation_images: The number of validation images.
    """

    knn: float
    linear: float
    l2: float
    commonest: float
    training_images: int
    validation_images: int


def probe_features(
    features: Tensor, labels: Tensor, queries: Tensor, truth: Tensor, *, classes: int, k: int
) -> Probed:
    """Measure by both probes how well features separate the classes.

    Args:
        features: float32 (N, D), of the training images.
        labels: int64 (N,).
        queries: float32 (M, D), of the validation images.
        truth: int64 (M,), the classes of the validation images.
        classes: The number of classes.
        k: The number of neighbours; all images if there are fewer.
    """
    knn = nearest_neighbours(features, labels, queries, classes=classes, k=k)
    linear, l2 = linear_probe(features, labels, queries, classes=classes)
    return Probed(
        float((knn == truth).double().mean()),
        float((linear == truth).double().mean()),
        l2,
        int(truth.bincount().max()) / len(truth),
        len(labels),
        len(truth),
    )


def nearest_neighbours(
    features: Tensor, labels: Tensor, queries: Tensor, *, classes: int, k: int = 20
) -> Tensor:
    """Classify by a weighted vote of the k training images whose features are most similar.

    Args:
        features: float32 (N, D), of the training images.
        labels: int64 (N,).
        queries: float32 (M, D), of the images to classify.
        classes: The number of classes.
        k: The number of neighbours; all images if there are fewer.

    Returns:
        int64 (M,), the classes.
    """
    features, queries = F.normalize(features), F.normalize(queries)
    found = []
    for part in queries.split(max(1, _MAX_SIMILARITIES // len(features))):
        similarity, index = (part @ features.T).topk(min(k, len(features)))
        votes = torch.zeros(len(part), classes, dtype=torch.float64)
        votes.scatter_add_(1, labels[index], (similarity.double() / TEMPERATURE).exp())
        found.append(votes.argmax(1))
    return torch.cat(found)


def linear_probe(
    features: Tensor, labels: Tensor, queries: Tensor, *, classes: int
) -> tuple[Tensor, float]:
    """Classify by multinomial logistic regression on standardised features.

    The strength of regularisation is the one that is best on a fifth of the training images, after
    training on the others. The probe is then trained on all of them.

    Args:
        features: float32 (N, D), of the training images.
        labels: int64 (N,).
        queries: float32 (M, D), of the images to classify.
        classes: The number of classes.

    Returns:
        int64 (M,), the classes, and the strength of regularisation.
    """
    mean, deviation = features.mean(0), features.std(0, correction=0).clamp(min=1e-6)
    features, queries = (features - mean) / deviation, (queries - mean) / deviation
    held_out = _every_fifth(labels, classes)
    scores = []
    for l2 in L2:
        weights, bias = fit_logistic(features[~held_out], labels[~held_out], classes, l2)
        hits = (features[held_out] @ weights.T + bias).argmax(1) == labels[held_out]
        scores.append(float(hits.float().mean()) if len(hits) else 0.0)
    best = L2[max(range(len(L2)), key=lambda i: (scores[i], L2[i]))]
    weights, bias = fit_logistic(features, labels, classes, best)
    return (queries @ weights.T + bias).argmax(1), best


def _every_fifth(labels: Tensor, classes: int) -> Tensor:
    """Choose every fifth image of each class, bool (N,)."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(classes):
        chosen[torch.where(labels == label)[0][_FOLDS - 1 :: _FOLDS]] = True
    return chosen


def fit_logistic(
    features: Tensor, labels: Tensor, classes: int, l2: float
) -> tuple[Tensor, Tensor]:
    """Minimise the mean cross entropy + l2 / 2 * the squared norm of the weights.

    Args:
        features: float32 (N, D).
        labels: int64 (N,).
        classes: K.
        l2: The strength of regularisation. Biases are not regularised.

    Returns:
        The weights (K, D) and the biases (K,).
    """
    with torch.enable_grad():
        weights = torch.zeros(classes, features.shape[1], requires_grad=True)
        bias = torch.zeros(classes, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weights, bias], max_iter=300, history_size=20, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(F.linear(features, weights, bias), labels)
            loss = loss + l2 / 2 * weights.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    return weights.detach(), bias.detach()
