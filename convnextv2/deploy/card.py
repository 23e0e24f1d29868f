"""The card of an artifact: the content of artifact.json, and whether its entries agree."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from convnextv2.deploy.dense_card import DetectorCard, SegmentorCard
from convnextv2.deploy.formats import ARTIFACT_FORMATS
from convnextv2.deploy.graph import (
    AXES,
    BOX_OUTPUTS,
    MAP_OUTPUTS,
    MASK_OUTPUTS,
    has_classes,
    output_names,
    trunk_outputs,
)
from convnextv2.deploy.names import FormatName, PrecisionName
from convnextv2.preprocessing import LONGEST_SIDE_PX
from convnextv2.weights.description import Threshold

Part = Literal["", "boxes-", "masks-"]
"""The prefix of the files of a part of a model. Only a detector has more than one part."""

PART_INPUTS: dict[Part, str] = {"boxes-": "box_regions", "masks-": "mask_regions"}
"""The names of the inputs of all parts but the first."""

PART_OUTPUTS: dict[Part, tuple[str, ...]] = {"boxes-": BOX_OUTPUTS, "masks-": MASK_OUTPUTS}
"""The names of the outputs of all parts but the first."""

_Size = Annotated[int, Field(ge=1, le=100_000_000)]
"""The size of an axis. The longest is that of `box_deltas`, with four values for each class."""
_MAX_ELEMENTS = 2**42
"""An upper bound on the elements of a tensor, above those of the largest image."""


class Card(BaseModel):
    """The content of artifact.json.

    Attributes:
        artifact: The version of this file's format.
        format: A key of `formats.ARTIFACT_FORMATS`.
        precision: The arithmetic.
        kind: The kind of the outputs; see `graph.OUTPUTS`, and `dense_graphs` for "segmentation"
            and "detection".
        files: The name and the SHA-256 of each file of the model.
        model: The name of the model's size.
        arguments: The arguments of `ConvNeXtV2`.
        input: The kind of the input; see `graph.Graph`.
        outputs: The names of the outputs, in order.
        shapes: The shapes of input and outputs, with None for an axis of any size.
        preprocessing: How images are prepared; see `Preprocessing.to_json`.
        class_names: The names of the classes.
        thresholds: For "multi_label": the lowest probability at which each class counts as present;
            empty if there are none.
        temperature: The number by which logits are divided before softmax or sigmoid.
        balance: How frequent classes were in training, and for which frequencies the probabilities
            hold; see `weights.description.Description`.
        provenance: Where the weights came from.
        notice: The licence of the weights.
        versions: The versions of the packages that made it.
        requires: The requirements of an ONNX file: its opset, its IR version, and the oldest ONNX
            Runtime that reads both.
        unknown: The SHA-256 of the file that says which classes cannot be excluded and which images
            are foreign, `evaluation.unknown.UNKNOWN`; empty if there is none.
        segmentation: Further entries of a "segmentation".
        detection: Further entries of a "detection".
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, protected_namespaces=())

    artifact: Literal[1] = 1
    format: FormatName
    precision: PrecisionName
    kind: Literal["classifier", "multi_label", "features", "backbone", "segmentation", "detection"]
    files: dict[str, str] = Field(min_length=1)
    model: str
    arguments: dict[str, Any]
    input: Literal["images", "pixels"]
    outputs: list[str] = Field(min_length=1)
    shapes: dict[str, list[_Size | None]]
    preprocessing: dict[str, Any]
    class_names: list[str]
    thresholds: list[Threshold] = []
    temperature: float = Field(ge=1e-3, le=1e3)
    provenance: dict[str, Any]
    notice: str
    versions: dict[str, str]
    requires: dict[str, str] = {}
    balance: dict[str, Any] = {}
    unknown: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    segmentation: SegmentorCard | None = None
    detection: DetectorCard | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Card:
        """Check that entries agree with each other, because people edit this file."""
        file = ARTIFACT_FORMATS[self.format].file
        if file not in self.files:
            raise ValueError(f"files does not name {file}, the model")
        if tuple(self.outputs) != self._expected_outputs():
            raise ValueError(f"outputs are not those of a {self.kind} of {self.input}")
        self._check_shapes()
        self._check_input()
        columns = self.shapes[self.outputs[0]][1]
        is_wrong = columns not in (None, len(self.class_names))
        if has_classes(self.kind) and self.class_names and is_wrong:
            raise ValueError(
                f"class_names has {len(self.class_names)} names for the {columns} columns of "
                f"{self.outputs[0]}"
            )
        is_wrong = columns not in (None, len(self.thresholds))
        if self.thresholds and (self.kind != "multi_label" or is_wrong):
            raise ValueError(
                f"thresholds has {len(self.thresholds)} numbers for a {self.kind} of {columns} "
                "classes"
            )
        if self.segmentation is not None and self.kind == "segmentation":
            self._check_palette(self.segmentation.palette, columns)
        if self.detection is not None and self.kind == "detection":
            self._check_palette(self.detection.palette, len(self.class_names))
            self._check_heads()
        return self

    def _check_shapes(self) -> None:
        """Check that each input and output of all parts has a shape, and its number of axes."""
        parts = {part_of(file) for file in self.files}
        named = [
            name for part in sorted(parts) for name in (self.input_of(part), *self.outputs_of(part))
        ]
        if missing := set(named) - self.shapes.keys():
            raise ValueError(f"shapes does not name {min(missing)}")
        for name, shape in self.shapes.items():
            if math.prod(side or 1 for side in shape) > _MAX_ELEMENTS:
                raise ValueError(f"shapes.{name} = {shape}: more than {_MAX_ELEMENTS:,} elements")
        for name in named:
            axes = AXES.get(name, 4)
            if len(self.shapes[name]) != axes:
                raise ValueError(
                    f"shapes.{name} has {len(self.shapes[name])} axes, expected {axes}"
                )

    def _check_heads(self) -> None:
        """Check that the heads of a detector have the classes, and one more for the background."""
        rows = len(self.class_names) + 1
        for name, expected in {
            "class_logits": rows,
            "box_deltas": 4 * rows,
            "mask_logits": rows,
        }.items():
            stated = self.shapes[name][1] if name in self.shapes else None
            if stated not in (None, expected):
                raise ValueError(
                    f"shapes.{name} has {stated} columns, expected {expected} for "
                    f"{len(self.class_names)} class_names"
                )

    def input_of(self, part: Part) -> str:
        """Return the name of the input of a part."""
        return PART_INPUTS.get(part, self.input)

    def outputs_of(self, part: Part) -> tuple[str, ...]:
        """Return the names of the outputs of a part, in order."""
        return PART_OUTPUTS.get(part, tuple(self.outputs))

    def _check_input(self) -> None:
        """Check the shape of the input, which decides how large images and their windows are."""
        shape = self.shapes[self.input]
        channels, *sides = (shape[i] for i in ((3, 1, 2) if self.input == "pixels" else (1, 2, 3)))
        if any(side is not None and side > LONGEST_SIDE_PX for side in sides):
            raise ValueError(
                f"shapes.{self.input} = {shape}: expected at most {LONGEST_SIDE_PX:,} px a side"
            )
        taken = self.arguments.get("in_channels")
        if channels not in (None, taken):
            raise ValueError(
                f"shapes.{self.input} has {channels} channels for a network of {taken}"
            )

    def _expected_outputs(self) -> tuple[str, ...]:
        """Return the names of the outputs of this kind."""
        if (self.kind == "segmentation") != (self.segmentation is not None):
            raise ValueError(f"segmentation does not fit the kind {self.kind}")
        if (self.kind == "detection") != (self.detection is not None):
            raise ValueError(f"detection does not fit the kind {self.kind}")
        if self.kind == "segmentation":
            return MAP_OUTPUTS
        if self.detection is not None:
            return trunk_outputs(self.detection.levels)
        return output_names(self.kind, self.input)

    def _check_palette(self, palette: list[list[int]], classes: int | None) -> None:
        if not len(palette) == len(self.class_names) == classes:
            raise ValueError(
                f"there are {len(palette)} colours and {len(self.class_names)} class_names for "
                f"{classes} classes"
            )


def part_of(file: str) -> Part:
    """Return the part of a model to which a file belongs."""
    return next((part for part in PART_INPUTS if file.startswith(part)), "")
