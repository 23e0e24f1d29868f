"""The certificate of a detector's artifact: how it compares with the PyTorch model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convnextv2.data.dense import rle
from convnextv2.data.dense.objects import objects_of
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.transforms import normaliser
from convnextv2.deploy.artifact import Artifact
from convnextv2.deploy.certificate import compare_speeds
from convnextv2.errors import ArtifactError, DataError
from convnextv2.evaluation.detection import FoundObjects, evaluate_objects
from convnextv2.inference.detector import ObjectFinder, padded
from convnextv2.inference.detector_artifact import build_finder_from_artifact
from convnextv2.model.detector import Detector
from convnextv2.tasks.dense.evidence import SourceEvidence
from convnextv2.tasks.detection.measure import box_iou

LARGEST_SHIFT_PX = 0.1
"""The largest shift of a side of a box, in pixels of the image."""

MAX_AP_DIFFERENCE = 0.001
"""The largest difference between the average precision of the artifact and of the model."""

MIN_FOUND = 0.99
"""The share of the objects that both must find. Two objects may always differ.

If two boxes or scores are nearly equal, rounding decides which one stays."""

_SAME_FROM = 0.9
"""The minimum IoU at which two boxes of a class count as the same object."""

Pair = tuple[FoundObjects, FoundObjects]


def certify_detector(
    finder: ObjectFinder, artifact: Artifact, evidence: SourceEvidence
) -> dict[str, Any]:
    """Compare an artifact with the model that it was made from.

    Args:
        finder: The model in float32, in PyTorch, on the CPU.
        artifact: The artifact.
        evidence: What they are compared on.

    Returns:
        The certificate.

    Raises:
        ArtifactError: The artifact finds other objects.
        DataError: No image can be read.
    """
    exported = build_finder_from_artifact(artifact)
    pairs, prepared = [], None
    for index, pixels in evidence.readable(finder.transform.preprocessing):
        sample = finder.transform(pixels)
        prepared = sample.pixels if prepared is None else prepared
        pairs.append((finder(*sample, index), exported(*sample, index)))
    if prepared is None:
        raise DataError("No image that an artifact could be measured on can be read.")
    certificate: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "output": "boxes",
        "images_from": evidence.origin,
        "objects": _compare_objects(pairs),
    }
    if isinstance(evidence.source, AnnotatedSource):
        certificate["ap"] = _precisions(pairs, evidence.source, finder)
    certificate["speed"] = _speeds(finder, exported, prepared, evidence.seconds)
    _check(certificate)
    return certificate


def _compare_objects(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Compare the objects that both models have found."""
    shift = score = 0.0
    mask: float | None = None
    matched = total = 0
    for reference, exported in pairs:
        total += max(len(reference.scores), len(exported.scores))
        for i, j in same_objects(reference, exported):
            matched += 1
            shift = max(shift, float(np.abs(reference.boxes[i] - exported.boxes[j]).max()))
            score = max(score, float(abs(reference.scores[i] - exported.scores[j])))
            if reference.masks is not None and exported.masks is not None:
                overlap = _overlap(reference.masks[i], exported.masks[j])
                mask = overlap if mask is None else min(mask, overlap)
    return {
        "images": len(pairs),
        "objects": total,
        "found_by_both": matched,
        "largest_shift_px": shift,
        "largest_score_difference": score,
        "least_mask_iou": mask,
    }


def same_objects(reference: FoundObjects, exported: FoundObjects) -> list[tuple[int, int]]:
    """Pair the objects that two detectors have found in an image.

    Args:
        reference: The objects that one of them has found.
        exported: The objects that the other one has found.

    Returns:
        Rows of both. Classes are equal, and boxes overlap almost completely.
    """
    pairs, free = [], np.ones(len(exported.scores), bool)
    for i, box in enumerate(reference.boxes):
        iou = box_iou(box, exported.boxes)
        iou[~free | (exported.labels != reference.labels[i])] = 0
        best = int(iou.argmax()) if len(iou) else -1
        if best >= 0 and iou[best] >= _SAME_FROM:
            free[best] = False
            pairs.append((i, best))
    return pairs


def _overlap(one: rle.Rle, other: rle.Rle) -> float:
    """Compute the IoU of two masks, which is 1 for two empty ones."""
    if one == other:
        return 1.0
    masks = rle.decode(one) > 0, rle.decode(other) > 0
    union = int((masks[0] | masks[1]).sum())
    return int((masks[0] & masks[1]).sum()) / union if union else 1.0


def _precisions(
    pairs: Sequence[Pair], source: AnnotatedSource, finder: ObjectFinder
) -> dict[str, Any]:
    """Compute the average precisions of both."""
    table = objects_of(source)
    pytorch, artifact = (
        evaluate_objects(
            table,
            found,
            num_classes=len(finder.class_names),
            has_masks=finder.has_masks and table.has_masks,
            max_objects=max(100, finder.model.roi_heads.detections_per_img),
        ).figures()
        for found in zip(*pairs, strict=True)
    )
    precisions: dict[str, Any] = {"images": len(pairs)}
    for name in pytorch:
        precisions |= {f"pytorch_{name}": pytorch[name], f"artifact_{name}": artifact[name]}
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in precisions.items()
    }


def _speeds(
    reference: ObjectFinder, exported: ObjectFinder, pixels: Tensor, seconds: float
) -> dict[str, Any]:
    """Measure the speeds of both networks on one image, without the pasting of masks."""
    how = reference.transform.preprocessing
    size = int(pixels.shape[-2]), int(pixels.shape[-1])
    images = padded(
        normaliser(how)(pixels[None]),
        reference.model.encoder.total_stride,
    )

    def run(model: Detector) -> None:
        with torch.inference_mode():
            model(images, [size])

    return compare_speeds(lambda: run(reference.model), lambda: run(exported.model), 1, seconds)


def _check(certificate: dict[str, Any]) -> None:
    """Raise ArtifactError if the artifact finds other objects than the model."""
    found = certificate["objects"]
    missed = found["objects"] - found["found_by_both"]
    if missed > max(2, (1 - MIN_FOUND) * found["objects"]):
        raise ArtifactError(
            f"the artifact and the model agree on {found['found_by_both']} of {found['objects']} "
            f"objects (at least {MIN_FOUND:.0%} required). Use another format."
        )
    if not found["largest_shift_px"] <= LARGEST_SHIFT_PX:
        raise ArtifactError(
            f"the artifact's boxes differ from the model's by {found['largest_shift_px']:.2g} px, "
            f"more than {LARGEST_SHIFT_PX:g}. Use another format."
        )
    ap = certificate.get("ap", {})
    if ap.get("pytorch_ap") is not None:
        difference = abs(ap["pytorch_ap"] - ap["artifact_ap"])
        if difference > MAX_AP_DIFFERENCE:
            raise ArtifactError(
                f"the artifact's AP is {ap['artifact_ap']:.4f}, the model's "
                f"{ap['pytorch_ap']:.4f}. Use another format."
            )
