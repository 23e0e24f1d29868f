"""Evaluate a segmentor on images with label maps."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from convnextv2.console import say
from convnextv2.data.batch import Batch
from convnextv2.data.build_transforms import build_preprocessing
from convnextv2.data.dense.map_sources import map_validation_source
from convnextv2.data.dense.map_transforms import MapEvalTransform, collate_maps
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.deploy.artifact import Artifact
from convnextv2.device import choose_precision
from convnextv2.distributed import Place
from convnextv2.evaluation.segmentation import SegmentationEvaluation, count_pixels, summarise
from convnextv2.inference.dense import lay_out
from convnextv2.inference.pixel_classifier import PixelClassifier, Windows, build_pixel_classifier
from convnextv2.inference.pixel_classifier_artifact import build_pixel_classifier_from_artifact
from convnextv2.model.upernet import Segmentor
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.dense.measure import build_dense_loader
from convnextv2.tasks.evaluated import Evaluated
from convnextv2.tasks.supervised.own_data import check_held_out, has_own_data
from convnextv2.weights.build import count_parameters
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore

WORST = 8
"""The number of images with the lowest accuracy that a report shows."""


@dataclass(frozen=True, order=True)
class ImageScore:
    """The pixel accuracy of one image.

    Attributes:
        accuracy: The share of its labelled pixels whose class was predicted, from 0 to 1.
        index: The index of the image in its source.
    """

    accuracy: float
    index: int


@dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredMaps(Evaluated):
    """An evaluation, with the images and the network that it belongs to.

    Attributes:
        evaluation: The figures, over all ranks.
        worst: The images with the smallest share of right pixels, over all ranks, the worst first.
        pixel_classifier: The pixel classifier that was measured.
    """

    evaluation: SegmentationEvaluation
    worst: list[ImageScore]
    pixel_classifier: PixelClassifier
    source: AnnotatedSource


def evaluate_segmentor(opened: Weights | Artifact, recipe: Recipe, place: Place) -> MeasuredMaps:
    """Evaluate a segmentor on the recipe's validation images.

    Every image is counted exactly once over all ranks.

    Args:
        opened: The model, which is a segmentor.
        recipe: Names the images, and says how they are prepared.
        place: This rank.

    Raises:
        DataError: Images or label maps have defects, or classes are unknown.
    """
    trained_on = has_own_data(opened.path, recipe)
    for line in opened.lines():
        say(line)
    pixel_classifier, description = (
        _build_pixel_classifier(opened, recipe, place),
        opened.description,
    )
    preprocessing = pixel_classifier.preprocessing
    recipe = recipe.model_copy(update={"in_channels": preprocessing.channels})
    names = description.class_names
    source = map_validation_source(recipe, names, place, trained_on=trained_on)
    check_held_out(
        source,
        lambda other: map_validation_source(other, names, place, trained_on=trained_on),
        recipe,
        opened.path,
    )
    transform = MapEvalTransform(preprocessing)
    loader = build_dense_loader(
        opened, recipe, source, place, transform=transform, collate=collate_maps
    )
    evaluation, worst = measure_maps(pixel_classifier, loader, source, place)
    return MeasuredMaps(
        evaluation=evaluation,
        worst=worst,
        pixel_classifier=pixel_classifier,
        source=source,
        description=description,
        parameters=count_parameters(description),
        skipped=loader.skipped_anywhere(place),
    )


def _build_pixel_classifier(
    opened: Weights | Artifact, recipe: Recipe, place: Place
) -> PixelClassifier:
    """Make a model ready to use. An artifact prepares and presents images in its own way."""
    if isinstance(opened, Artifact):
        return build_pixel_classifier_from_artifact(
            opened, device=recipe.device, precision=recipe.precision
        )
    model = restore(opened)
    assert isinstance(model, Segmentor)
    recipe = recipe.model_copy(update={"in_channels": model.encoder.in_channels})
    return build_pixel_classifier(
        lay_out(model, place.device).eval(),
        build_preprocessing(recipe),
        class_names=opened.description.class_names,
        device=place.device,
        dtype=choose_precision(recipe.evaluation_precision, place.device),
        windows=Windows.of(recipe),
    )


def measure_maps(
    pixel_classifier: PixelClassifier,
    batches: Iterable[Batch],
    source: AnnotatedSource,
    place: Place,
) -> tuple[SegmentationEvaluation, list[ImageScore]]:
    """Compare the predictions of a pixel classifier with the label maps.

    Args:
        pixel_classifier: Finds the classes.
        batches: The batches of this rank, each of one image that `MapEvalTransform` prepared.
        source: The images.
        place: This rank.

    Returns:
        The figures and the worst images, over all ranks.

    Raises:
        DataError: No pixel has a class.
    """
    classes = len(source.class_names)
    total = torch.zeros(classes, classes, dtype=torch.int64)
    scores: list[ImageScore] = []
    images = 0
    how = pixel_classifier.preprocessing
    needs_whole = tuple(pixel_classifier.windows.scales) != (1.0,)
    for batch in batches:
        index, targets = int(batch.indices[0]), batch.targets[0].clone()
        found = (
            pixel_classifier(source.pixels(index, how.channels, how.value_range))
            if needs_whole
            else pixel_classifier.classify_prepared(batch.pixels[0], tuple(targets.shape))
        )
        counts = count_pixels(targets, found, classes)
        total += counts
        images += 1
        if pixels := int(counts.sum()):
            scores.append(ImageScore(int(counts.trace()) / pixels, index))
    scores = heapq.nsmallest(WORST, scores)
    everyone = [each for part in place.gather(scores) for each in part]
    images = int(place.sum_numbers(images)[0])
    evaluation = summarise(place.sum(total), images, tuple(source.class_names))
    return evaluation, heapq.nsmallest(WORST, everyone)
