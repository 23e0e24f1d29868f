"""The class prior of a classifier's probabilities, and conversion to other priors.

A classifier that was trained on frequent and rare classes prefers the frequent ones. Its
probabilities are correct only for images whose classes are as frequent as in training. These
frequencies are the prior. If it is known, Bayes' rule converts the probabilities to any other
prior.

The arrays have one entry for each row of the head. A row without training images has a share of 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convnextv2.data.class_sampling import class_shares
from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.recipe.prior import Prior
from convnextv2.weights.description import Description

Array = NDArray[np.float64]


def log_prior(shares: Array) -> Array:
    """Return the logarithm of the shares of the classes.

    A class without images gets the largest of them, so that a shift of the logits by these numbers
    never raises it above the other classes.
    """
    logs: Array = np.log(np.where(shares > 0, shares, shares.max()))
    return logs


def check_has_prior(kind: str, prior: Prior, name: str) -> None:
    """Refuse any prior but "trained" for a model that does not give an image one class.

    Args:
        kind: The kind of the weights.
        prior: See `prior_shift`.
        name: The name of the weights in messages.

    Raises:
        CheckpointError: The model is of a kind that has no prior.
    """
    if kind in ("segmentation", "detection") and prior != "trained":
        raise CheckpointError(
            f"prior = {prior}: is for models with one class for each image, and {name} is for "
            f"{kind}. Leave prior out."
        )
    if kind == "multi_label" and prior != "trained":
        raise CheckpointError(
            f"prior = {prior}: is for models with one class for each image, and {name} gives an "
            "image any number of labels. Leave prior out."
        )


def prior_shift(balance: Mapping[str, Any], prior: Prior, name: str) -> Array:
    """Return the numbers to add to logits so that probabilities are correct for another prior.

    By Bayes' rule, logits f become f + log(new prior) - log(prior of training). "balanced" is logit
    adjustment after training (Menon et al. 2021, arXiv 2007.07314).

    Args:
        balance: The balance in the description of the weights; see `Description.balance`.
        prior: "natural" for classes as frequent as in the training images; "balanced" for classes
            of equal frequency; or a number tau, which subtracts tau times the logarithm of the
            prior (1 is "balanced", 0 changes nothing); "trained" changes nothing.
        name: The name of the weights in messages.

    Returns:
        float64 (K,).

    Raises:
        CheckpointError: The class frequencies of the training are unknown.
    """
    if not balance:
        raise CheckpointError(
            f"prior = {prior}: {name} does not state which class frequencies its probabilities "
            "assume: it comes from an older version or another library, or was trained by a "
            "teacher. Leave prior out."
        )
    counts = np.array(balance["class_counts"], dtype=np.int64)
    trained = log_prior(prior_of(balance))
    if prior == "natural":
        return log_prior(class_shares(counts)) - trained
    tau = {"balanced": 1.0, "trained": 0.0}[prior] if isinstance(prior, str) else prior
    return -tau * trained


def shifted(balance: Mapping[str, Any], prior: Prior) -> dict[str, Any]:
    """Return the description of the balance after `prior_shift`; see `Description.balance`."""
    counts, trained = balance["class_counts"], prior_of(balance)
    target = trained
    if prior == "natural":
        target = class_shares(np.array(counts))
    elif prior != "trained":
        tau = 1.0 if prior == "balanced" else float(prior)
        target = np.where(trained > 0, trained, 1.0) ** (1 - tau) * (trained > 0)
        target = target / target.sum()
    done = [balance["done"]] if balance["done"] else []
    word = prior if isinstance(prior, str) else f"{prior:g}"
    return {
        "class_counts": counts,
        "prior": prior_json(target, counts),
        "done": ", ".join([*done, f"prior {word} after training"]),
    }


def use_prior(model: ConvNeXtV2, description: Description, prior: Prior, name: str) -> Description:
    """Change the bias of a classifier's head so that its probabilities have another prior.

    Args:
        model: The classifier, which is changed.
        description: Its description.
        prior: See `prior_shift`.
        name: The name of the weights in messages.

    Returns:
        The description of the changed classifier.

    Raises:
        CheckpointError: The class frequencies of the training are unknown.
    """
    if prior == "trained":
        return description
    check_has_prior(description.kind, prior, name)
    assert model.head is not None
    shift = torch.from_numpy(prior_shift(description.balance, prior, name))
    with torch.no_grad():
        model.head.bias.add_(shift.to(model.head.bias))
    return replace(description, balance=shifted(description.balance, prior))


def image_shares(balance: Mapping[str, Any], targets: NDArray[np.int64]) -> Array | None:
    """Return weights of images that give their classes the frequencies of the prior.

    Args:
        balance: See `Description.balance`.
        targets: int64 (N,), the classes of the images, which are as frequent as in training.

    Returns:
        float64 (N,); None if all images have the same weight.
    """
    if not balance or balance["prior"] == "natural":
        return None
    prior = prior_of(balance)
    shares: Array = (prior / np.maximum(np.bincount(targets, minlength=len(prior)), 1))[targets]
    return shares


def prior_json(prior: Array, counts: Sequence[int]) -> str | list[float]:
    """Return a prior in its JSON form: "natural", "balanced", or a list of shares."""
    natural = class_shares(np.array(counts))
    if np.allclose(prior, natural, rtol=1e-6):
        return "natural"
    if np.allclose(prior, class_shares(np.array(counts), 0.0), rtol=1e-6):
        return "balanced"
    return [float(f"{share:.6g}") for share in prior]


def prior_of(balance: Mapping[str, Any]) -> Array:
    """Return the prior as the shares of the classes, float64 (K,) with sum 1.

    Args:
        balance: See `Description.balance`; not empty.
    """
    prior = balance["prior"]
    if isinstance(prior, str):
        power = 1.0 if prior == "natural" else 0.0
        return class_shares(np.array(balance["class_counts"]), power)
    return np.array(prior, dtype=np.float64)


def meaning(balance: Mapping[str, Any]) -> str:
    """Return a sentence about the prior of the probabilities.

    Args:
        balance: See `Description.balance`; not empty.
    """
    prior = balance["prior"]
    if isinstance(prior, str):
        words = {"natural": "as frequent as in training", "balanced": "equally frequent"}
        return f"Probabilities are meant for images whose classes are {words[prior]}."
    shares = [share for share in prior if share]
    return (
        f"Probabilities are meant for images of which the rarest class makes up {min(shares):.2g}, "
        f"and the most frequent one {max(shares):.2g}."
    )
