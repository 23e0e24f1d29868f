"""Evaluate a detector on images with objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convnextv2.console import say
from convnextv2.data.batch import Batch
from convnextv2.data.build_transforms import build_preprocessing
from convnextv2.data.dense.object_sources import validation_objects
from convnextv2.data.dense.objects import Objects, objects_of
from convnextv2.data.dense.objects_geometry import ObjectEvalTransform, collate_objects
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.deploy.artifact import Artifact
from convnextv2.device import choose_precision
from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.evaluation.detection import DetectionEvaluation, FoundObjects, evaluate_objects
from convnextv2.inference.dense import lay_out
from convnextv2.inference.detector import ObjectFinder
from convnextv2.inference.detector_artifact import build_finder_from_artifact
from convnextv2.model.detector import Detector
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.dense.measure import build_dense_loader
from convnextv2.tasks.evaluated import Evaluated
from convnextv2.tasks.supervised.own_data import check_held_out, has_own_data
from convnextv2.weights.build import count_parameters
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore

SHOWN_FROM = 0.5
"""The minimum score of the detections that a report shows, and counts as right or wrong."""
_MATCHED_FROM = 0.5
"""The minimum IoU at which a detection matches an object in a report."""
_LEAST_AREA = 1e-12
"""Takes the place of an area of 0 in divisions."""


@dataclass(frozen=True)
class ObjectResults:
    """The detections in all images, and the figures of their evaluation.

    Attributes:
        evaluation: The figures, over all ranks.
        found: The detections in each image, over all ranks, in the order of the images.
    """

    evaluation: DetectionEvaluation
    found: list[FoundObjects]


@dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredObjects(Evaluated):
    """An evaluation, with the images and the network that it belongs to.

    Attributes:
        evaluation: The figures, over all ranks.
        found: The detections in each image.
    """

    evaluation: DetectionEvaluation
    found: list[FoundObjects]
    source: AnnotatedSource


def evaluate_detector(opened: Weights | Artifact, recipe: Recipe, place: Place) -> MeasuredObjects:
    """Evaluate a detector on the recipe's validation images.

    Every image is counted exactly once over all ranks.

    Args:
        opened: The model, which is a detector.
        recipe: Names the images, and says how they are prepared.
        place: This rank.

    Raises:
        DataError: The annotations cannot be used, or have other classes.
    """
    for line in opened.lines():
        say(line)
    finder, description = _build_finder(opened, recipe, place), opened.description
    recipe = recipe.model_copy(update={"in_channels": finder.transform.preprocessing.channels})
    trained_on = has_own_data(opened.path, recipe)
    names = description.class_names
    source = validation_objects(recipe, names, trained_on=trained_on)
    check_held_out(
        source,
        lambda other: validation_objects(other, names, trained_on=trained_on),
        recipe,
        opened.path,
    )
    if finder.has_masks and not objects_of(source).has_masks:
        say(
            f"{opened.path}: its masks are not measured, since the objects of these images have "
            "none."
        )
    loader = build_dense_loader(
        opened, recipe, source, place, transform=finder.transform, collate=collate_objects
    )
    results = measure_objects(finder, loader, source, place)
    return MeasuredObjects(
        evaluation=results.evaluation,
        found=results.found,
        source=source,
        description=description,
        parameters=count_parameters(description),
        skipped=loader.skipped_anywhere(place),
    )


def _build_finder(opened: Weights | Artifact, recipe: Recipe, place: Place) -> ObjectFinder:
    """Build the `ObjectFinder` of a model. An artifact prepares images in its own way."""
    if isinstance(opened, Artifact):
        return build_finder_from_artifact(opened, device=recipe.device, precision=recipe.precision)
    model = restore(opened)
    assert isinstance(model, Detector)
    recipe = recipe.model_copy(update={"in_channels": model.encoder.in_channels})
    return ObjectFinder(
        lay_out(model, place.device),
        ObjectEvalTransform(build_preprocessing(recipe)),
        opened.description.class_names,
        place.device,
        choose_precision(recipe.evaluation_precision, place.device),
    )


def measure_objects(
    finder: ObjectFinder, batches: Iterable[Batch], source: AnnotatedSource, place: Place
) -> ObjectResults:
    """Compare the detections of a detector with the annotated objects.

    Args:
        finder: Finds the objects.
        batches: The batches of this rank, each of one image that `ObjectEvalTransform` prepared.
        source: The images.
        place: This rank.

    Returns:
        The figures and the detections, over all ranks.

    Raises:
        DataError: No image could be read.
    """
    found = []
    for batch in batches:
        height, width = batch.targets[0]
        found.append(finder(batch.pixels[0], (int(height), int(width)), int(batch.indices[0])))
    everything = [each for part in place.gather(found) for each in part]
    everything.sort(key=lambda each: each.index)
    if not everything:
        raise DataError("None of the validation images can be read, so nothing can be measured.")
    table = objects_of(source)
    evaluation = evaluate_objects(
        table,
        everything,
        num_classes=len(source.class_names),
        has_masks=finder.has_masks and table.has_masks,
        max_objects=max(100, finder.model.roi_heads.detections_per_img),
    )
    return ObjectResults(evaluation, everything)


@dataclass(frozen=True, eq=False)
class Matches:
    """The matches between the detections in one image and the objects in it.

    Attributes:
        shown: int64 (m,), the rows of the detections whose score is at least `SHOWN_FROM`.
        is_right: bool (m,), whether each of these is an object of its class.
        missed: int64, the rows of the objects that were not found.
    """

    shown: NDArray[np.int64]
    is_right: NDArray[np.bool_]
    missed: NDArray[np.int64]

    @property
    def mistakes(self) -> int:
        """The number of wrong boxes and of missed objects."""
        return int((~self.is_right).sum()) + len(self.missed)


def match_objects(objects: Objects, found: FoundObjects) -> Matches:
    """Match the detections in an image with its objects by their boxes, the best first.

    A detection in the region of a crowd is neither right nor wrong, and is not shown.
    """
    shown = np.flatnonzero(found.scores >= SHOWN_FROM)
    free = ~objects.crowd
    kept, right = [], []
    for row in shown.tolist():
        box = found.boxes[row]
        same = objects.labels == found.labels[row]
        overlaps = np.where(same & free, box_iou(box, objects.boxes), 0.0)
        best = int(overlaps.argmax()) if len(overlaps) else -1
        if best >= 0 and overlaps[best] >= _MATCHED_FROM:
            free[best] = False
        elif (same & objects.crowd & (_inside(box, objects.boxes) >= _MATCHED_FROM)).any():
            continue
        else:
            best = -1
        kept.append(row)
        right.append(best >= 0)
    return Matches(
        np.array(kept, np.int64), np.array(right, np.bool_), np.flatnonzero(free & ~objects.crowd)
    )


def _common_area(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the area that each of some boxes has in common with one box."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    area: NDArray[np.float64] = np.prod(np.clip(high - low, 0, None), axis=1)
    return area


def box_iou(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the IoU of a box with each of some boxes.

    Args:
        box: float64 (4,): x0, y0, x1 and y1.
        boxes: float64 (N, 4).

    Returns:
        float64 (N,); 0 for two boxes without an area.
    """
    common = _common_area(box, boxes)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    iou: NDArray[np.float64] = common / np.maximum(areas - common, _LEAST_AREA)
    return iou


def _inside(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the share of a box that lies in each of some boxes."""
    area = max(float(np.prod(box[2:] - box[:2])), _LEAST_AREA)
    share: NDArray[np.float64] = _common_area(box, boxes) / area
    return share
