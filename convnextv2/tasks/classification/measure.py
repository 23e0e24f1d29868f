"""Evaluate a classifier, given as weights or an artifact, on labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from convnextv2.data.notices import evaluation_notes
from convnextv2.deploy.artifact import Artifact
from convnextv2.distributed import Place
from convnextv2.evaluation.balance import few_images
from convnextv2.evaluation.evaluate import Predictions, evaluate
from convnextv2.evaluation.metrics import ClassifierEvaluation
from convnextv2.evaluation.views import averaged
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.prior import Prior
from convnextv2.tasks.evaluated import Evaluated
from convnextv2.tasks.supervised.evaluation_setup import build_evaluation_setup
from convnextv2.weights.opened import Weights

Views = Literal["none", "flip", "scales"]
SCALES: dict[Views, tuple[float, ...]] = {"flip": (1,), "scales": (1, 1.25, 1.5)}


@dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredClassifier(Evaluated):
    """An evaluation, with the predictions, the images and the network that it belongs to.

    Attributes:
        evaluation: The figures, over all ranks.
        predictions: The predictions of this rank.
        value_range: The values that became black and white in files with more than 8 bits.
    """

    evaluation: ClassifierEvaluation
    predictions: Predictions
    value_range: tuple[float, float] | None = None

    @property
    def few(self) -> str:
        """A line about classes with few images; empty if there are none."""
        support, names = self.evaluation.support, self.description.class_names
        rows = np.flatnonzero(support)
        return few_images(support[rows].tolist(), [names[row] for row in rows])

    def notes(self) -> list[str]:
        """Return lines for the user about the images."""
        about_classes = [self.few] if self.few else []
        return evaluation_notes([*self.source.notes, *about_classes], self.skipped)


def evaluate_classifier(
    opened: Weights | Artifact,
    recipe: Recipe,
    place: Place,
    prior: Prior = "trained",
    views: Views = "none",
) -> MeasuredClassifier:
    """Evaluate a classifier on the recipe's validation images.

    Every image is counted exactly once over all ranks. See `build_evaluation_setup`
    for errors.

    Args:
        opened: See `build_evaluation_setup`.
        recipe: See `build_evaluation_setup`.
        place: See `build_evaluation_setup`.
        prior: See `build_evaluation_setup`.
        views: The views of each image over which probabilities are averaged.
    """
    ready = build_evaluation_setup(opened, recipe, place, prior)
    logits = ready.logits
    if views != "none":
        logits = averaged(logits, SCALES[views], ready.description.total_stride)
    evaluation, predictions = evaluate(
        logits,
        ready.loader,
        num_classes=ready.description.arguments["num_classes"],
        to_images=ready.to_images,
        place=place,
    )
    return MeasuredClassifier(
        evaluation=evaluation,
        predictions=predictions,
        source=ready.source,
        description=ready.description,
        parameters=ready.parameters,
        value_range=ready.value_range,
        skipped=ready.skipped(place),
    )
