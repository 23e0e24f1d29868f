"""A classifier that is ready to use, opened from a run, weights of any format, or an artifact."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.data.named_sets import default_class_names
from convnextv2.data.transforms import EvalTransform, normaliser
from convnextv2.deploy.artifact import Artifact
from convnextv2.deploy.graph import Graph, Outputs, has_classes
from convnextv2.device import autocast, choose_device, choose_precision
from convnextv2.errors import ArtifactError, CheckpointError, DeviceError, RecipeError
from convnextv2.evaluation.prior import meaning, use_prior
from convnextv2.evaluation.thresholds import DEFAULT
from convnextv2.evaluation.unknown import (
    Unknown,
    check_fits,
    features_of,
    load_unknown,
    path_beside,
)
from convnextv2.inference.opening import open_model
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.detector import Detector
from convnextv2.model.upernet import Segmentor
from convnextv2.recipe.prior import Prior
from convnextv2.weights.class_names import distinct
from convnextv2.weights.description import Description
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore


@dataclass(frozen=True)
class Scores:
    """The outputs of a classifier for N images; see `graph.OUTPUTS`.

    Attributes:
        probs: The probabilities, float32 (N, classes).
        embedding: The pooled and normalised features, float32 (N, D).
        explanation: The class activation maps, float32 (N, h, w).
        possible: The classes that cannot be excluded, bool (N, classes); None if that was not
            fitted.
        foreignness: How foreign the images are, float32 (N,), above 1 for a foreign one; None if
            that was not fitted.
    """

    probs: NDArray[np.float32]
    embedding: NDArray[np.float32]
    explanation: NDArray[np.float32]
    possible: NDArray[np.bool_] | None = None
    foreignness: NDArray[np.float32] | None = None

    def row(self, i: int) -> Scores:
        """Return the scores of one image, with N = 1."""
        part = slice(i, i + 1)
        return Scores(
            self.probs[part],
            self.embedding[part],
            self.explanation[part],
            None if self.possible is None else self.possible[part],
            None if self.foreignness is None else self.foreignness[part],
        )


class Scorer:
    """Turns pixels into scores.

    Threads may share it. It runs one batch at a time, on all of PyTorch's threads.

    Args:
        name: The path that it was opened from, for messages.
        run: Turns pixels, uint8 (N, C, H, W), into logits or probabilities, embedding and
            explanation.
        transform: The preprocessing of its images.
        class_names: A distinct name for each column of the probabilities.
        engine: The engine that computes, such as "PyTorch on cpu, float32".
        sha256: The SHA-256 of the weights or the artifact.
        notes: Messages about the model, above all its licence.
        logits_temperature: The number by which logits are divided before softmax or sigmoid; None
            if `run` returns probabilities.
        certificate: The certificate of an artifact; empty for other sources.
        thresholds: The lowest probability at which each class counts as present, if an image may
            have any number of labels; None if it has one class.
        unknown: Finds the classes that cannot be excluded, and images that are foreign; None if
            that was not fitted.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Tensor], list[NDArray[Any]]],
        *,
        transform: EvalTransform,
        class_names: list[str],
        engine: str,
        sha256: str,
        notes: list[str],
        logits_temperature: float | None,
        certificate: Mapping[str, Any],
        thresholds: Sequence[float] | None = None,
        unknown: Unknown | None = None,
    ) -> None:
        self.name, self.transform, self.class_names = name, transform, class_names
        self.engine, self.sha256, self.notes, self.certificate = engine, sha256, notes, certificate
        self.thresholds, self.unknown = thresholds, unknown
        self._run, self._temperature = run, logits_temperature
        self._lock = threading.Lock()

    @property
    def is_multi_label(self) -> bool:
        """True if the classifier gives an image any number of labels."""
        return self.thresholds is not None

    def __call__(self, pixels: Tensor) -> Scores:
        """Score images.

        Args:
            pixels: uint8 (N, C, H, W), as `transform` makes them.

        Raises:
            ArtifactError: The artifact has another number of classes than of class names.
        """
        with self._lock:
            first, embedding, explanation = self._run(pixels)
        if first.shape[-1] != len(self.class_names):
            raise ArtifactError(
                f"{self.name}: returns {first.shape[-1]} columns for {len(self.class_names)} class "
                "names."
            )
        if self._temperature is not None:
            divided = first / self._temperature
            first = sigmoid(divided) if self.is_multi_label else softmax(divided)
        if self.unknown is None:
            return Scores(first, embedding, explanation)
        return Scores(
            first,
            embedding,
            explanation,
            self.unknown.possible(first),
            self.unknown.foreignness(features_of(embedding, pixels)),
        )

    def logits(self, pixels: Tensor) -> Tensor:
        """Return logits whose softmax (or sigmoid, for several labels) gives the probabilities.

        Args:
            pixels: uint8 (N, C, H, W), as `transform` makes them.

        Returns:
            float32 (N, classes): the logits divided by the temperature. If the artifact returns
            probabilities, the temperature is already in them. The result is then their logarithm,
            or log(p / (1 - p)) for several labels.
        """
        with self._lock:
            first = torch.from_numpy(self._run(pixels)[0])
        if self._temperature is None and self.is_multi_label:
            return first.double().logit(eps=torch.finfo(first.dtype).tiny).float()
        if self._temperature is None:
            return first.clamp_min(torch.finfo(first.dtype).tiny).log()
        return first / self._temperature


