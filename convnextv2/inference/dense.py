"""Segmentors and detectors that are ready to use, opened from weights or artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch

from convnextv2.data.dense.objects_geometry import ObjectEvalTransform
from convnextv2.data.named_sets import default_class_names
from convnextv2.deploy.artifact import Artifact
from convnextv2.device import choose_device, choose_precision
from convnextv2.errors import CheckpointError
from convnextv2.inference.detector import ObjectFinder
from convnextv2.inference.detector_artifact import build_finder_from_artifact
from convnextv2.inference.opening import open_model
from convnextv2.inference.pixel_classifier import (
    PixelClassifier,
    Windows,
    build_pixel_classifier,
    own_recipe,
)
from convnextv2.inference.pixel_classifier_artifact import build_pixel_classifier_from_artifact
from convnextv2.model.detector import Detector
from convnextv2.model.upernet import Segmentor
from convnextv2.weights.class_names import distinct
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore

Network = TypeVar("Network", Segmentor, Detector)


def lay_out(model: Network, device: torch.device) -> Network:
    """Move a network to a device to predict with it, in the layout that is fastest there.

    On a CPU, the convolutions of the heads are faster with weights in channels-last layout: with
    all masks of an image of 320 px, a detector is 1.3 times as fast. Training keeps the ordinary
    layout, in which its steps are faster.

    Args:
        model: The network.
        device: The device.
    """
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if device.type == "cpu" else model


def open_pixel_classifier(
    source: str | Path | Weights | Artifact,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> PixelClassifier:
    """Open a segmentor.

    Args:
        source: A run folder, checkpoint, weights file or artifact, or one that is open already. If
            weights belong to a run, images are presented as the run's recipe says.
        device: Where PyTorch computes. An artifact runs on the CPU.
        precision: PyTorch's arithmetic. An artifact has its own.

    Raises:
        ConvNeXtV2Error: The source cannot be opened, or is not a segmentor.
    """
    opened = open_model(source)
    if isinstance(opened, Artifact):
        return build_pixel_classifier_from_artifact(opened, device=device, precision=precision)
    model, description = restore(opened), opened.description
    if not isinstance(model, Segmentor):
        raise CheckpointError(
            f"{opened.path}: does not classify pixels. Train a segmentor with: convnextv2 train "
            "--task segmentation."
        )
    preprocessing = opened.preprocessing
    chosen, own = choose_device(device), own_recipe(opened.path)
    return build_pixel_classifier(
        lay_out(model, chosen).eval(),
        preprocessing,
        class_names=distinct(description.class_names or default_class_names(model.num_classes)),
        device=chosen,
        dtype=choose_precision(precision, chosen),
        windows=None if own is None else Windows.of(own),
    )


def open_finder(
    source: str | Path | Weights | Artifact,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> ObjectFinder:
    """Open a detector.

    Args:
        source: A run folder, checkpoint, weights file or artifact, or one that is open already.
        device: Where PyTorch computes. An artifact runs on the CPU.
        precision: PyTorch's arithmetic. An artifact has its own.

    Raises:
        ConvNeXtV2Error: The source cannot be opened, or is not a detector.
    """
    opened = open_model(source)
    if isinstance(opened, Artifact):
        return build_finder_from_artifact(opened, device=device, precision=precision)
    model, description = restore(opened), opened.description
    if not isinstance(model, Detector):
        raise CheckpointError(
            f"{opened.path}: is {description.noun}, which finds no objects. Train a detector "
            "with: convnextv2 train --task detection."
        )
    chosen = choose_device(device)
    return ObjectFinder(
        lay_out(model, chosen),
        ObjectEvalTransform(opened.preprocessing),
        list(description.class_names),
        chosen,
        choose_precision(precision, chosen),
    )
