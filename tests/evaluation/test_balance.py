"""Weights, priors and shifts against scikit-learn and numbers computed by hand."""

import numpy as np
import pytest

from convnextv2.errors import CheckpointError, RecipeError
from convnextv2.evaluation.balance import (
    Balance,
    balance_line,
    build_balance,
    few_images,
    image_weights,
    statement,
)
from convnextv2.evaluation.prior import log_prior, prior_shift, shifted
from convnextv2.recipe.knobs import Recipe

COUNTS = np.array([90, 9, 1])
NAMES = ["dress", "shoe", "hat"]


def test_balanced_weights_are_scikit_learns_and_have_mean_1_over_images():
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    targets = np.repeat(np.arange(3), COUNTS)
    expected = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=targets)
    weights = image_weights(COUNTS, "balanced")
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    assert weights[targets].mean() == pytest.approx(1, rel=1e-12)


def test_effective_weights_computed_by_hand():
    # (1 - 0.9) / (1 - 0.9^n) for 90, 9 and 1 images.
    raw = [0.1 / (1 - 0.9**90), 0.1 / (1 - 0.387420489), 1.0]
    mean = 0.9 * raw[0] + 0.09 * raw[1] + 0.01 * raw[2]
    np.testing.assert_allclose(
        image_weights(COUNTS, "effective", 0.9), np.array(raw) / mean, rtol=1e-12
    )


def test_a_table_of_weights_is_scaled_and_other_classes_have_1():
    weights = image_weights(COUNTS, {"hat": 11.0}, class_names=NAMES)
    np.testing.assert_allclose(weights, np.array([1, 1, 11]) / (0.99 + 0.11), rtol=1e-12)
    with pytest.raises(RecipeError, match="no such class. Did you mean 'shoe'"):
        image_weights(COUNTS, {"shoes": 2.0}, class_names=NAMES)


def test_rows_without_images_get_no_weight_and_no_advantage():
    counts = np.array([90, 0, 10])
    np.testing.assert_allclose(image_weights(counts, "balanced"), [100 / 180, 0, 5])
    np.testing.assert_allclose(log_prior(np.array([0.9, 0, 0.1])), np.log([0.9, 0.9, 0.1]))
    assert Balance(counts, tau=0.5).prior[1] == 0 == Balance(counts, tau=1.0).prior[1]


@pytest.mark.parametrize(
    ("knobs", "prior"),
    [
        ({}, "natural"),
        ({"class_weights": "balanced"}, "balanced"),
        ({"sampling": "balanced"}, "balanced"),
        ({"logit_adjustment": 1}, "balanced"),
        ({"logit_adjustment": 1, "sampling": "sqrt"}, "balanced"),
        ({"sampling": 0.5}, [90**0.5 / 13.486833, 3 / 13.486833, 1 / 13.486833]),
        ({"logit_adjustment": 0.5}, [90**0.5 / 13.486833, 3 / 13.486833, 1 / 13.486833]),
        ({"class_weights": {"hat": 11.0}}, [90 / 110, 9 / 110, 11 / 110]),
    ],
    ids=str,
)
def test_the_prior_of_the_probabilities_is_recorded(knobs, prior):
    told = build_balance(Recipe(**knobs), COUNTS, NAMES).to_json()
    assert told["class_counts"] == [90, 9, 1]
    assert told["prior"] == (prior if isinstance(prior, str) else pytest.approx(prior, rel=1e-5))
    assert bool(told["done"]) == bool(knobs)


def test_shifts_are_those_of_bayes():
    natural = {"class_counts": [90, 9, 1], "prior": "natural", "done": ""}
    found = prior_shift(natural, "balanced", "x")
    np.testing.assert_allclose(found, -np.log([0.9, 0.09, 0.01]), rtol=1e-12)
    np.testing.assert_allclose(prior_shift(natural, 0.5, "x"), found / 2, rtol=1e-12)
    np.testing.assert_allclose(prior_shift(natural, "natural", "x"), 0, atol=1e-12)
    balanced = natural | {"prior": "balanced"}
    to_natural = prior_shift(balanced, "natural", "x")
    np.testing.assert_allclose(to_natural - to_natural[0], np.log([1, 0.1, 1 / 90]), rtol=1e-9)
    assert shifted(natural, "balanced")["prior"] == "balanced"
    assert shifted(balanced, "natural")["prior"] == "natural"
    half = shifted(natural, 0.5)
    assert half["prior"] == pytest.approx([90**0.5 / 13.486833, 3 / 13.486833, 1 / 13.486833])
    assert half["done"] == "prior 0.5 after training"
    with pytest.raises(CheckpointError, match="prior = balanced: x does not state which class"):
        prior_shift({}, "balanced", "x")


def test_users_are_told_of_unbalanced_classes_and_of_what_is_done():
    line = balance_line(Balance(COUNTS), NAMES)
    assert "dress has 90 training images, hat has 1, 90 to 1 (5 to 1 or more counts" in line
    assert "There are no countermeasures" in line
    done = balance_line(build_balance(Recipe(sampling="sqrt"), COUNTS, NAMES), NAMES)
    assert done.endswith("Countermeasures: sampling sqrt.")
    assert balance_line(Balance(np.array([49, 10])), NAMES[:2]) == ""
    assert balance_line(Balance(np.array([50, 10, 0])), NAMES)
    told = statement(shifted(Balance(COUNTS).to_json(), "balanced"), NAMES)
    assert "Countermeasures: prior balanced after training." in told
    assert told.endswith("Probabilities are meant for images whose classes are equally frequent.")
    half = statement(shifted(Balance(COUNTS).to_json(), 0.5), NAMES)
    assert half.endswith("the rarest class makes up 0.074, and the most frequent one 0.7.")
    assert statement({}, NAMES) == statement(Balance(np.array([9, 8])).to_json(), NAMES) == ""


def test_classes_with_few_validation_images_are_named_briefly():
    assert few_images([10, 11], NAMES[:2]) == ""
    line = few_images([3, 0, 10], NAMES)
    assert line.startswith("Fewer than 10 validation images: 2 of 3 classes (shoe 0, dress 3).")
    many = few_images([1] * 8, list("abcdefgh"))
    assert "8 of 8 classes (a 1, b 1, c 1 and 5 more)" in many
