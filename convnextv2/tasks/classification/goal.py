"""One class for each image: the loss, and the figures of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from convnextv2.console import say
from convnextv2.data.loader import EvaluationLoader
from convnextv2.data.source import Source
from convnextv2.distributed import Place
from convnextv2.evaluation.balance import Balance, balance_line, build_balance, few_images
from convnextv2.evaluation.evaluate import evaluate
from convnextv2.evaluation.losses import (
    asymmetric_multi_label,
    asymmetric_single_label,
    binary_cross_entropy,
    cross_entropy,
    jensen_shannon,
)
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.supervised.goal import Criterion

_FIGURES = ("top1", "top5", "loss", "balanced_accuracy", "macro_f1")


class SingleLabel:
    """Each image has one class. See `tasks.supervised.goal.LabelGoal`."""

    kind = "classifier"

    def check(self, recipe: Recipe, source: Source, validation: Source | None) -> None:
        """Accept all images: this goal has no demands beyond one class for each image."""

    def score(self, recipe: Recipe) -> str:
        """Return the figure that the recipe names."""
        return recipe.best_by

    def initial_bias(self, recipe: Recipe, source: Source) -> None:
        """Return None: a new head starts with zeros, as in the official code and MindCV."""

    def criterion(
        self,
        recipe: Recipe,
        source: Source,
        validation: Source | None,
        class_names: Sequence[str],
        device: torch.device,
    ) -> Criterion:
        """Build the recipe's loss for the frequencies of the classes."""
        assert source.targets is not None
        labels = source.targets[source.targets >= 0]  # -1 stands for images without one
        counts = np.bincount(labels, minlength=len(class_names))
        balance = build_balance(recipe, counts, class_names)
        lines = balance_lines(recipe, balance, validation, class_names)
        return Criterion(build_criterion(recipe, balance, device), balance.to_json(), lines)

    def evaluate(
        self,
        logits: Callable[[Tensor], Tensor],
        loader: EvaluationLoader,
        *,
        images: int,
        num_classes: int,
        to_images: Callable[[Tensor], Tensor],
        place: Place,
    ) -> tuple[dict[str, float], list[float]]:
        """Measure top1, loss, balanced_accuracy and macro_f1, and top5 from five classes on."""
        evaluation, _ = evaluate(
            logits, loader, num_classes=num_classes, to_images=to_images, place=place
        )
        if line := evaluation.collapse_line():
            say(f"validation: {line}")
        figures = {name: getattr(evaluation, name) for name in _FIGURES}
        return {name: value for name, value in figures.items() if value is not None}, []


def balance_lines(
    recipe: Recipe, balance: Balance, validation: Source | None, class_names: Sequence[str]
) -> list[str]:
    """Return what users should know about the frequencies of the classes.

    Args:
        recipe: The recipe.
        balance: How frequent the classes are in training.
        validation: The validation images; None if there are none.
        class_names: The names of the rows of the head.

    Returns:
        Lines to print.
    """
    lines = [balance_line(balance, class_names)]
    if "pos_weight" in recipe.model_fields_set:
        lines.append("No effect here: pos_weight (each image has one class).")
    if validation is not None and validation.targets is not None:
        names = validation.class_names
        counts = np.bincount(validation.targets, minlength=len(names)).tolist()
        lines.append(few_images(counts, names))
    elif idle := [name for name in ("best_by", "patience") if name in recipe.model_fields_set]:
        lines.append(f"No effect here: {', '.join(idle)} (there are no validation images).")
    return [line for line in lines if line]


def build_criterion(
    recipe: Recipe, balance: Balance, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """Build the recipe's loss.

    Args:
        recipe: The recipe.
        balance: The weights of the classes, and what is added to logits.
        device: The device of the logits.

    Returns:
        A function that maps (logits, targets) to a float32 scalar.
    """
    weights, shift = (
        None if each is None else torch.tensor(each, dtype=torch.float32, device=device)
        for each in (balance.weights, balance.logit_shift)
    )
    if recipe.loss in ("ce", "bce"):
        plain = {"ce": cross_entropy, "bce": binary_cross_entropy}[recipe.loss]
        return lambda logits, targets: plain(
            logits if shift is None else logits + shift,  # float32, whatever the logits are
            targets,
            recipe.label_smoothing,
            recipe.loss_reduction,
            weights,
        )
    other: Callable[[Tensor, Tensor, float], Tensor] = {
        "asl_single_label": asymmetric_single_label,
        "asl_multi_label": asymmetric_multi_label,
        "jsd": jensen_shannon,
    }[recipe.loss]
    return lambda logits, targets: other(logits, targets, recipe.label_smoothing)
