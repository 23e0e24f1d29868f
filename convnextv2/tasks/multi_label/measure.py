"""Evaluate a model that gives images any number of labels."""

from __future__ import annotations

from dataclasses import dataclass

from convnextv2.data.notices import evaluation_notes
from convnextv2.data.source import Source
from convnextv2.deploy.artifact import Artifact
from convnextv2.distributed import Place
from convnextv2.evaluation.multi_label import LabelScores, score_labels
from convnextv2.evaluation.multi_label_metrics import MultiLabelEvaluation
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.prior import Prior
from convnextv2.tasks.supervised.set_up import set_up
from convnextv2.weights.description import Description
from convnextv2.weights.opened import Weights


@dataclass(frozen=True)
class MeasuredLabels:
    """An evaluation, with the scores, the images and the network that it belongs to.

    Attributes:
        evaluation: The figures, over all ranks.
        scores: The scores of all images.
        source: The images.
        description: The description of the network.
        parameters: The number of parameters.
        value_range: The values that became black and white in files with more than 8 bits.
        skipped: The names of the images that were left out.
    """

    evaluation: MultiLabelEvaluation
    scores: LabelScores
    source: Source
    description: Description
    parameters: int
    value_range: tuple[float, float] | None = None
    skipped: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """Return lines for the user about the images and the thresholds."""
        lines = evaluation_notes(self.source.notes, self.skipped)
        if not self.description.thresholds:
            lines.append("The weights have no thresholds, so a label counts from 0.5 on.")
        return lines


def evaluate_labels(
    opened: Weights | Artifact, recipe: Recipe, place: Place, prior: Prior = "trained"
) -> MeasuredLabels:
    """Evaluate a model on the recipe's validation images, at the thresholds that it has.

    Every image is counted exactly once over all ranks. Arguments and errors are those of `set_up`.
    """
    ready = set_up(opened, recipe, place, prior)
    scores = score_labels(
        ready.logits,
        ready.loader,
        images=len(ready.source),
        num_classes=ready.description.arguments["num_classes"],
        to_images=ready.to_images,
        place=place,
    )
    return MeasuredLabels(
        scores.evaluation(ready.description.thresholds),
        scores,
        ready.source,
        ready.description,
        ready.parameters,
        ready.value_range,
        ready.skipped(place),
    )
