"""Evaluate a model that gives images any number of labels."""

from __future__ import annotations

from dataclasses import dataclass

from convnextv2.deploy.artifact import Artifact
from convnextv2.distributed import Place
from convnextv2.evaluation.multi_label import LabelScores, score_labels
from convnextv2.evaluation.multi_label_metrics import MultiLabelEvaluation
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.prior import Prior
from convnextv2.tasks.evaluated import Evaluated
from convnextv2.tasks.supervised.evaluation_setup import build_evaluation_setup
from convnextv2.weights.opened import Weights


@dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredLabels(Evaluated):
    """An evaluation, with the scores, the images and the network that it belongs to.

    Attributes:
        evaluation: The figures, over all ranks.
        scores: The scores of all images.
        value_range: The values that became black and white in files with more than 8 bits.
    """

    evaluation: MultiLabelEvaluation
    scores: LabelScores
    value_range: tuple[float, float] | None = None

    def notes(self) -> list[str]:
        """Return lines for the user about the images and the thresholds."""
        lines = super().notes()
        if not self.description.thresholds:
            lines.append("The weights have no thresholds, so 0.5 is used for every label.")
        return lines


def evaluate_labels(
    opened: Weights | Artifact, recipe: Recipe, place: Place, prior: Prior = "trained"
) -> MeasuredLabels:
    """Evaluate a model on the recipe's validation images, at the thresholds that it has.

    Every image is counted exactly once over all ranks. See `build_evaluation_setup`
    for arguments and errors.
    """
    ready = build_evaluation_setup(opened, recipe, place, prior)
    scores = score_labels(
        ready.logits,
        ready.loader,
        images=len(ready.source),
        num_classes=ready.description.arguments["num_classes"],
        to_images=ready.to_images,
        place=place,
    )
    return MeasuredLabels(
        evaluation=scores.evaluation(ready.description.thresholds),
        scores=scores,
        source=ready.source,
        description=ready.description,
        parameters=ready.parameters,
        value_range=ready.value_range,
        skipped=ready.skipped(place),
    )
