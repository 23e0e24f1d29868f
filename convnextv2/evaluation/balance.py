"""The frequencies of classes in training, and the measures against imbalance.

The arrays have one entry for each row of the head. A row without training images has a count of 0.
The meaning of the resulting probabilities is described in `evaluation.prior`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.class_sampling import class_shares, power_of
from convnextv2.errors import RecipeError
from convnextv2.evaluation.prior import log_prior, meaning, prior_json
from convnextv2.recipe.knobs import Recipe
from convnextv2.text import plain

Array = NDArray[np.float64]

UNBALANCED = 5
"""Classes count as unbalanced if the largest has at least this many times the images of the
smallest."""

FEW = 10
"""The recall of a class with fewer validation images than this is very uncertain."""

GUIDE = "docs/how-to/unbalanced.md"


@dataclass(frozen=True, eq=False)
class Balance:
    """The measures that the training of a classifier takes against unbalanced classes.

    Attributes:
        counts: int64 (K,), the number of training images of each class.
        power: Classes are drawn in proportion to count ** power.
        weights: float64 (K,), the weight of an image of each class in the loss; None for none.
        tau: The factor of logit adjustment: the loss adds tau * log(share of the draws) to the
            logit of each class.
        done: The knobs that counter the imbalance, as text; empty for none.
    """

    counts: NDArray[np.int64]
    power: float = 1.0
    weights: Array | None = None
    tau: float = 0.0
    done: str = ""

    @property
    def logit_shift(self) -> Array | None:
        """The numbers that the loss adds to the logits, float64 (K,); None for none."""
        return self.tau * log_prior(class_shares(self.counts, self.power)) if self.tau else None

    @property
    def prior(self) -> Array:
        """The prior of the network's probabilities, float64 (K,) with sum 1."""
        prior = class_shares(self.counts, self.power)
        if self.weights is not None:
            prior = prior * self.weights
        if self.tau:  # the network does not learn what the loss adds
            prior = np.where(prior > 0, prior, 1.0) ** (1 - self.tau) * (prior > 0)
        shares: Array = prior / prior.sum()
        return shares

    def to_json(self) -> dict[str, Any]:
        """Return the counts, the prior and the measures, as in `Description.balance`."""
        counts = [int(count) for count in self.counts]
        return {"class_counts": counts, "prior": prior_json(self.prior, counts), "done": self.done}


def build_balance(recipe: Recipe, counts: NDArray[np.int64], class_names: Sequence[str]) -> Balance:
    """Determine the measures of a recipe against unbalanced classes.

    Args:
        recipe: The recipe.
        counts: int64 (K,), the number of training images of each row of the head.
        class_names: The name of each row.

    Raises:
        RecipeError: `class_weights` names a class that does not exist.
    """
    how, tau, done = recipe.class_weights, recipe.logit_adjustment, []
    weights = None
    if how != "none":
        weights = image_weights(counts, how, recipe.class_weights_beta, class_names)
        beta = f" (beta {recipe.class_weights_beta:g})" if how == "effective" else ""
        done.append(f"class_weights {how if isinstance(how, str) else 'from a table'}{beta}")
    if power_of(recipe.sampling) != 1:
        sampling = recipe.sampling
        done.append(f"sampling {sampling if isinstance(sampling, str) else f'{sampling:g}'}")
    if tau:
        done.append(f"logit_adjustment {tau:g} in the loss")
    return Balance(counts, power_of(recipe.sampling), weights, tau, ", ".join(done))


