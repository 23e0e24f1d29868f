"""One version of a model, as it is served."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from convnextv2.inference.opening import open_model
from convnextv2.inference.reconstructor import Reconstructor
from convnextv2.inference.scorer import Scorer, open_scorer
from convnextv2.server.batcher import Batcher
from convnextv2.server.decoders import Transform
from convnextv2.server.dense_model import DenseModel, open_dense
from convnextv2.server.detecting import ObjectModel
from convnextv2.server.refusal import Refusal
from convnextv2.server.segmenting import MapModel
from convnextv2.server.spec import Spec, fingerprint
from convnextv2.weights.opened import Weights


@dataclass(eq=False)
class Served:
    """One version of a model.

    Exactly one of scorer, reconstructor and dense is set. A scorer and a dense model have a batcher
    once they are warmed up.

    Attributes:
        spec: The model as the user named it.
        version: Its version.
        fingerprint: The state of its files when it was opened; see `spec.fingerprint`.
        scorer: A classifier.
        reconstructor: A pre-trained model.
        dense: A segmentor or a detector.
        batcher: Gathers images for the model.
        users: The number of requests that use it now.
        idle: Set when the last of them is answered.
    """

    spec: Spec
    version: str
    fingerprint: tuple[tuple[int, ...], ...]
    scorer: Scorer | None
    reconstructor: Reconstructor | None
    dense: DenseModel | None = None
    batcher: Batcher | None = None
    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def classifier(self) -> Scorer:
        """The scorer. Raises Refusal if this is not a classifier."""
        if self.dense is not None:
            raise Refusal(
                404,
                "not_a_classifier",
                f"Model {self.spec.name} is a {self.dense.noun}. Send images to {self.path}.",
            )
        if self.scorer is None:
            raise Refusal(
                404,
                "not_a_classifier",
                f"Model {self.spec.name} is only pre-trained: it reconstructs, and has no classes.",
            )
        return self.scorer

    @property
    def segmentor(self) -> MapModel:
        """The segmentor. Raises Refusal if this is something else."""
        if not isinstance(self.dense, MapModel):
            raise Refusal(
                404,
                "not_a_segmentor",
                f"Model {self.spec.name} does not classify pixels: it is a {self._noun}.",
            )
        return self.dense

    @property
    def detector(self) -> ObjectModel:
        """The detector. Raises Refusal if this is something else."""
        if not isinstance(self.dense, ObjectModel):
            raise Refusal(
                404,
                "not_a_detector",
                f"Model {self.spec.name} finds no objects: it is a {self._noun}.",
            )
        return self.dense

    @property
    def _noun(self) -> str:
        if self.dense is not None:
            return self.dense.noun
        return "classifier" if self.scorer is not None else "pre-trained model"

    @property
    def running_batcher(self) -> Batcher:
        """The batcher. Raises Refusal if this only reconstructs."""
        assert (self.dense or self.classifier) and self.batcher
        return self.batcher

    @property
    def pretrained(self) -> Reconstructor:
        """The reconstructor. Raises Refusal if this is a classifier."""
        if self.reconstructor is None:
            raise Refusal(
                404,
                "not_pretrained",
                f"Model {self.spec.name} is a {self._noun}, which cannot reconstruct.",
            )
        return self.reconstructor

    @property
    def path(self) -> str:
        """The path to which images are sent."""
        if self.dense is not None:
            verb = self.dense.path
        else:
            verb = "predict" if self.scorer is not None else "reconstruct"
        return f"/v1/models/{self.spec.name}/{verb}"

    @property
    def transform(self) -> Transform:
        """The preprocessing of its images."""
        return (self.scorer or self.dense or self.pretrained).transform

    @property
    def sha256(self) -> str:
        """The SHA-256 of its weights or artifact."""
        return (self.scorer or self.dense or self.pretrained).sha256

    @property
    def notes(self) -> list[str]:
        """Lines about it for the user, such as its licence."""
        return (self.scorer or self.dense or self.pretrained).notes

    @property
    def is_alive(self) -> bool:
        """True if its batcher is running, or if it has none."""
        return self.batcher is None or self.batcher.is_alive

    @property
    def engine(self) -> str:
        """The name of the engine that computes it."""
        answering = self.scorer or self.dense
        return answering.engine if answering else "PyTorch on cpu, float32"


def open_served(
    spec: Spec, version: str, *, device: str, precision: str, max_pixels: int
) -> Served:
    """Open a model without warming it up.

    Args:
        spec: The model as the user named it.
        version: Its version.
        device: The device of a classifier; see `open_scorer`.
        precision: The precision of a classifier; see `open_scorer`.
        max_pixels: The largest number of pixels of a mask or a map of classes.

    Returns:
        The model, without a batcher.

    Raises:
        ConvNeXtV2Error: The model cannot be opened.
    """
    mark = fingerprint(spec.source)
    opened = open_model(spec.source)
    if isinstance(opened, Weights) and opened.description.kind == "fcmae":
        return Served(spec, version, mark, None, Reconstructor(opened))
    dense = open_dense(opened, device=device, precision=precision, max_pixels=max_pixels)
    if dense is not None:
        return Served(spec, version, mark, None, None, dense)
    scorer = open_scorer(opened, device=device, precision=precision)
    return Served(spec, version, mark, scorer, None)
