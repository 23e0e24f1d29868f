"""Measure a model by the kind of its weights."""

from __future__ import annotations

from convnextv2.deploy.artifact import Artifact
from convnextv2.distributed import Place
from convnextv2.errors import RecipeError
from convnextv2.evaluation.detection import DetectionEvaluation
from convnextv2.evaluation.metrics import ClassifierEvaluation
from convnextv2.evaluation.multi_label_metrics import MultiLabelEvaluation
from convnextv2.evaluation.prior import check_has_prior
from convnextv2.evaluation.segmentation import SegmentationEvaluation
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.prior import Prior
from convnextv2.tasks.classification.measure import MeasuredClassifier, Views, evaluate_classifier
from convnextv2.tasks.detection.measure import MeasuredObjects, evaluate_detector
from convnextv2.tasks.multi_label.measure import MeasuredLabels, evaluate_labels
from convnextv2.tasks.segmentation.measure import MeasuredMaps, evaluate_segmentor
from convnextv2.weights.description import DENSE_KINDS
from convnextv2.weights.opened import Weights

AnyMeasured = MeasuredClassifier | MeasuredLabels | MeasuredMaps | MeasuredObjects
AnyEvaluation = (
    ClassifierEvaluation | MultiLabelEvaluation | SegmentationEvaluation | DetectionEvaluation
)


def measure(
    opened: Weights | Artifact,
    recipe: Recipe,
    place: Place,
    prior: Prior = "trained",
    views: Views = "none",
) -> AnyMeasured:
    """Evaluate a model on the recipe's validation images, by the kind of its weights.

    Raises:
        RecipeError: The recipe names another task than that of the weights, or the model does not
            average over views.
    """
    kind = opened.description.kind
    task = kind if kind in DENSE_KINDS else "classification"
    if recipe.task != task and "task" in recipe.model_fields_set:
        raise RecipeError(f"task = {recipe.task}: {opened.path} is for {task}. Leave task out.")
    if views != "none" and kind in (*DENSE_KINDS, "multi_label"):
        other = " Use test_scales and test_flip." if kind == "segmentation" else " Leave tta out."
        raise RecipeError(f"tta = {views}: is for classifiers with one class per image.{other}")
    if views == "scales" and isinstance(opened, Artifact):
        raise RecipeError(
            "tta = scales: an artifact takes images of one size. Use flip, or give the run."
        )
    if kind == "segmentation":
        check_has_prior(kind, prior, str(opened.path))
        return evaluate_segmentor(opened, recipe, place)
    if kind == "detection":
        check_has_prior(kind, prior, str(opened.path))
        return evaluate_detector(opened, recipe, place)
    if kind == "multi_label":
        check_has_prior(kind, prior, str(opened.path))
        return evaluate_labels(opened, recipe, place, prior)
    return evaluate_classifier(opened, recipe, place, prior, views)
