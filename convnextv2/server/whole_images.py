"""Code that the segmentor and the detector of the server share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from convnextv2.deploy.artifact import Artifact
from convnextv2.preprocessing import Preprocessing
from convnextv2.weights.opened import Weights


@dataclass(frozen=True, eq=False)
class WholeImages:
    """The preprocessing of images that are resized as a whole, and not cropped.

    Attributes:
        preprocessing: How images are prepared.
        prepare: Maps an image, uint8 (C, H, W), to the one that the network sees.
    """

    preprocessing: Preprocessing
    prepare: Callable[[Tensor], Tensor]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Prepare an image, uint8 (C, H, W)."""
        return self.prepare(pixels)


class Facts(NamedTuple):
    """Facts about a model that the server publishes.

    Attributes:
        sha256: The SHA-256 of the weights, or of the artifact's model.
        engine: The name of the engine that computes.
        certificate: The certificate of an artifact; empty for weights.
    """

    sha256: str
    engine: str
    certificate: Mapping[str, Any]


def facts_of(opened: Weights | Artifact, engine: str) -> Facts:
    """Return the facts about a model that the server publishes.

    Args:
        opened: The weights or the artifact.
        engine: The engine for weights. An artifact has its own engine.
    """
    if isinstance(opened, Artifact):
        own = f"{opened.card.format}, {opened.card.precision}"
        return Facts(opened.sha256, own, opened.certificate)
    return Facts(opened.origin.sha256, engine, {})
