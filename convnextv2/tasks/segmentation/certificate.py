"""The certificate of a segmentor's artifact: how it compares with the PyTorch model."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.transforms import normaliser
from convnextv2.deploy.artifact import Artifact
from convnextv2.deploy.certificate import TITLES, agreement, compare_speeds
from convnextv2.deploy.unusual_images import stress_images
from convnextv2.errors import ArtifactError, DataError
from convnextv2.evaluation.segmentation import count_pixels, summarise
from convnextv2.inference.pixel_classifier import PixelClassifier, Windows, build_pixel_classifier
from convnextv2.inference.pixel_classifier_artifact import (
    build_pixel_classifier_from_artifact,
    fixed_size,
    windows_of,
)
from convnextv2.model.upernet import Segmentor
from convnextv2.preprocessing import Preprocessing
from convnextv2.tasks.dense.evidence import SourceEvidence

LARGEST_DIFFERENCE = {"float32": 1e-4, "float16": 3e-2, "bfloat16": 1.5e-1}
"""The largest difference of a logit, in units of `agreement`'s scale if that is above 1."""

MIN_EQUAL = {"float32": 0.999, "float16": 0.98, "bfloat16": 0.97}
"""The share of the pixels of real images that must get the same class."""

MAX_MIOU_DIFFERENCE = 0.01
"""The largest difference between the mIoU of the artifact and that of the model."""


def certify_segmentor(
    model: Segmentor, artifact: Artifact, evidence: SourceEvidence, windows: Windows
) -> dict[str, Any]:
    """Compare an artifact with the model that it was made from.

    Args:
        model: The model in float32, in PyTorch, on the CPU.
        artifact: The artifact.
        evidence: What they are compared on.
        windows: How the run presents images.

    Returns:
        The certificate.

    Raises:
        ArtifactError: The artifact returns NaN or infinity, or differs by more than its precision
            explains.
        DataError: No image can be read.
    """
    how = Preprocessing.read(artifact.card.preprocessing)
    exported = build_pixel_classifier_from_artifact(artifact)
    reference = build_pixel_classifier(
        model,
        how,
        class_names=artifact.card.class_names,
        device=torch.device("cpu"),
        dtype=torch.float32,
        windows=windows_of(artifact),
    )
    certificate: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "output": artifact.card.outputs[0],
        "images_from": evidence.origin,
    }
    crops = _crops(evidence, exported, artifact)
    for group, pixels in (("real", crops), ("adversarial", stress_images(crops[:1]))):
        certificate[group] = _compare_logits(artifact, group, pixels, model)
    certificate |= _compare_classes(reference, exported, evidence, windows)
    certificate["speed"] = compare_speeds(
        lambda: _logits(model, how, crops[:1]),
        lambda: exported.classify_prepared(crops[0], (crops.shape[-2], crops.shape[-1])),
        1,
        evidence.seconds,
    )
    _check(certificate, artifact.card.precision)
    return certificate


