"""Any number of labels for each image: the loss, and the figures of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from convnextv2.console import say
from convnextv2.data.loader import EvaluationLoader
from convnextv2.data.source import Source, Targets
from convnextv2.distributed import Place
from convnextv2.errors import DataError, RecipeError
from convnextv2.evaluation.losses import known_asymmetric, known_binary_cross_entropy
from convnextv2.evaluation.multi_label import score_labels
from convnextv2.recipe.knobs import Recipe, default_of, with_inferred
from convnextv2.recipe.values import show
from convnextv2.tasks.supervised.goal import Criterion
from convnextv2.text import brief

LARGEST_WEIGHT = 10.0
"""The largest weight of a positive label with pos_weight = balanced."""


class MultiLabel:
    """Each image has any number of labels. See `tasks.supervised.goal.LabelGoal`."""

    kind = "multi_label"

    def check(self, recipe: Recipe, source: Source, validation: Source | None) -> None:
        """Check the number of classes, and that the validation images have labels.

        Raises:
            RecipeError: `num_classes` is not the number of classes in the data.
            DataError: No validation image has a label, so no precision is defined.
        """
        classes = len(source.class_names)
        if recipe.num_classes not in (None, classes):
            raise RecipeError(
                f"num_classes = {recipe.num_classes}: the training images have {classes} classes, "
                "and each has a row of the head. Leave num_classes out."
            )
        if validation is not None and not (np.asarray(validation.targets) == 1).any():
            raise DataError(
                f"none of the {len(validation)} validation images has a label, so there is nothing "
                "to measure. Choose others with val_split, or set val_while_train = False."
            )

    def score(self, recipe: Recipe) -> str:
        """Return the mean average precision, unless the recipe asks for the loss."""
        return "loss" if recipe.best_by == "loss" else "map"

    def initial_bias(self, recipe: Recipe, source: Source) -> Tensor:
        """Return the log odds of the labels, so that training need not learn them.

        Most labels are absent from most images. With biases of zero, the network spends its first
        hundreds of steps on learning to predict this for every image, and meanwhile its features
        become almost constant. This is the remedy of RetinaNet (section 4.1 of arXiv 1708.02002),
        with the frequencies of the labels in place of a constant.
        """
        assert source.targets is not None
        weights = balanced_weights(source.targets) if _is_weighed(recipe) else torch.ones(())
        return log_odds(source.targets) + weights.log()

    def criterion(
        self,
        recipe: Recipe,
        source: Source,
        validation: Source | None,
        class_names: Sequence[str],
        device: torch.device,
    ) -> Criterion:
        """Build the recipe's loss over the labels that are known."""
        assert source.targets is not None
        lines, weights = [], None
        has = (source.targets == 1).sum(axis=0)
        names = zip(source.class_names, has, strict=True)
        if never := [name for name, count in names if not count]:
            lines.append(f"No training image has {brief(never)}, so it cannot be learned.")
        if _is_weighed(recipe):
            weights = balanced_weights(source.targets).to(device)
            lines.append(
                f"Positive labels have weights from {float(weights.min()):.3g} to "
                f"{float(weights.max()):.3g} (pos_weight)."
            )
        return Criterion(build_label_criterion(recipe, weights), {}, lines)

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
        """Measure the figures of `MultiLabelEvaluation.figures`, at thresholds fitted here."""
        scores = score_labels(
            logits,
            loader,
            images=images,
            num_classes=num_classes,
            to_images=to_images,
            place=place,
        )
        thresholds = scores.thresholds()
        return scores.evaluation(thresholds).figures(), list(thresholds)


def _is_weighed(recipe: Recipe) -> bool:
    return recipe.pos_weight == "balanced" and recipe.loss == "bce"


def log_odds(targets: Targets) -> Tensor:
    """Compute the log odds of each label.

    One image with each label and one without it are added, so that the result is finite.

    Args:
        targets: int8 (N, K): 1, 0, or -1 for unknown.

    Returns:
        float32 (K,).
    """
    has, lacks = (targets == 1).sum(axis=0), (targets == 0).sum(axis=0)
    return torch.from_numpy(np.log((has + 1) / (lacks + 1)).astype(np.float32))


def build_label_criterion(
    recipe: Recipe, pos_weight: Tensor | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Build the recipe's loss, a function that maps (logits, targets) to a float32 scalar.

    Args:
        recipe: The recipe of `several_labels`.
        pos_weight: See `known_binary_cross_entropy`.
    """
    if recipe.loss == "asl_multi_label":
        return known_asymmetric
    return lambda logits, targets: known_binary_cross_entropy(
        logits, targets, recipe.label_smoothing, recipe.loss_reduction, pos_weight
    )


def several_labels(recipe: Recipe) -> Recipe:
    """Settle a recipe for images that may have several labels, and say what was changed.

    Raises:
        RecipeError: The loss is one for exclusive classes, or the images are augmented for it.
    """
    if recipe.loss in ("asl_single_label", "jsd"):
        raise RecipeError(
            f"loss = {recipe.loss}: is for exclusive classes, but an image may have several "
            "labels here. Use bce or asl_multi_label."
        )
    if recipe.teacher:
        raise RecipeError(
            f"teacher = {recipe.teacher}: teaches one class for each image, but an image may have "
            "several labels here. Leave teacher out."
        )
    exclusive = ("class_weights", "sampling", "logit_adjustment")
    if wrong := [name for name in exclusive if getattr(recipe, name) != default_of(name)]:
        raise RecipeError(
            f"{wrong[0]} = {show(getattr(recipe, wrong[0]))}: is for one class for each image, but "
            "an image may have several labels here. Use pos_weight balanced."
        )
    if recipe.best_by not in ("loss", default_of("best_by")):
        raise RecipeError(
            f"best_by = {recipe.best_by}: is for one class for each image, but an image may have "
            "several labels here. Use loss, or leave it out for the mean average precision."
        )
    settled = {"labels": "multi"}
    if recipe.loss == "ce":
        say("loss = bce instead of ce, because an image may have several labels.")
        settled["loss"] = "bce"
    if recipe.mindcv_files:
        say("mindcv_files: result.log shows no accuracy, as an image may have several labels.")
    return with_inferred(recipe, settled)


def balanced_weights(targets: Targets) -> Tensor:
    """Compute the weights of positive labels in the loss.

    Args:
        targets: int8 (N, K): 1, 0, or -1 for unknown.

    Returns:
        float32 (K,): the number of images without a label over that with it, from 1 / N to 10; 1
        for a class that no image has.
    """
    has, lacks = (targets == 1).sum(axis=0), (targets == 0).sum(axis=0)
    weights = np.where(has > 0, lacks / np.maximum(has, 1), 1.0)
    least = 1 / max(1, len(targets))
    return torch.from_numpy(np.clip(weights, least, LARGEST_WEIGHT).astype(np.float32))
