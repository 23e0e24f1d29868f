"""Probably wrong labels, by cross-validated classifiers on features of images.

A linear classifier is trained on four fifths of the images and asked about the last fifth, five
times, so that every image is judged by one that never saw it. How far the classifier can be trusted
is fitted too. The model assumes that a share of the labels is wrong. This share and a temperature
of the classifier maximise the likelihood of the given labels. They yield, for every label, the
probability that it is wrong.

Confident learning (Northcutt, Jiang and Chuang, JMLR 2021) compares the same kind of out-of-sample
probabilities with thresholds instead. It names more images, even where the classifier is weak.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from convnextv2.evaluation.probes import fit_logistic

FOLDS = 5
_STRENGTHS = (1e-2, 1e-1, 1.0)
"""Candidate strengths of L2 regularisation. The one that predicts the first fold best is used."""
MIN_IMAGES = 2 * FOLDS
"""A class with fewer images is not judged, because too few of them are left to learn from."""


NAMED = 0.5
"""The lowest probability of being wrong at which a label is reported."""
MAX_WRONG = 1 / 3
"""The largest credible share of wrong labels. Above it, the classifier is probably at fault."""
_TEMPERATURES = tuple(2 ** (k / 4) for k in range(-8, 9))


class Doubt(NamedTuple):
    """The estimated probability that each label is wrong.

    Attributes:
        wrong: float64 (N,), the probability that the label of each image is wrong.
        suggested: int64 (N,), the most probable other class of each image.
        share: The share of labels that are wrong.
        temperature: The fitted temperature of the classifier, by which its logits are divided.
    """

    wrong: Tensor
    suggested: Tensor
    share: float
    temperature: float


class Judged(NamedTuple):
    """The result of judging labels by cross-validation.

    Attributes:
        logits: float32 (N, K). Those of an image come from a classifier that was not trained on it.
        accuracy: The share of labels that the predictions agree with, from 0 to 1.
        l2: The strength of L2 regularisation.
    """

    logits: Tensor
    accuracy: float
    l2: float


def judge(features: Tensor, labels: Tensor, classes: int) -> Judged:
    """Predict the class of every image by a classifier that did not see it.

    Args:
        features: float32 (N, D).
        labels: int64 (N,).
        classes: K.
    """
    features = (features - features.mean(0)) / features.std(0, correction=0).clamp(min=1e-6)
    fold = _folds(labels, classes)
    first, l2 = _choose(features, labels, fold, classes)
    logits = torch.zeros(len(labels), classes)
    logits[fold == 0] = first
    for number in range(1, FOLDS):
        held_out = fold == number
        logits[held_out] = _predict(features, labels, held_out, classes, l2)
    return Judged(logits, float((logits.argmax(1) == labels).float().mean()), l2)


def _folds(labels: Tensor, classes: int) -> Tensor:
    """Deal the images of each class to the folds in turn, in a random order with a fixed seed."""
    fold = torch.zeros(len(labels), dtype=torch.int64)
    chance = torch.Generator().manual_seed(0)
    for label in range(classes):
        members = torch.where(labels == label)[0]
        order = members[torch.randperm(len(members), generator=chance)]
        fold[order] = (torch.arange(len(members)) + label) % FOLDS
    return fold


def _choose(features: Tensor, labels: Tensor, fold: Tensor, classes: int) -> tuple[Tensor, float]:
    """Return the logits of the first fold, and the strength whose log-likelihood is best there."""
    held_out = fold == 0
    scored = []
    for l2 in _STRENGTHS:
        logits = _predict(features, labels, held_out, classes, l2)
        own = logits.log_softmax(1).gather(1, labels[held_out, None])
        scored.append((float(own.mean()), l2, logits))
    _, l2, logits = max(scored, key=lambda each: each[:2])
    return logits, l2


def _predict(features: Tensor, labels: Tensor, held_out: Tensor, classes: int, l2: float) -> Tensor:
    weights, bias = fit_logistic(features[~held_out], labels[~held_out], classes, l2)
    return features[held_out] @ weights.T + bias


def is_better_than_guessing(accuracy: float, commonest: float, images: int) -> bool:
    """Return whether an accuracy exceeds the share of the commonest class by more than chance.

    Chance is three standard deviations of a share of this many images.
    """
    return accuracy - commonest > 3 * (commonest * (1 - commonest) / images) ** 0.5


def doubt(logits: Tensor, labels: Tensor) -> Doubt:
    """Estimate the probability that each label is wrong.

    With probability 1 - e, a label is the true class; otherwise, it is any of the others with equal
    probability. If q is the classifier's probability of the label, the label occurs with
    probability (1 - e) q + e (1 - q) / (K - 1). The share of the second term in this sum is the
    probability that it is wrong. For each temperature, the share e is found by expectation
    maximisation. The temperature with the largest likelihood is used.

    Args:
        logits: float32 (N, K), out of sample.
        labels: int64 (N,).
    """
    classes = logits.shape[1]
    best = Doubt(torch.zeros(len(labels)), labels, 0.0, 1.0)
    most = -torch.inf
    for temperature in _TEMPERATURES:
        own = (logits.double() / temperature).softmax(1).gather(1, labels[:, None])[:, 0]
        share, likelihood = _share_of_wrong(own, classes)
        if likelihood > most:
            by_mistake = share * (1 - own) / (classes - 1)
            wrong = by_mistake / ((1 - share) * own + by_mistake).clamp(min=1e-300)
            most, best = likelihood, Doubt(wrong, labels, share, temperature)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return best._replace(suggested=others.argmax(1))


def _share_of_wrong(own: Tensor, classes: int) -> tuple[float, float]:
    """Return the share of wrong labels, and the mean log-likelihood of the labels."""
    share = torch.tensor(0.05, dtype=torch.float64)
    by_chance = (1 - own) / (classes - 1)
    total = own
    for _ in range(200):  # it converges long before
        total = (1 - share) * own + share * by_chance
        new = (share * by_chance / total.clamp(min=1e-300)).mean()
        if abs(float(new - share)) < 1e-9:
            break
        share = new
    return float(share), float(total.clamp(min=1e-300).log().mean())
