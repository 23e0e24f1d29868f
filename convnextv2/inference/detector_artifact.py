"""A detector that runs an artifact."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convnextv2.data.dense.objects_geometry import ObjectEvalTransform
from convnextv2.deploy.artifact import Artifact
from convnextv2.deploy.formats.artifact_format import Runner
from convnextv2.errors import ArtifactError
from convnextv2.inference.detector import ObjectFinder
from convnextv2.inference.scorer import check_runs_here
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.detector import Detector
from convnextv2.model.objects import Found
from convnextv2.preprocessing import Preprocessing


class ExportedDetector(Detector):
    """A detector whose layers are run by an artifact, with the choices made by `Detector`.

    The artifact runs the dense layers. The choice of proposals, the cropping of regions and
    non-maximum suppression are the same code as in training. Threads may share it.

    Args:
        artifact: The artifact of a detector.

    Raises:
        ArtifactError: It finds no objects, or cannot be loaded.
    """

    def __init__(self, artifact: Artifact) -> None:
        card = artifact.card
        if card.detection is None:
            raise ArtifactError(
                f"{artifact.path}: finds no objects, since it is of kind {card.kind}. Export the "
                "run of a detector."
            )
        arguments = card.arguments | {"num_classes": None}
        try:
            with torch.device("meta"):  # no weights
                super().__init__(
                    ConvNeXtV2(**arguments), card.arguments["num_classes"], **card.detection.head
                )
            levels, classes = len(self.levels) + 1, len(card.class_names)  # the pooled one too
            if levels != card.detection.levels or self.num_classes != classes:
                raise ValueError(
                    f"it has {card.detection.levels} levels and {classes} classes, but its head "
                    f"{levels} and {self.num_classes}"
                )
        except (TypeError, RuntimeError, ValueError) as error:
            why = str(error).strip().splitlines()[0]
            raise ArtifactError(
                f"{artifact.path}: its description cannot be understood ({why}). Export the model "
                "again."
            ) from None
        self._described = (self.pyramid.encoder,)  # in a tuple, so that it is not a submodule
        del self.pyramid, self.fpn
        threads = torch.get_num_threads()
        self._trunk = artifact.open(threads)
        self._recalled = _Recalled()
        self.rpn.head = self._recalled
        heads = self.roi_heads
        heads.box_head = nn.Identity()
        shapes = card.shapes
        heads.box_predictor = _Head(
            artifact.open(threads, "boxes-"), [shapes["class_logits"], shapes["box_deltas"]]
        )
        if self.has_masks:
            heads.mask_head = nn.Identity()
            masks = _Head(artifact.open(threads, "masks-"), [shapes["mask_logits"]])
            heads.mask_predictor = nn.Sequential(masks, _First())
        self._lock = threading.Lock()
        self.eval()

    @property
    def encoder(self) -> ConvNeXtV2:
        """The encoder, which has no weights."""
        return self._described[0]

    def forward(self, *inputs: Any, **options: Any) -> dict[str, Tensor] | Found:
        """Find objects; see `Detector.forward`."""
        with self._lock:
            return super().forward(*inputs, **options)

    def features(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Run the artifact's first part, and keep the outputs of the anchors."""
        given = np.ascontiguousarray(images.float().cpu().numpy())
        outputs = [torch.from_numpy(np.asarray(each)) for each in self._trunk(given)]
        levels = len(outputs) // 3
        self._recalled.outputs = outputs[levels : 2 * levels], outputs[2 * levels :]
        return OrderedDict(zip([*self.levels, "pool"], outputs[:levels], strict=True))


class _Recalled(nn.Module):
    """Replaces the layers that score anchors, which are in the artifact's first part."""

    outputs: tuple[list[Tensor], list[Tensor]] = ([], [])

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return self.outputs


class _Head(nn.Module):
    """Runs a part of an artifact on regions that were cut out of the maps.

    Args:
        run: The part.
        shapes: The shapes of its outputs, whose first axis is open.
    """

    def __init__(self, run: Runner, shapes: Sequence[list[int | None]]) -> None:
        super().__init__()
        self._run, self._shapes = run, shapes

    def forward(self, regions: Tensor) -> tuple[Tensor, ...]:
        if not len(regions):  # engines differ in how they treat empty inputs
            return tuple(
                torch.zeros(0, *(int(side or 0) for side in shape[1:])) for shape in self._shapes
            )
        given = np.ascontiguousarray(regions.float().cpu().numpy())
        return tuple(torch.from_numpy(np.asarray(each)) for each in self._run(given))


class _First(nn.Module):
    """Takes the only output of a part."""

    def forward(self, outputs: tuple[Tensor, ...]) -> Tensor:
        return outputs[0]


def build_finder_from_artifact(
    artifact: Artifact, *, device: str | torch.device = "auto", precision: str = "auto"
) -> ObjectFinder:
    """Make an artifact of a detector ready to use.

    Args:
        artifact: The artifact.
        device: "auto", or a device that must be the CPU.
        precision: "auto", or a precision that must be the artifact's own.

    Raises:
        ArtifactError: It finds no objects, or cannot be loaded.
        DeviceError: It does not run there, or not in this precision.
    """
    check_runs_here(artifact, device, precision)
    return ObjectFinder(
        ExportedDetector(artifact),
        ObjectEvalTransform(Preprocessing.read(artifact.card.preprocessing)),
        list(artifact.card.class_names),
        torch.device("cpu"),
        torch.float32,
    )
