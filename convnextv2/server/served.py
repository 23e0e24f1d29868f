"""One version of a model, as it is served."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from convnextv2.data.transforms import EvalTransform
from convnextv2.inference.reconstructor import Reconstructor
from convnextv2.inference.scorer import Scorer
from convnextv2.server.batcher import Batcher
from convnextv2.server.refusal import Refusal
from convnextv2.server.spec import Spec


@dataclass(eq=False)
class Served:
    """One version of a model. Exactly one of scorer (with its batcher) and reconstructor is there."""

    spec: Spec
    version: str
    fingerprint: tuple[tuple[int, ...], ...]
    scorer: Scorer | None
    reconstructor: Reconstructor | None
    batcher: Batcher | None = None
    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def classifier(self) -> Scorer:
        """Raises Refusal where it is none."""
        if self.scorer is None:
            raise Refusal(
                404,
                "not_a_classifier",
                f"Model {self.spec.name} is pre-trained only: it reconstructs, and has no classes.",
            )
        return self.scorer

    @property
    def batches(self) -> Batcher:
        """Raises Refusal where it is no classifier."""
        assert self.classifier and self.batcher
        return self.batcher

    @property
    def pretrained(self) -> Reconstructor:
        """Raises Refusal where it is none."""
        if self.reconstructor is None:
            raise Refusal(
                404,
                "not_pretrained",
                f"Model {self.spec.name} is a classifier, which cannot reconstruct.",
            )
        return self.reconstructor

    @property
    def transform(self) -> EvalTransform:
        """How its images are prepared."""
        return (self.scorer or self.pretrained).transform

    @property
    def sha256(self) -> str:
        """Of its weights or artifact."""
        return (self.scorer or self.pretrained).sha256

    @property
    def notes(self) -> list[str]:
        """What people should know of it, its licence above all."""
        return (self.scorer or self.pretrained).notes

    @property
    def is_alive(self) -> bool:
        """Whether its batcher, if it has one, is at work."""
        return self.batcher is None or self.batcher.is_alive

    @property
    def engine(self) -> str:
        """What computes."""
        return self.scorer.engine if self.scorer else "PyTorch on cpu, float32"
