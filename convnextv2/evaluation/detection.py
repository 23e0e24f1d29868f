"""Average precision of detections, by COCO's evaluator (faster-coco-eval, the extra detection).

A figure that is not defined, such as the precision of a class without objects, is NaN.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.dense import rle
from convnextv2.data.dense.objects import Objects
from convnextv2.data.dense.rle import EXTRA, Rle
from convnextv2.errors import MissingPackageError
from convnextv2.evaluation.metrics import json_types
from convnextv2.text import counted

Kind = Literal["boxes", "masks"]


class ByIndex(Protocol):
    """The objects of images, by index."""

    def __getitem__(self, index: int, /) -> Objects:
        """Return the objects of an image."""


SIZES = ("small", "medium", "large")
"""COCO's sizes: below 32 x 32 px, below 96 x 96 px, and above, in the original image."""


@dataclass(frozen=True, eq=False)
class FoundObjects:
    """The objects that a detector found in one image.

    Attributes:
        index: The index of the image in its source.
        boxes: float64 (n, 4), x0, y0, x1, y1 in px of the original image, upright.
        scores: float64 (n,), the highest first.
        labels: int64 (n,).
        masks: One for each object; None if only boxes are found.
    """

    index: int
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    masks: tuple[Rle, ...] | None


@dataclass(frozen=True)
class Precision:
    """The average precision of boxes or of masks.

    Attributes:
        ap: The mean over classes and over the IoU thresholds 0.5, 0.55, ... 0.95.
        ap50: The mean over classes at IoU 0.5.
        ap75: At IoU 0.75.
        by_size: `ap` of the objects of each of `SIZES`.
        recall: The maximum recall with 100 objects per image, as the mean over classes and
            thresholds.
        by_class: float64 (K,), `ap` of each class.
        by_class50: float64 (K,), `ap50` of each class.
        curves: float64 (K, 101), the precision at recalls of 0, 0.01, ... 1 and IoU 0.5.
    """

    ap: float
    ap50: float
    ap75: float
    by_size: tuple[float, float, float]
    recall: float
    by_class: NDArray[np.float64]
    by_class50: NDArray[np.float64]
    curves: NDArray[np.float64]


@dataclass(frozen=True)
class DetectionEvaluation:
    """The figures of a detector.

    Attributes:
        images: The number of images.
        objects: int64 (K,), the number of objects of each class, without crowds.
        found: The number of objects found.
        boxes: The precision of the boxes.
        masks: The precision of the masks; None without masks.
    """

    images: int
    objects: NDArray[np.int64]
    found: int
    boxes: Precision
    masks: Precision | None

    @property
    def main(self) -> Precision:
        """The main precision: that of the masks, or of the boxes if there are no masks."""
        return self.masks or self.boxes

    def figures(self) -> dict[str, float]:
        """Return the main figures by name, for the log."""
        figures = {"ap": self.main.ap, "ap50": self.main.ap50, "ap75": self.main.ap75}
        if self.masks is not None:
            figures |= {"box_ap": self.boxes.ap, "box_ap50": self.boxes.ap50}
        return figures

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON types, with None for those that no object defines."""

        def figures_of(one: Precision) -> dict[str, Any]:
            return {
                "ap": one.ap,
                "ap50": one.ap50,
                "ap75": one.ap75,
                **{f"ap_{size}": value for size, value in zip(SIZES, one.by_size, strict=True)},
                "recall": one.recall,
                "by_class": one.by_class,
                "by_class50": one.by_class50,
            }

        found = {
            "images": self.images,
            "objects": self.objects,
            "found": self.found,
            **self.figures(),
            "boxes": figures_of(self.boxes),
            "masks": figures_of(self.masks) if self.masks is not None else None,
        }
        return {name: json_types(value) for name, value in found.items()}

    def table(self) -> str:
        """Return the figures as a table for the terminal."""
        rows = [("", "AP", "AP50", "AP75", *(f"AP {size}" for size in SIZES), "recall")]
        for name, one in (("boxes", self.boxes), ("masks", self.masks)):
            if one is not None:
                values = (one.ap, one.ap50, one.ap75, *one.by_size, one.recall)
                rows.append((name, *map(share_or_dash, values)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        head = (
            f"{counted(self.images, 'image(s)')} with "
            f"{counted(int(self.objects.sum()), 'object(s)')}; "
            f"{self.found:,} were found."
        )
        return "\n".join([head, *lines])


def evaluate_objects(
    truth: ByIndex,
    found: Sequence[FoundObjects],
    *,
    num_classes: int,
    has_masks: bool,
    max_objects: int = 100,
) -> DetectionEvaluation:
    """Compare found objects with the annotated ones.

    Args:
        truth: The annotated objects of each image, by index.
        found: The found objects. Images that are not among them do not count.
        num_classes: The number of classes.
        has_masks: Whether to compare masks too.
        max_objects: The number of objects per image that count, those with the highest scores.

    Raises:
        MissingPackageError: faster-coco-eval is not installed.
    """
    images = sorted(found, key=lambda each: each.index)
    labels = [truth[each.index].labels[~truth[each.index].crowd] for each in images]
    every = np.concatenate([np.empty(0, np.int64), *labels])
    kinds: list[Kind] = ["boxes", "masks"] if has_masks else ["boxes"]
    results = {
        kind: precision_of(
            coco_truth(truth, images, num_classes, kind),
            coco_found(images, kind),
            num_classes,
            kind,
            max_objects,
        )
        for kind in kinds
    }
    return DetectionEvaluation(
        len(images),
        np.bincount(every, minlength=num_classes),
        sum(len(each.scores) for each in images),
        results["boxes"],
        results.get("masks"),
    )


def coco_truth(
    truth: ByIndex, images: Sequence[FoundObjects], num_classes: int, kind: Kind
) -> dict[str, Any]:
    """Return the annotated objects in the form of COCO's JSON."""
    annotations: list[dict[str, Any]] = []
    for each in images:
        objects = truth[each.index]
        for i, (x0, y0, x1, y1) in enumerate(objects.boxes.tolist()):
            record = {
                "id": len(annotations) + 1,
                "image_id": each.index + 1,
                "category_id": int(objects.labels[i]) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": float(objects.areas[i]),
                "iscrowd": int(objects.crowd[i]),
            }
            if kind == "masks":
                record["segmentation"] = rle.to_json(mask_of(objects, i))
            annotations.append(record)
    return {
        "images": [
            {
                "id": each.index + 1,
                "height": truth[each.index].size[0],
                "width": truth[each.index].size[1],
            }
            for each in images
        ],
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": str(k)} for k in range(num_classes)],
    }


