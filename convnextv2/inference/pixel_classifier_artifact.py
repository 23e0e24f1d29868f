"""A pixel classifier that runs an artifact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convnextv2.deploy.artifact import Artifact
from convnextv2.errors import ArtifactError
from convnextv2.inference.pixel_classifier import PixelClassifier, Windows
from convnextv2.inference.scorer import check_runs_here
from convnextv2.preprocessing import Preprocessing


def build_pixel_classifier_from_artifact(
    artifact: Artifact, *, device: str | torch.device = "auto", precision: str = "auto"
) -> PixelClassifier:
    """Make a pixel classifier of an artifact.

    An artifact of a fixed size sees overlapping windows of that size. Other artifacts see images in
    the same way as the run that they were made from.

    Args:
        artifact: The artifact.
        device: "auto", or a device that must be the CPU.
        precision: "auto", or a precision that must be the artifact's own.

    Raises:
        ArtifactError: It does not classify pixels, or cannot be loaded.
        DeviceError: It does not run there, or not in this precision.
    """
    card = artifact.card
    if card.segmentation is None:
        raise ArtifactError(
            f"{artifact.path}: does not classify pixels, since it is of kind {card.kind}. Export "
            "the run of a segmentor."
        )
    check_runs_here(artifact, device, precision)
    run = artifact.open(torch.get_num_threads())
    size = fixed_size(artifact)

    def logits(images: Tensor) -> Tensor:
        height, width = images.shape[-2], images.shape[-1]
        if size is not None:  # a window at the edge of a small image
            images = F.pad(images, (0, size[1] - width, 0, size[0] - height))
        [found] = run(np.ascontiguousarray(images.cpu().numpy()))
        scale = found.shape[-2] / images.shape[-2]
        kept = torch.from_numpy(found)[..., : round(height * scale), : round(width * scale)]
        return kept.float()

    return PixelClassifier(
        logits,
        Preprocessing.read(card.preprocessing),
        stride=artifact.description.total_stride,
        class_names=card.class_names,
        device=torch.device("cpu"),
        windows=windows_of(artifact),
    )


def windows_of(artifact: Artifact) -> Windows:
    """Return the views of an image that a segmentor's artifact is run on."""
    more = artifact.card.segmentation
    assert more is not None
    windows = Windows(more.slide, tuple(more.test_scales), more.test_flip)
    return windows if fixed_size(artifact) is None else replace(windows, slide=True)


def fixed_size(artifact: Artifact) -> tuple[int, int] | None:
    """Return the height and width of a segmentor's images; None for any multiples of the stride."""
    height, width = artifact.card.shapes["images"][2:]
    return None if height is None or width is None else (height, width)
