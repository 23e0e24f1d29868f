"""A classifier that is ready to use, whatever it was opened from: a run, weights of any format, or an artifact."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.data.named import default_class_names
from convnextv2.data.transforms import BatchTransform, EvalTransform
from convnextv2.deploy.artifact import Artifact, is_artifact, open_artifact
from convnextv2.deploy.graph import Graph
from convnextv2.distributed import choose_device, choose_precision
from convnextv2.errors import ArtifactError, CheckpointError, DeviceError
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.run import find_weights, open_run_weights
from convnextv2.text import plain
from convnextv2.weights.describe import distinct
from convnextv2.weights.load import Weights, restore


@dataclass(frozen=True)
class Scores:
    """Of N images: probs float32 (N, classes), embedding float32 (N, D), explanation float32 (N, h, w), see `graph.OUTPUTS`."""

    probs: NDArray[np.float32]
    embedding: NDArray[np.float32]
    explanation: NDArray[np.float32]


class Scorer:
    """From pixels to scores. Threads may share it; it runs one batch at a time, on all of the threads that PyTorch has.

    name: what it was opened from. transform: how its images are prepared. class_names: distinct, one per column of probs. engine:
    what computes, in words. sha256: of the weights or the artifact. notes: what people should know of them. certificate: of an
    artifact."""

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
    ) -> None:
        self.name, self.transform, self.class_names = name, transform, class_names
        self.engine, self.sha256, self.notes, self.certificate = engine, sha256, notes, certificate
        self._run, self._temperature = run, logits_temperature
        self._lock = threading.Lock()

    def __call__(self, pixels: Tensor) -> Scores:
        """pixels: uint8 (N, C, H, W), as `transform` makes them."""
        with self._lock:
            first, embedding, explanation = self._run(pixels)
        if first.shape[-1] != len(self.class_names):
            raise ArtifactError(
                f"{self.name}: returns {first.shape[-1]} columns for {len(self.class_names)} class names."
            )
        if self._temperature is not None:
            first = softmax(first / self._temperature)
        return Scores(first, embedding, explanation)

    def logits(self, pixels: Tensor) -> Tensor:
        """What the softmax of which is the probabilities.

        Args:
            pixels: uint8 (N, C, H, W), as `transform` makes them.

        Returns:
            float32 (N, classes): logits divided by the temperature, or where the artifact returns probabilities, in which
            that has been done, their logarithms.
        """
        with self._lock:
            first = torch.from_numpy(self._run(pixels)[0])
        if self._temperature is None:
            return first.clamp_min(torch.finfo(first.dtype).tiny).log()
        return first / self._temperature


def open_scorer(
    source: str | Path, *, device: str = "auto", precision: str = "auto", average: bool = False
) -> Scorer:
    """A classifier from a run folder, checkpoint, weights file or artifact.

    device, precision: of PyTorch; an artifact has its own. Raises our errors where it is no classifier."""
    if is_artifact(source):
        return _of_artifact(open_artifact(source), device, precision)
    weights = find_weights(source)
    return _of_weights(open_run_weights(weights, average=average), weights, device, precision)


def _of_weights(opened: Weights, path: Path, device_name: str, precision: str) -> Scorer:
    model, description = restore(opened), opened.description
    if not isinstance(model, ConvNeXtV2) or model.head is None:
        raise CheckpointError(
            f"{path}: a pre-trained encoder without a classifier. Train one with: convnextv2 train --init {path}, or see "
            "convnextv2 reconstruct."
        )
    if not description.preprocessing:
        raise CheckpointError(
            f"{path}: does not say how its images are prepared. Write it with its preprocessing."
        )
    device = choose_device(device_name)
    dtype = choose_precision(precision, device)
    transform = EvalTransform.from_description(description.preprocessing)
    graph = Graph(model.to(device).eval(), "classifier")
    normalise = BatchTransform(transform.mean, transform.std).normalise

    def run(pixels: Tensor) -> list[NDArray[Any]]:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
        ):
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
        notes=opened.lines(),
        logits_temperature=1.0,
        certificate={},
    )


def _of_artifact(artifact: Artifact, device: str, precision: str) -> Scorer:
    card, transform = artifact.card, artifact.transform
    if card.kind != "classifier":
        raise ArtifactError(
            f"{artifact.path}: returns {', '.join(card.outputs)}, no classes. Export it with --outputs classifier."
        )
    if choose_device(device).type != "cpu" and device != "auto":
        raise DeviceError(
            f"device = {device}: artifacts run on the CPU here. Use device cpu, or give the run itself."
        )
    if precision not in ("auto", card.precision):
        raise DeviceError(
            f"precision = {precision}: {artifact.path} computes in {card.precision}. Leave precision out."
        )
    runner = artifact.open(torch.get_num_threads())
    normalise = BatchTransform(transform.mean, transform.std).normalise

    def run(pixels: Tensor) -> list[NDArray[Any]]:
        if card.input == "pixels":
            return runner(pixels.permute(0, 2, 3, 1).contiguous().numpy())
        return runner(normalise(pixels).contiguous().numpy())

    notes = [
        f"{artifact.path}: artifact, {card.format}, {card.precision}, sha256 {artifact.sha256[:16]}"
    ]
    return Scorer(
        str(artifact.path),
        run,
        transform=transform,
        class_names=distinct(
            card.class_names or default_class_names(card.shapes[card.outputs[0]][1] or 0)
        ),
        engine=f"{card.format}, {card.precision}",
        sha256=artifact.sha256,
        notes=[*map(plain, notes + [f"Licence: {card.notice}"] * bool(card.notice))],
        logits_temperature=card.temperature if card.input == "images" else None,
        certificate=artifact.certificate,
    )


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Of each row, in float32."""
    found: NDArray[np.float32] = torch.from_numpy(logits).softmax(-1).numpy()
    return found