def mask_of(objects: Objects, i: int) -> Rle:
    """Return the mask of an object; the mask of a crowd without a region is its box."""
    region = objects.regions[i]
    if isinstance(region, Rle):
        return region
    if region is None:
        x0, y0, x1, y1 = objects.boxes[i].tolist()
        region = (np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]),)
    return rle.from_polygons(region, objects.size)


def coco_found(images: Sequence[FoundObjects], kind: Kind) -> list[dict[str, Any]]:
    """Return the found objects in the form that COCO's evaluator takes.

    Records with masks have no boxes, because the evaluator would use the areas of the boxes.
    """
    records = []
    for each in images:
        for i, (x0, y0, x1, y1) in enumerate(each.boxes.tolist()):
            record: dict[str, Any] = {
                "image_id": each.index + 1,
                "category_id": int(each.labels[i]) + 1,
                "score": float(each.scores[i]),
            }
            if kind == "boxes":
                record["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            else:
                assert each.masks is not None
                record["segmentation"] = rle.to_json(each.masks[i])
            records.append(record)
    return records


def precision_of(
    truth: dict[str, Any],
    found: list[dict[str, Any]],
    num_classes: int,
    kind: Kind,
    max_objects: int = 100,
) -> Precision:
    """Run COCO's evaluator.

    Args:
        truth: The annotated objects in the form of COCO's JSON; categories are numbered from 1.
        found: Records with image_id, category_id, score, and bbox or segmentation.
        num_classes: The number of classes.
        kind: Whether to compare boxes or masks.
        max_objects: See `evaluate_objects`.

    Raises:
        MissingPackageError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise MissingPackageError("faster-coco-eval", EXTRA) from None
    if not found:  # the evaluator does not accept an empty list
        return _precision_of_nothing(truth, num_classes)
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(truth)
        evaluator = COCOeval_faster(
            known, known.loadRes(found), "bbox" if kind == "boxes" else "segm"
        )
        evaluator.params.maxDets = [1, 10, max_objects]
        evaluator.evaluate()
        evaluator.accumulate()
    # The axes are thresholds, recalls (only of the precision), classes, areas and maxDets.
    precision = np.asarray(evaluator.eval["precision"])
    recall = np.asarray(evaluator.eval["recall"])
    of_all = precision[:, :, :, 0, -1]
    by_class, by_class50 = np.full((2, num_classes), np.nan)
    for k in range(num_classes):
        by_class[k], by_class50[k] = _mean(of_all[:, :, k]), _mean(of_all[0, :, k])
    curves = np.where(of_all[0] > -1, of_all[0], np.nan).T
    small, medium, large = (_mean(precision[:, :, :, area, -1]) for area in (1, 2, 3))
    return Precision(
        _mean(of_all),
        _mean(of_all[0]),
        _mean(of_all[5]),
        (small, medium, large),
        _mean(recall[:, :, 0, -1]),
        by_class,
        by_class50,
        curves,
    )


def _precision_of_nothing(truth: dict[str, Any], num_classes: int) -> Precision:
    """Return the precision if no objects were found: 0, or NaN without annotated objects."""
    counts = np.bincount(
        [each["category_id"] - 1 for each in truth["annotations"] if not each["iscrowd"]],
        minlength=num_classes,
    )
    by_class = np.where(counts > 0, 0.0, np.nan)
    mean = 0.0 if counts.any() else float("nan")
    curves = np.repeat(by_class[:, None], 101, axis=1)
    sizes = _sizes_that_occur(truth)
    return Precision(mean, mean, mean, sizes, mean, by_class, by_class.copy(), curves)


def _sizes_that_occur(truth: dict[str, Any]) -> tuple[float, float, float]:
    """Return 0 for each size of which there are objects, and NaN for the others."""
    areas = [each["area"] for each in truth["annotations"] if not each["iscrowd"]]
    bounds = (0, 32**2, 96**2, 1e10)
    small, medium, large = (
        0.0 if any(low <= area <= high for area in areas) else float("nan")
        for low, high in zip(bounds[:-1], bounds[1:], strict=True)
    )
    return small, medium, large


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean of the defined values. The evaluator writes -1 for undefined ones."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else float("nan")


def share_or_dash(value: float) -> str:
    """Return a share in percent, or a dash for NaN."""
    return "–" if np.isnan(value) else f"{value:.1%}"
