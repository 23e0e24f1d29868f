"""Export a segmentor or a detector, and measure the artifact before it is put into place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.deploy.artifact import Artifact, save_card
from convnextv2.deploy.card import PART_INPUTS, Card, Part
from convnextv2.deploy.dense_card import DetectorCard, SegmentorCard
from convnextv2.deploy.dense_graphs import BoxHead, MaskHead, SegmentorGraph, Trunk
from convnextv2.deploy.export import ModelFacts, publish, requirements, versions
from convnextv2.deploy.formats import check_format, read_files
from convnextv2.deploy.formats.artifact_format import ArtifactFormat
from convnextv2.deploy.graph import Exportable
from convnextv2.errors import DeviceError
from convnextv2.files import sha256_of
from convnextv2.lock import building
from convnextv2.model.detector import Detector
from convnextv2.model.upernet import Segmentor

_TRACED_STRIDES = (5, 7)
"""The size of the image with which a part for any size is traced, in total strides.

The tracer treats a side as a constant if it becomes 1, or equal to the other side, in any layer."""


@dataclass(frozen=True, eq=False)
class ModelPart:
    """A part of a model that is written on its own.

    Attributes:
        graph: The graph.
        example: An input of the graph.
        prefix: The prefix of its files.
        dynamic_size: Whether it takes images of any multiple of the total stride.
    """

    graph: Exportable
    example: Tensor
    prefix: Part = ""
    dynamic_size: bool = False


def export_segmentor(
    model: Segmentor,
    format: str,
    precision: str,
    size: tuple[int, int] | None,
    folder: Path,
    facts: ModelFacts,
    segmentation: SegmentorCard,
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
        facts: The facts about the model that the artifact states.
        segmentation: The facts about a segmentor.
        certify: Measures the artifact.
        overwrite: Whether to replace an existing artifact.
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
        facts,
        dict(model.arguments),
        certify,
        segmentation=segmentation,
        overwrite=overwrite,
    )


def export_detector(
    model: Detector,
    format: str,
    precision: str,
    folder: Path,
    facts: ModelFacts,
    detection: DetectorCard,
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
        facts: The facts about the model that the artifact states.
        detection: The facts about a detector.
        certify: Measures the artifact.
        overwrite: Whether to replace an existing artifact.
    """
    if precision != "float32":
        raise DeviceError(
            f"precision = {precision}: boxes must agree to a tenth of a pixel, but coarser "
            "arithmetic changes the order of proposals. Use float32."
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
        facts,
        arguments,
        certify,
        detection=detection,
        overwrite=overwrite,
    )


def export_parts(
    parts: Sequence[ModelPart],
    format: str,
    precision: str,
    folder: Path,
    facts: ModelFacts,
    arguments: dict[str, Any],
    certify: Callable[[Artifact], Mapping[str, Any]],
    *,
    segmentation: SegmentorCard | None = None,
    detection: DetectorCard | None = None,
    overwrite: bool = True,
) -> Artifact:
    """Write an artifact of one or more parts. Its folder appears only once it has passed `certify`.

    Args:
        parts: The parts of the model. The first one takes images.
        format: A key of `formats.ARTIFACT_FORMATS`.
        precision: One of the format's precisions.
        folder: The folder.
        facts: The facts about the model that the artifact states.
        arguments: The arguments of its encoder, with the number of classes.
        certify: Measures the artifact, and raises ArtifactError if it is not good enough.
        segmentation: The facts about a segmentor.
        detection: The facts about a detector.
        overwrite: Whether to replace an existing artifact.

    Returns:
        The artifact.

    Raises:
        RunError: Another process is writing the folder, or has written it and `overwrite` is off.
        ArtifactError: It differs from the model by more than its precision allows.
        DeviceError: This machine cannot write or run the format.
        MissingPackageError: A package is not installed.
    """
    artifact_format = check_format(format, precision, to_write=True)
    with building(folder) as temporary:
        made = temporary / "artifact"
        made.mkdir()
        shapes: dict[str, list[int | None]] = {}
        for part in parts:
            shapes |= _write_part(part, artifact_format, precision, temporary / "part", made)
        card = Card(
            format=format,  # type: ignore[arg-type]
            precision=precision,  # type: ignore[arg-type]
            kind="segmentation" if segmentation is not None else "detection",
            files={file.name: sha256_of(file) for file in sorted(made.iterdir())},
            arguments=arguments,
            input="images",
            outputs=list(parts[0].graph.output_names),
            shapes=shapes,
            versions=versions(format),
            requires=requirements(format, made / artifact_format.file),
            segmentation=segmentation,
            detection=detection,
            **facts.entries(),
        )
        certificate = certify(save_card(made, card, {}))
        save_card(made, card, certificate)
        publish(made, folder, overwrite=overwrite)
    return Artifact(folder, card, certificate)


def _write_part(
    part: ModelPart, artifact_format: ArtifactFormat, precision: str, folder: Path, made: Path
) -> dict[str, list[int | None]]:
    """Write a part of a model, and return the shapes of its input and outputs.

    Args:
        part: The part.
        artifact_format: The format.
        precision: One of the format's precisions.
        folder: A folder for the files of this part alone, which does not exist before or after.
        made: The folder to which its files are moved, with its prefix.
    """
    folder.mkdir()
    file = folder / artifact_format.file
    artifact_format.write(part.graph, part.example, file, precision, part.dynamic_size)
    runner = artifact_format.open(read_files(folder), precision, torch.get_num_threads())
    shapes = _shapes(part, runner(part.example.numpy()))
    for written in sorted(folder.iterdir()):
        written.rename(made / f"{part.prefix}{written.name}")
    folder.rmdir()
    return shapes


def _shapes(part: ModelPart, outputs: Sequence[Any]) -> dict[str, list[int | None]]:
    """Return the shapes of a part's input and outputs, with None for dynamic sizes."""
    graph = part.graph
    values = {PART_INPUTS.get(part.prefix, graph.input): part.example}
    values |= dict(zip(graph.output_names, outputs, strict=True))
    shapes: dict[str, list[int | None]] = {}
    for name, value in values.items():
        shapes[name] = [None, *(int(side) for side in value.shape[1:])]
        if part.dynamic_size:
            shapes[name][-2:] = [None, None]
    return shapes
