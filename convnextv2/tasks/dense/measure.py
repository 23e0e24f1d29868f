"""The loader with which segmentors and detectors are evaluated."""

from __future__ import annotations

from convnextv2.data.batch import Collate
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.loader import EvaluationLoader, Preparation, build_evaluation_loader
from convnextv2.deploy.artifact import Artifact
from convnextv2.distributed import Place
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.supervised.evaluation_setup import own_quarantine
from convnextv2.weights.opened import Weights


def build_dense_loader(
    opened: Weights | Artifact,
    recipe: Recipe,
    source: AnnotatedSource,
    place: Place,
    *,
    transform: Preparation,
    collate: Collate,
) -> EvaluationLoader:
    """Build the loader of an evaluation. Each batch has one image, since images differ in size.

    Args:
        opened: The model, whose run may have a list of bad images.
        recipe: The recipe, which says how bad images are handled. Its `in_channels` are those of
            the model.
        source: The images.
        place: This rank.
        transform: Prepares the images.
        collate: Joins the targets of a batch.
    """
    return build_evaluation_loader(
        recipe,
        source,
        place,
        own_quarantine(opened.path, recipe),
        transform=transform,
        collate=collate,
        batch_size=1,
    )
