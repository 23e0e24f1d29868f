"""An embedder: images to embeddings, from a run, weights of any format, or an artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.data.transforms import EvalTransform, normaliser
from convnextv2.deploy.artifact import Artifact
from convnextv2.deploy.graph import Graph
from convnextv2.device import autocast, choose_device, choose_precision
from convnextv2.errors import ArtifactError
from convnextv2.inference.opening import open_model
from convnextv2.inference.scorer import run_artifact
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.detector import Detector
from convnextv2.model.fcmae import FCMAE
from convnextv2.model.upernet import Segmentor
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore

Array = NDArray[np.float32]

NORMED = "pooled, after the final norm"
PLAIN = "pooled; the weights have no final norm"


@dataclass(frozen=True)
class Embedder:
    """Turns pixels into embeddings.

    Attributes:
        run: Turns pixels, uint8 (N, C, H, W), into embeddings, float32 (N, D).
        transform: How its images are prepared.
        about: Where the weights come from, for the metadata: path, sha256, model, features,
            engine, preprocessing, licence and provenance; and the kind of weights that are not an
            artifact.
        notes: Messages about the model, above all its licence.
    """

    run: Callable[[Tensor], Array]
    transform: EvalTransform
    about: Mapping[str, Any]
    notes: list[str]


def open_embedder(
    source: str | Path, *, device: str | torch.device = "auto", precision: str = "auto"
) -> Embedder:
    """Open an embedder.

    Args:
        source: A run folder, checkpoint, weights file or artifact. FCMAE gives its encoder.
        device: Where PyTorch computes. An artifact runs on the CPU.
        precision: PyTorch's arithmetic. An artifact has its own.

    Raises:
        ConvNeXtV2Error: The source cannot be opened, or has no embeddings.
    """
    opened = open_model(source)
    if isinstance(opened, Artifact):
        return _from_artifact(opened, device, precision)
    return _from_weights(opened, device, precision)


def _from_weights(opened: Weights, device_name: str | torch.device, precision: str) -> Embedder:
    model, description = restore(opened), opened.description
    encoder = model.encoder if isinstance(model, FCMAE | Segmentor | Detector) else model
    assert isinstance(encoder, ConvNeXtV2)
    transform = EvalTransform(opened.preprocessing)
    device = choose_device(device_name)
    dtype = choose_precision(precision, device)
    encoder = encoder.to(device).eval()
    graph = None if encoder.norm is None else Graph(encoder, "features")
    normalise = normaliser(transform.preprocessing)

    def run(pixels: Tensor) -> Array:
        with torch.inference_mode(), autocast(device, dtype):
            images = normalise(pixels.to(device))
            found = graph(images)[0] if graph else encoder.encode(images).float().mean((1, 2))
            embeddings: Array = found.float().cpu().numpy()
        return embeddings

    origin = opened.origin
    about = {
        "path": str(opened.path),
        "sha256": origin.sha256,
        "kind": description.kind,
        "model": description.model,
        "features": NORMED if graph else PLAIN,
        "engine": f"PyTorch on {device}, {str(dtype).removeprefix('torch.')}",
        "preprocessing": transform.preprocessing.to_json(),
        "licence": origin.notice,
        "provenance": opened.provenance(),
    }
    notes = opened.lines()
    if graph is None:
        notes.append(f"{opened.path}: has no final norm, so the embeddings are plain means.")
    return Embedder(run, transform, about, notes)


def _from_artifact(artifact: Artifact, device: str | torch.device, precision: str) -> Embedder:
    card = artifact.card
    if "embedding" not in card.outputs:
        raise ArtifactError(
            f"{artifact.path}: returns {', '.join(card.outputs)}, but no embedding. Export it with "
            "--outputs features or classifier, or give the run itself."
        )
    index = card.outputs.index("embedding")
    compute = run_artifact(artifact, device, precision)

    def run(pixels: Tensor) -> Array:
        return np.asarray(compute(pixels)[index], np.float32)

    about = {
        "path": str(artifact.path),
        "sha256": artifact.sha256,
        "model": card.model,
        "features": NORMED,
        "engine": f"{card.format}, {card.precision}",
        "preprocessing": card.preprocessing,
        "licence": card.notice,
        "provenance": card.provenance,
    }
    return Embedder(run, artifact.transform, about, artifact.lines())