def open_scorer(
    source: str | Path | Weights | Artifact,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    prior: Prior = "trained",
) -> Scorer:
    """Open a classifier.

    Args:
        source: A run folder, checkpoint, weights file or artifact, or one that is open already.
        device: Where PyTorch computes. An artifact runs on the CPU.
        precision: PyTorch's arithmetic. An artifact has its own.
        prior: The frequencies of the classes for which probabilities hold; see `prior_shift`. An
            artifact has its own.

    Returns:
        The scorer.

    Raises:
        ConvNeXtV2Error: The source cannot be opened, or is not a classifier.
    """
    opened = open_model(source)
    if isinstance(opened, Artifact):
        check_own_prior(opened, prior)
        return _from_artifact(opened, device, precision)
    return _from_weights(opened, device, precision, prior)


def check_own_prior(artifact: Artifact, prior: Prior) -> None:
    """Raise RecipeError if an artifact is asked for another prior than its own."""
    if prior != "trained":
        raise RecipeError(
            f"prior = {prior}: {artifact.path} keeps the prior that it was exported with. Leave "
            "prior out, or export the run again with it."
        )


def _from_weights(
    opened: Weights, device_name: str | torch.device, precision: str, prior: Prior
) -> Scorer:
    path = opened.path
    model, description = restore(opened), opened.description
    if isinstance(model, Segmentor | Detector):
        is_segmentor = isinstance(model, Segmentor)
        what, to = ("segmentor", "pixels") if is_segmentor else ("detector", "objects")
        raise CheckpointError(
            f"{path}: is a {what}, which classifies {to} and not images. See convnextv2 predict "
            "and validate."
        )
    if not isinstance(model, ConvNeXtV2) or model.head is None:
        raise CheckpointError(
            f"{path}: is a pre-trained encoder without a classifier. Train one with: convnextv2 "
            f"train --init {path}, or see convnextv2 reconstruct."
        )
    transform = EvalTransform(opened.preprocessing)
    description = use_prior(model, description, prior, str(path))
    device = choose_device(device_name)
    dtype = choose_precision(precision, device)
    thresholds = _thresholds(description.kind, description.thresholds, model.head.out_features)
    unknown, lines = _unknown_of(opened, model, prior)
    outputs: Outputs = "classifier" if thresholds is None else "multi_label"
    graph = Graph(model.to(device).eval(), outputs, thresholds=thresholds or ()).to(device)
    normalise = normaliser(transform.preprocessing)

    def run(pixels: Tensor) -> list[NDArray[Any]]:
        with torch.inference_mode(), autocast(device, dtype):
            return [output.float().cpu().numpy() for output in graph(normalise(pixels.to(device)))]

    return Scorer(
        str(path),
        run,
        transform=transform,
        class_names=distinct(
            description.class_names or default_class_names(model.head.out_features)
        ),
        engine=f"PyTorch on {device}, {str(dtype).removeprefix('torch.')}",
        sha256=opened.origin.sha256,
        notes=[
            *opened.lines(),
            *_without_thresholds(path, description),
            *([meaning(description.balance)] if prior != "trained" else []),
            *lines,
        ],
        logits_temperature=1.0,
        certificate={},
        thresholds=thresholds,
        unknown=unknown,
    )