def _crops(
    evidence: SourceEvidence, pixel_classifier: PixelClassifier, artifact: Artifact
) -> Tensor:
    """Return the middle of a few images, uint8 (N, C, H, W), in the size of the artifact."""
    how = pixel_classifier.preprocessing
    stride = artifact.description.total_stride
    height, width = fixed_size(artifact) or tuple(
        max(1, side // stride) * stride for side in how.image_size
    )
    crops = []
    for _, pixels in evidence.readable(how, most=8):
        prepared = pixel_classifier.prepare(pixels)
        top, left = (
            max(0, (side - kept) // 2)
            for side, kept in zip(prepared.shape[-2:], (height, width), strict=True)
        )
        cut = prepared[:, top : top + height, left : left + width]
        crop = torch.full((len(cut), height, width), 128, dtype=torch.uint8)
        crop[:, : cut.shape[1], : cut.shape[2]] = cut
        crops.append(crop)
    if not crops:
        raise DataError("No image that an artifact could be measured on can be read.")
    return torch.stack(crops)


def _logits(model: Segmentor, how: Preprocessing, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        found = model(normaliser(how)(pixels))
    assert isinstance(found, Tensor)
    return found


def _compare_logits(
    artifact: Artifact, group: str, pixels: Tensor, model: Segmentor
) -> dict[str, Any]:
    """Compare logits of images (N, C, H, W) of the artifact's size."""
    how = Preprocessing.read(artifact.card.preprocessing)
    run = artifact.open(torch.get_num_threads())
    parts = []
    for one in pixels.split(1):
        images = normaliser(how)(one).contiguous()
        [output] = run(images.numpy())
        parts.append((_logits(model, how, one), torch.from_numpy(np.asarray(output))))
    expected, found = (torch.cat(each).flatten(1) for each in zip(*parts, strict=True))
    if not found.isfinite().all():
        raise ArtifactError(
            f"precision = {artifact.card.precision}: on {TITLES[group]} inputs the artifact's "
            "logits hold NaN or infinity. Use float32."
        )
    return agreement(expected, found)


def _compare_classes(
    reference: PixelClassifier,
    exported: PixelClassifier,
    evidence: SourceEvidence,
    windows: Windows,
) -> dict[str, Any]:
    """Compare the classes of all pixels, and both mIoUs if there are label maps."""
    source, classes = evidence.source, len(exported.class_names)
    labelled = source if isinstance(source, AnnotatedSource) else None
    counts = [torch.zeros(classes, classes, dtype=torch.int64) for _ in range(2)]
    equal = pixels = images = 0
    for index, image in evidence.readable(exported.preprocessing):
        found = [pixel_classifier(image) for pixel_classifier in (reference, exported)]
        equal += int((found[0] == found[1]).sum())
        pixels += found[0].numel()
        images += 1
        if labelled is not None:
            targets = labelled.annotation(index)
            for count, each in zip(counts, found, strict=True):
                count += count_pixels(targets, each, classes)
    compared: dict[str, Any] = {"pixels": {"images": images, "equal": equal / max(1, pixels)}}
    if labelled is not None and int(counts[0].sum()):
        names = tuple(exported.class_names)
        pytorch, artifact = (summarise(each, images, names).miou for each in counts)
        compared["miou"] = {"images": images, "pytorch_miou": pytorch, "artifact_miou": artifact}
    if replace(windows, scales=tuple(windows.scales)) != exported.windows:
        compared["presented"] = "windows of a fixed size; the run sees whole images"
    return compared


def _check(certificate: dict[str, Any], precision: str) -> None:
    """Raise ArtifactError if the artifact is not as good as its precision allows."""
    for group in ("real", "adversarial"):
        found = certificate[group]
        bound = LARGEST_DIFFERENCE[precision] * max(1.0, found["scale"])
        if not found["max_difference"] <= bound:
            raise ArtifactError(
                f"precision = {precision}: on {TITLES[group]} inputs the artifact's logits differ "
                f"from the model's by {found['max_difference']:.2g}, more than {bound:.2g}. Use a "
                "finer precision."
            )
    equal = certificate["pixels"]["equal"]
    if equal < MIN_EQUAL[precision]:
        raise ArtifactError(
            f"precision = {precision}: the artifact agrees with the model on the class of "
            f"{equal:.2%} of the pixels (at least {MIN_EQUAL[precision]:.1%} required). Use a "
            "finer precision."
        )
    miou = certificate.get("miou")
    if miou and abs(miou["pytorch_miou"] - miou["artifact_miou"]) > MAX_MIOU_DIFFERENCE:
        raise ArtifactError(
            f"precision = {precision}: the artifact's mIoU is {miou['artifact_miou']:.2%}, the "
            f"model's {miou['pytorch_miou']:.2%}. Use a finer precision."
        )
