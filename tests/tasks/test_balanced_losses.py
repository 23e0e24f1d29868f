"""Each correction for unbalanced classes learns the posterior that theory gives for its prior.

An "image" is one of four pictures that occur in three classes with known frequencies. The best
logits follow from Bayes' rule, and where they are best, the gradient of the real loss is zero.
"""

import numpy as np
import pytest
import torch

from convnextv2.evaluation.balance import build_balance
from convnextv2.evaluation.prior import prior_shift
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.classification.goal import build_criterion

# Rows are pictures, columns classes: how often a picture occurs in a class.
TABLE = np.array([[60, 1, 1], [20, 5, 1], [8, 3, 1], [2, 1, 2]])
COUNTS = TABLE.sum(0)
GIVEN_CLASS = TABLE / COUNTS
"""P(picture | class), which no correction changes."""
NAMES = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("knobs", "prior"),
    [
        ({}, COUNTS),
        ({"class_weights": "balanced"}, np.ones(3)),
        ({"class_weights": "effective", "class_weights_beta": 0.9}, None),
        ({"class_weights": {"c": 7.0, "b": 2.0}}, COUNTS * [1, 2, 7]),
        ({"sampling": "balanced"}, np.ones(3)),
        ({"sampling": 0.3}, COUNTS**0.3),
        ({"logit_adjustment": 1.0}, np.ones(3)),
        ({"logit_adjustment": 0.4}, COUNTS**0.6),
        ({"logit_adjustment": 1.0, "sampling": "sqrt"}, np.ones(3)),
        ({"logit_adjustment": 2.0}, COUNTS**-1.0),
    ],
    ids=str,
)
def test_the_gradient_is_zero_at_the_posterior_of_the_prior(knobs, prior):
    recipe = Recipe(**knobs)
    balance = build_balance(recipe, COUNTS, NAMES)
    if prior is None:
        prior = COUNTS * 0.1 / (1 - 0.9**COUNTS)
    np.testing.assert_allclose(balance.prior, prior / np.sum(prior), rtol=1e-9)
    criterion = build_criterion(recipe, balance, torch.device("cpu"))
    best = torch.tensor(np.log(prior * GIVEN_CLASS), requires_grad=True)
    # In an epoch, a class has its share of the draws, and its pictures are drawn alike.
    power = {"balanced": 0.0, "sqrt": 0.5, "natural": 1.0}.get(recipe.sampling, recipe.sampling)
    drawn = GIVEN_CLASS * COUNTS**power / np.sum(COUNTS**power)
    total = torch.zeros((), dtype=torch.float64)
    for picture, label in np.ndindex(TABLE.shape):
        loss = criterion(best[picture : picture + 1], torch.tensor([label]))
        total = total + drawn[picture, label] * loss
    total.backward()
    assert best.grad.abs().max() < 1e-7

    told = balance.to_json()
    for wanted, frequencies in (("balanced", np.ones(3)), ("natural", COUNTS)):
        shift = torch.from_numpy(prior_shift(told, wanted, "x"))
        found = (best.detach() + shift).softmax(-1).numpy()
        expected = GIVEN_CLASS * frequencies / (GIVEN_CLASS * frequencies).sum(1, keepdims=True)
        np.testing.assert_allclose(found, expected, rtol=1e-4)  # a prior is written with 6 digits


def test_without_corrections_the_loss_is_plain_cross_entropy_bit_for_bit():
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    criterion = build_criterion(
        Recipe(label_smoothing=0.1),
        build_balance(Recipe(), COUNTS, NAMES),
        torch.device("cpu"),
    )
    expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)
    assert torch.equal(criterion(logits, targets), expected)