def image_weights(
    counts: NDArray[np.int64],
    how: str | Mapping[str, float],
    beta: float = 0.999,
    class_names: Sequence[str] = (),
) -> Array:
    """Return the weight of an image of each class.

    They are scaled so that their mean over all training images is 1. The size of the loss and of
    its gradient, and thus the best learning rate, then stay about the same.

    Args:
        counts: int64 (K,).
        how: "balanced", in proportion to 1 / n; "effective", in proportion to
            (1 - beta) / (1 - beta^n) (Cui et al. 2019, arXiv 1901.05555); or a table of weights by
            class name, in which a class that is left out has 1.
        beta: The beta of "effective".
        class_names: The names of the K classes, for a table.

    Returns:
        float64 (K,), 0 for a class without images.

    Raises:
        RecipeError: The table names a class that does not exist.
    """
    images = np.maximum(counts, 1)
    if isinstance(how, Mapping):
        for name in how:
            if name not in class_names:
                near = get_close_matches(name, class_names, n=1)
                remedy = f"Did you mean {near[0]!r}?" if near else f"There is {class_names[0]!r}."
                raise RecipeError(
                    f"class_weights = {plain(name)}={how[name]:g}: the training images have no "
                    f"such class. {plain(remedy)}"
                )
        raw = np.array([how.get(name, 1.0) for name in class_names])
    else:
        raw = 1 / images if how == "balanced" else (1 - beta) / (1 - beta**images)
    weights: Array = np.where(counts > 0, raw / (class_shares(counts) @ raw), 0.0)
    return weights


def unbalance(counts: Sequence[int], class_names: Sequence[str]) -> str:
    """Return sentences about unbalanced classes, for the start of a line; empty if balanced.

    Args:
        counts: The number of training images of each row.
        class_names: The names of the rows.
    """
    occurring = [row for row, count in enumerate(counts) if count]
    if not occurring:
        return ""
    least = min(occurring, key=lambda row: counts[row])
    most = max(occurring, key=lambda row: counts[row])
    ratio = counts[most] / counts[least]
    if ratio < UNBALANCED:
        return ""
    return (
        f"Unbalanced classes: {plain(class_names[most])} has {counts[most]:,} training images, "
        f"{plain(class_names[least])} has {counts[least]:,}, {ratio:.3g} to 1 ({UNBALANCED} to 1 "
        "or more counts as unbalanced)."
    )


def balance_line(balance: Balance, class_names: Sequence[str]) -> str:
    """Return a line about unbalanced training images and the measures against it.

    Args:
        balance: The measures of the training.
        class_names: The names of the rows.

    Returns:
        A line for the user; empty if the classes are about equally frequent.
    """
    found = unbalance(balance.counts.tolist(), class_names)
    if not found:
        return ""
    if balance.done:
        return f"{found} Countermeasures: {balance.done}."
    return (
        f"{found} There are no countermeasures. Use --prior balanced after training, or --sampling "
        f"sqrt or --logit_adjustment 1 during it ({GUIDE})."
    )


def statement(balance: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """Return sentences for a report: frequencies, measures, and the meaning of probabilities.

    Args:
        balance: See `Description.balance`.
        class_names: The names of the rows.

    Returns:
        A few sentences; empty if nothing is known.
    """
    if not balance:
        return ""
    found = unbalance(balance["class_counts"], class_names)
    if not found and not balance["done"]:
        return ""
    return (
        f"{found or 'Classes are about equally frequent.'} Countermeasures: "
        f"{balance['done'] or 'none'}. {meaning(balance)}"
    )


def few_images(counts: Sequence[int], class_names: Sequence[str]) -> str:
    """Return a warning about classes with too few validation images.

    Args:
        counts: The number of validation images of each class.
        class_names: The names of the classes.

    Returns:
        A line for the user, or an empty text.
    """
    few = sorted((count, plain(name)) for count, name in zip(counts, class_names, strict=True))
    few = [(count, name) for count, name in few if count < FEW]
    if not few:
        return ""
    named = ", ".join(f"{name} {count}" for count, name in few[:3])
    more = f" and {len(few) - 3} more" if len(few) > 3 else ""
    return (
        f"Fewer than {FEW} validation images: {len(few)} of {len(class_names)} classes ({named}"
        f"{more}). The figures of these classes, and means over classes, are very uncertain."
    )
