"""Export a segmentor or a detector to an artifact that is measured before anyone gets it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.deploy.artifact import PART_INPUTS, Artifact, Card, Part, save_card
from convnextv2.deploy.dense_card import DetectorCard, SegmentorCard
from convnextv2.deploy.dense_graphs import BoxHead, MaskHead, SegmentorGraph, Trunk
from convnextv2.deploy.export import put, versions
from convnextv2.deploy.formats import check_format, read_files
from convnextv2.deploy.formats.onnx import onnx_needs
from convnextv2.deploy.graph import Exportable
from convnextv2.errors import DeviceError
from convnextv2.files import sha256_of
from convnextv2.lock import building
from convnextv2.model.detector import Detector
from convnextv2.model.upernet import Segmentor

_TRACED_STRIDES = (5, 7)
"""The size of the image that a part for any size is traced with, in total strides.

Sides that become 1 or equal to each other on a way would be taken for constants."""


@dataclass(frozen=True, eq=False)
class ModelPart:
    """A part of a model, as it is written.

    Attributes:
        graph: Its graph.
        example: An input of the graph.
        prefix: What its files begin with.
        dynamic_size: Whether it takes images of any multiple of the total stride.
    """

    graph: Exportable
    example: Tensor
    prefix: Part = ""
    dynamic_size: bool = False


@dataclass(frozen=True)
class About:
    """What an artifact says of the model that it is made from.

    Attributes:
        preprocessing: How images are prepared.
        class_names: The names of the classes.
        name: The name of the model's size.
        provenance: Where the weights came from.
        notice: The licence of the weights.
    """

    preprocessing: Mapping[str, Any]
    class_names: list[str]
    name: str
    provenance: Mapping[str, Any]
    notice: str


def export_segmentor(
    model: Segmentor,
    format: str,
    precision: str,
    size: tuple[int, int] | None,
    folder: Path,
    about: About,
    more: SegmentorCard,
    certify: Callable[[Artifact], Mapping[str, Any]],
    *,
    overwrite: bool = True,
) -> Artifact:
    """Write an artifact of a segmentor; see `export_parts`.

    Args:
        model: The network in float32. It is not changed.
        format: A key of `formats.ARTIFACT_FORMATS`.
        precision: One of the format's precisions.
        size: Height and width of its images; None for any multiples of the total stride.
        folder: The folder.
        about: What the artifact says of the model.
        more: What it says beyond that.
        certify: Measures the artifact.
        overwrite: Whether an artifact that is there is replaced.
    """
    stride = model.encoder.total_stride
    height, width = size or (stride * _TRACED_STRIDES[0], stride * _TRACED_STRIDES[1])
    example = torch.zeros(1, model.encoder.in_channels, height, width)
    part = ModelPart(SegmentorGraph(model, size), example, dynamic_size=size is None)
    return export_parts(
        [part],
        format,
        precision,
        folder,
        about,
        dict(model.arguments),
        certify,
        segmentation=more,
        overwrite=overwrite,
    )


def export_detector(
    model: Detector,
    format: str,
    precision: str,
    folder: Path,
    about: About,
    more: DetectorCard,
    certify: Callable[[Artifact], Mapping[str, Any]],
    *,
    overwrite: bool = True,
) -> Artifact:
    """Write an artifact of a detector, which takes images of any size; see `export_parts`.

    Args:
        model: The network in float32. It is not changed.
        format: A key of `formats.ARTIFACT_FORMATS`.
        precision: "float32".
        folder: The folder.
        about: What the artifact says of the model.
        more: What it says beyond that.
        certify: Measures the artifact.
        overwrite: Whether an artifact that is there is replaced.
    """
    if precision != "float32":
        raise DeviceError(
            f"precision = {precision}: boxes must agree to a tenth of a pixel, and proposals that "
            "change places in coarser arithmetic do not. Use float32."
        )
    stride = model.encoder.total_stride
    sides = [stride * count for count in _TRACED_STRIDES]
    channels = model.fpn.layer_blocks[0][0].out_channels
    heads = model.roi_heads
    parts = [
        ModelPart(
            Trunk(model), torch.zeros(1, model.encoder.in_channels, *sides), dynamic_size=True
        ),
        ModelPart(
            BoxHead(model), torch.zeros(1, channels, *heads.box_roi_pool.output_size), "boxes-"
        ),
    ]
    if model.has_masks:
        pooled = torch.zeros(1, channels, *heads.mask_roi_pool.output_size)
        parts.append(ModelPart(MaskHead(model), pooled, "masks-"))
    arguments = dict(model.arguments)
    return export_parts(
        parts,
        format,
        precision,
        folder,
        about,
        arguments,
        certify,
        detection=more,
        overwrite=overwrite,
    )


def export_parts(
    parts: Sequence[ModelPart],
    format: str,
    precision: str,
    folder: Path,
    about: About,
    arguments: dict[str, Any],
    certify: Callable[[Artifact], Mapping[str, Any]],
    *,
    segmentation: SegmentorCard | None = None,
    detection: DetectorCard | None = None,
    overwrite: bool = True,
) -> Artifact:
    """Write an artifact into a folder that appears only once the artifact is found good.

    Args:
        parts: The parts of the model. The first one takes images.
        format: A key of `formats.ARTIFACT_FORMATS`.
        precision: One of the format's precisions.
        folder: The folder.
        about: What the artifact says of the model.
        arguments: The arguments of its encoder, with the number of classes.
        certify: Measures the artifact, and raises ArtifactError if it is not good enough.
        segmentation: More about a segmentor.
        detection: More about a detector.
        overwrite: Whether an artifact that is there is replaced.

    Returns:
        The artifact.

    Raises:
        RunError: Another process is writing the folder, or wrote it meanwhile without `overwrite`.
        ArtifactError: It is not as good as its precision allows.
        DeviceError: The format cannot do it on this machine.
        MissingPackageError: A package is not installed.
    """
    chosen = check_format(format, precision, to_write=True)
    with building(folder) as temporary:
        made = temporary / "artifact"
        made.mkdir()
        shapes: dict[str, list[int | None]] = {}
        for part in parts:
            alone = temporary / "part"
            alone.mkdir()
            file = alone / chosen.file
            chosen.write(part.graph, part.example, file, precision, part.dynamic_size)
            runner = chosen.open(read_files(alone), precision, torch.get_num_threads())
            shapes |= _shapes(part, runner(part.example.numpy()))
            for written in sorted(alone.iterdir()):
                written.rename(made / f"{part.prefix}{written.name}")
            alone.rmdir()
        main = made / chosen.file
        card = Card(
            format=format,  # type: ignore[arg-type]
            precision=precision,  # type: ignore[arg-type]
            kind="segmentation" if segmentation is not None else "detection",
            files={file.name: sha256_of(file) for file in sorted(made.iterdir())},
            model=about.name,
            arguments=arguments,
            input="images",
            outputs=list(parts[0].graph.output_names),
            shapes=shapes,
            preprocessing=dict(about.preprocessing),
            class_names=about.class_names,
            temperature=1.0,
            provenance=dict(about.provenance),
            notice=about.notice,
            versions=versions(format),
            requires=onnx_needs(main.read_bytes()) if format == "onnx" else {},
            segmentation=segmentation,
            detection=detection,
        )
        certificate = certify(save_card(made, card, {}))
        save_card(made, card, certificate)
        put(made, folder, overwrite=overwrite)
    return Artifact(folder, card, certificate)


def _shapes(part: ModelPart, outputs: Sequence[Any]) -> dict[str, list[int | None]]:
    """Return the shapes of a part's input and outputs, with None for sizes that are open."""
    graph = part.graph
    values = {PART_INPUTS.get(part.prefix, graph.input): part.example}
    values |= dict(zip(graph.output_names, outputs, strict=True))
    shapes: dict[str, list[int | None]] = {}
    for name, value in values.items():
        shapes[name] = [None, *(int(side) for side in value.shape[1:])]
        if part.dynamic_size:
            shapes[name][-2:] = [None, None]
    return shapes
