"""Open a segmentor or a detector for the server."""

from __future__ import annotations

from convnextv2.deploy.artifact import Artifact
from convnextv2.server.detecting import ObjectModel
from convnextv2.server.segmenting import MapModel
from convnextv2.weights.opened import Weights

DenseModel = MapModel | ObjectModel

_BY_KIND: dict[str, type[DenseModel]] = {"segmentation": MapModel, "detection": ObjectModel}


def open_dense(
    opened: Weights | Artifact, *, device: str, precision: str, max_pixels: int
) -> DenseModel | None:
    """Open a segmentor or a detector.

    Args:
        opened: The weights or the artifact.
        device: The device on which PyTorch computes.
        precision: The precision in which PyTorch computes.
        max_pixels: The largest number of pixels of a mask or a map.

    Returns:
        The model; None if it is of another kind.

    Raises:
        ConvNeXtV2Error: It cannot be loaded.
    """
    kind = opened.description.kind
    if kind not in _BY_KIND:
        return None
    return _BY_KIND[kind](opened, device=device, precision=precision, max_pixels=max_pixels)