def _unknown_of(
    opened: Weights, model: ConvNeXtV2, prior: Prior
) -> tuple[Unknown | None, list[str]]:
    """Read the fit that `validate --coverage` has written beside weights.

    Returns:
        The fit, or None; and a message if it belongs to other weights or to another prior.
    """
    path = path_beside(opened.path)
    if not path.is_file():
        return None, []
    unknown = load_unknown(path)
    if unknown.about.sha256 != opened.origin.sha256:
        return None, [f"{path}: was fitted for other weights, so it is not used."]
    if prior != "trained":
        return None, [f"{path}: was fitted for prior trained, so it is not used."]
    check_fits(unknown, model.dims[3], model.in_channels, path)
    return unknown, []


def _from_artifact(artifact: Artifact, device: str | torch.device, precision: str) -> Scorer:
    card, transform = artifact.card, artifact.transform
    if not has_classes(card.kind):
        raise ArtifactError(
            f"{artifact.path}: returns {', '.join(card.outputs)}, but no classes. Export it with "
            "--outputs classifier."
        )
    rows = card.shapes[card.outputs[0]][1] or 0
    return Scorer(
        str(artifact.path),
        run_artifact(artifact, device, precision),
        transform=transform,
        class_names=distinct(card.class_names or default_class_names(rows)),
        engine=f"{card.format}, {card.precision}",
        sha256=artifact.sha256,
        notes=artifact.lines(),
        logits_temperature=card.temperature if card.input == "images" else None,
        certificate=artifact.certificate,
        thresholds=_thresholds(card.kind, card.thresholds, rows),
        unknown=artifact.unknown(),
    )


def run_artifact(
    artifact: Artifact, device: str | torch.device, precision: str
) -> Callable[[Tensor], list[NDArray[Any]]]:
    """Make a function that runs an artifact on pixels.

    Args:
        artifact: The artifact.
        device: "auto", or a device that must be the CPU.
        precision: "auto", or a precision that must be the artifact's own.

    Returns:
        A function from pixels, uint8 (N, C, H, W), as the artifact's transform makes them, to its
        outputs.

    Raises:
        DeviceError: The artifact does not run on this device or in this precision.
    """
    card = artifact.card
    check_runs_here(artifact, device, precision)
    runner, how = artifact.open(torch.get_num_threads()), artifact.transform.preprocessing
    normalise = normaliser(how)

    def run(pixels: Tensor) -> list[NDArray[Any]]:
        if card.input == "pixels":
            return runner(pixels.permute(0, 2, 3, 1).contiguous().numpy())
        return runner(normalise(pixels).contiguous().numpy())

    return run


def check_runs_here(artifact: Artifact, device: str | torch.device, precision: str) -> None:
    """Raise DeviceError if an artifact does not run on a device or in a precision.

    Args:
        artifact: The artifact.
        device: "auto", or a device that must be the CPU.
        precision: "auto", or a precision that must be the artifact's own.
    """
    if choose_device(device).type != "cpu" and device != "auto":
        raise DeviceError(
            f"device = {device}: artifacts run on the CPU here. Use device cpu, or give the run "
            "itself."
        )
    if precision not in ("auto", artifact.card.precision):
        raise DeviceError(
            f"precision = {precision}: {artifact.path} computes in {artifact.card.precision}. "
            "Leave precision out."
        )


def _thresholds(kind: str, fitted: Sequence[float], rows: int) -> list[float] | None:
    """Return a threshold for each class if there may be several labels, else None."""
    return list(fitted or [DEFAULT] * rows) if kind == "multi_label" else None


def _without_thresholds(path: Path, description: Description) -> list[str]:
    """Return a line if the weights of several labels have no thresholds."""
    if description.kind != "multi_label" or description.thresholds:
        return []
    return [f"{path}: has no thresholds, so {DEFAULT} is used for every label."]


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Return the sigmoid of each value, in float32."""
    found: NDArray[np.float32] = torch.from_numpy(logits).sigmoid().numpy()
    return found


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Return the softmax of each row, in float32."""
    found: NDArray[np.float32] = torch.from_numpy(logits).softmax(-1).numpy()
    return found
