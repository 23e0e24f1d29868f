"""Scores of dense predictions, by code that is not this package's.

AP is that of pycocotools; the package itself uses another implementation. Classes of pixels are
counted by NumPy alone.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FREQUENT = 10
"""Images of the truth in which a class must occur to count as frequent."""


def objects(truth: Path, results: Sequence[dict[str, Any]], *, masks: bool) -> dict[str, float]:
    """Measure objects.

    Args:
        truth: The COCO file of the images.
        results: What was found, as COCO has results.
        masks: Whether masks are compared, and not boxes alone.

    Returns:
        `ap`, `ap50` and `ap75`, from 0 to 1: of masks if they are compared. Then `box_ap` is that
        of the boxes.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found: dict[str, float] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(truth))
        # pycocotools refuses a list without results.
        answers = known.loadRes(list(results)) if results else None
        for kind in ("bbox", "segm") if masks else ("bbox",):
            stats = [0.0] * 3
            if answers is not None:
                evaluation = COCOeval(known, answers, kind)
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
                stats = [float(each) for each in evaluation.stats[:3]]
            if kind == "bbox" and masks:
                found["box_ap"] = stats[0]
            else:
                found |= dict(zip(("ap", "ap50", "ap75"), stats, strict=True))
    return found


def pixels(
    pairs: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]], classes: int, ignored: int = 255
) -> dict[str, float]:
    """Measure the classes of pixels.

    Args:
        pairs: The true and the predicted classes (H, W) of each image.
        classes: The number of classes.
        ignored: The true value of pixels that do not count.

    Returns:
        `miou` over the classes that occur in the truth or are predicted, as MMSegmentation has it;
        `miou_present` over those that occur in the truth; `miou_frequent` over those that occur in
        at least ten images of it; `accuracy`, the share of right pixels. All are from 0 to 1.
    """
    counts = np.zeros((classes, classes), np.int64)
    images = np.zeros(classes, np.int64)
    for true, predicted in pairs:
        if true.shape != predicted.shape:
            raise ValueError(f"a prediction of {predicted.shape} pixels for {true.shape}")
        counted = true != ignored
        joint = true[counted].astype(np.int64) * classes + predicted[counted]
        counts += np.bincount(joint, minlength=classes**2).reshape(classes, classes)
        images[np.unique(true[counted])] += 1
    right, true_of, predicted_of = counts.diagonal(), counts.sum(1), counts.sum(0)
    union = true_of + predicted_of - right
    iou = right / np.maximum(union, 1)
    kinds = {"miou": union > 0, "miou_present": true_of > 0, "miou_frequent": images >= FREQUENT}
    means = {
        kind: float(iou[which].mean()) if which.any() else 0.0 for kind, which in kinds.items()
    }
    return {**means, "accuracy": float(right.sum() / max(1, counts.sum()))}


def read_map(path: Path) -> NDArray[np.uint8]:
    """Read the classes of pixels from a grey or palette image."""
    with Image.open(path) as opened:
        return np.asarray(opened, np.uint8)


def categories(folder: Path) -> list[int]:
    """Return the ids of the classes, in the order of the COCO file of the training images."""
    found = json.loads((folder / "instances_train.json").read_text())
    return [each["id"] for each in found["categories"]]
