"""The artifact: a folder with an exported model and all that is needed to use and check it.

model.onnx, or model.pt2, or model.xml and model.bin; a detector has boxes-model.onnx and, if it
finds masks, masks-model.onnx as well
artifact.json       input, outputs, preprocessing, class names, provenance, licence, hashes
unknown.safetensors which images are unknown to it, if that was fitted; see `evaluation.unknown`
certificate.json    how closely it agreed with the PyTorch model, on what, and at what speed
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from convnextv2.data.transforms import EvalTransform
from convnextv2.deploy.dense_card import DetectorCard, SegmentorCard
from convnextv2.deploy.formats import ARTIFACT_FORMATS, check_format
from convnextv2.deploy.formats.artifact_format import Array, Files, Runner
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
from convnextv2.errors import ArtifactError, ConvNeXtV2Error
from convnextv2.evaluation.unknown import UNKNOWN, Unknown, check_fits, load_unknown
from convnextv2.files import parse_json, write_json
from convnextv2.find import ARTIFACT_CARD
from convnextv2.preprocessing import LONGEST_SIDE_PX, Preprocessing
from convnextv2.text import plain
from convnextv2.weights.description import (
    Description,
    Threshold,
    check_arguments,
    check_balance,
    check_preprocessing,
)

CARD = ARTIFACT_CARD
CERTIFICATE = "certificate.json"

Part = Literal["", "boxes-", "masks-"]
"""The prefix of the files of a part of a model. Only a detector has more than one part."""

PART_INPUTS: dict[Part, str] = {"boxes-": "box_regions", "masks-": "mask_regions"}
"""The names of the inputs of all parts but the first."""

PART_OUTPUTS: dict[Part, tuple[str, ...]] = {"boxes-": BOX_OUTPUTS, "masks-": MASK_OUTPUTS}
"""The names of the outputs of all parts but the first."""

_Size = Annotated[int, Field(ge=1, le=100_000_000)]
"""The size of an axis. The longest ones are those of classes, four of which a detector has."""
_MAX_ELEMENTS = 2**42
"""More than the largest image of the most channels has."""


class Card(BaseModel):
    """The content of artifact.json.

    Attributes:
        artifact: The version of the form of this file.
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
        preprocessing: How images are prepared; see `EvalTransform.from_description`.
        class_names: The names of the classes.
        thresholds: For "multi_label": the probability from which on each class counts as present;
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
        """Check that the heads of a detector have the classes, and one more for what is none."""
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


@dataclass(frozen=True)
class Artifact:
    """An artifact that lies in a folder.

    Attributes:
        path: The folder.
        card: The content of artifact.json.
        certificate: The content of certificate.json.
    """

    path: Path
    card: Card
    certificate: Mapping[str, Any]

    @property
    def description(self) -> Description:
        """The description of its network, in the form that weights have."""
        card = self.card
        dense = card.segmentation or card.detection
        return Description(
            card.kind,
            card.model,
            card.arguments,
            head=dense.head if dense else {},
            class_names=card.class_names,
            thresholds=card.thresholds,
            preprocessing=card.preprocessing,
            provenance=card.provenance,
            balance=card.balance,
        )

    @property
    def transform(self) -> EvalTransform:
        """The preprocessing of its images."""
        return EvalTransform(Preprocessing.read(self.card.preprocessing))

    @property
    def sha256(self) -> str:
        """The SHA-256 of the model's first file, which stands for the artifact."""
        return self.card.files[ARTIFACT_FORMATS[self.card.format].file]

    def unknown(self) -> Unknown | None:
        """Read the "unknown" answer that was fitted for it; None if it was exported without one.

        Raises:
            ArtifactError: Its file has changed, or belongs to another model.
            CheckpointError: Its file is damaged.
        """
        if not self.card.unknown:
            return None
        path = self.path / UNKNOWN
        try:
            self._check_file(UNKNOWN, self.card.unknown)
        except ArtifactError as error:
            raise ArtifactError(f"{self.path}: {error}") from None
        found = load_unknown(path)
        if found.about.sha256 != self.sha256:
            raise ArtifactError(f"{path}: was fitted for another model. Export the model again.")
        arguments = self.card.arguments
        check_fits(found, arguments["dims"][3], arguments["in_channels"], path)
        return found

    def lines(self) -> list[str]:
        """Describe the artifact in lines for the user, with the notice of its licence."""
        card = self.card
        lines = [
            f"{self.path}: artifact, {card.format}, {card.precision}, sha256 {self.sha256[:16]}"
        ]
        return [*map(plain, lines + [f"Licence: {card.notice}"] * bool(card.notice))]

    def open(self, threads: int, part: Part = "") -> Runner:
        """Load the model.

        Args:
            threads: The number of threads that compute.
            part: The part of the model.

        Returns:
            The model. In any engine, it raises ArtifactError if the shape of the input or of an
            output does not fit `card.shapes`, and if the engine fails.

        Raises:
            ArtifactError: The files cannot be loaded, or have changed since they were made.
            DeviceError: This machine cannot compute in this precision.
            MissingPackageError: The engine is not installed.
        """
        chosen = check_format(self.card.format, self.card.precision)
        try:
            files = {name.removeprefix(part): data for name, data in self._files(part).items()}
            if chosen.file not in files:
                raise ArtifactError(
                    f"{CARD} names no {part}{chosen.file}, a part of the model. Export it again."
                )
            run = chosen.open(files, self.card.precision, threads)
        except ArtifactError as error:
            raise ArtifactError(f"{self.path}: {error}") from None
        except ConvNeXtV2Error:
            raise
        except Exception as error:  # each engine has its own errors for bad files
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise ArtifactError(
                f"{self.path}: {self.card.format} cannot load it ({why}). Export the model again."
            ) from None
        return self._checked(run, part)

    def check(self) -> None:
        """Check the model's files without loading them.

        Raises:
            ArtifactError: One of them has changed since it was made, or cannot be read.
        """
        try:
            for part in get_args(Part):
                self._files(part)
        except ArtifactError as error:
            raise ArtifactError(f"{self.path}: {error}") from None

    def _files(self, part: Part) -> Files:
        """Read each file of a part once, so that the content that is checked is the one loaded."""
        return {
            name: self._check_file(name, sha256)
            for name, sha256 in self.card.files.items()
            if part_of(name) == part
        }

    def _check_file(self, name: str, sha256: str) -> bytes:
        """Read a file, and raise ArtifactError if it is not what was written."""
        content = _read(self.path / name)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ArtifactError(
                f"{name} differs from what {CARD} says of it (sha256). Export the model again."
            )
        return content

    def _checked(self, run: Runner, part: Part) -> Runner:
        """Add checks of the input and the outputs to an opened part of the model.

        A model that fits its hash may still not fit the card, because people edit both.
        """
        card = self.card
        input, outputs = card.input_of(part), card.outputs_of(part)
        dtype = np.dtype(np.uint8 if input == "pixels" else np.float32)

        def checked(x: Array) -> list[Array]:
            if not _fits(x.shape, card.shapes[input]) or x.dtype != dtype:
                raise ArtifactError(
                    f"{self.path}: input {input} of shape {x.shape}, {x.dtype}. Expected "
                    f"{_shape_text(card.shapes[input])}, {dtype}."
                )
            try:
                found = run(x)
            except ConvNeXtV2Error:
                raise
            except Exception as error:  # each engine has its own errors
                why = " ".join(str(error).split())[:300] or type(error).__name__
                raise ArtifactError(
                    f"{self.path}: {card.format} fails on the input {input} of shape {x.shape} "
                    f"({why}). {_OTHER_MODEL}"
                ) from error
            if len(found) != len(outputs):
                raise ArtifactError(
                    f"{self.path}: returns {len(found)} outputs, and {CARD} names {len(outputs)}. "
                    f"{_OTHER_MODEL}"
                )
            for name, output in zip(outputs, found, strict=True):
                stated = [len(x), *card.shapes[name][1:]]
                if not _fits(output.shape, stated):
                    raise ArtifactError(
                        f"{self.path}: returns {name} of shape {tuple(output.shape)}, and {CARD} "
                        f"says {_shape_text(stated)}. {_OTHER_MODEL}"
                    )
            return found

        return checked


_OUT_OF_REACH = "Mend that, or copy the artifact again."
_OTHER_MODEL = f"If {CARD} or the model was changed by hand, export the model again."


def _fits(shape: Sequence[int], stated: Sequence[int | None]) -> bool:
    """Return whether an array has a stated shape, in which None stands for any size."""
    return len(shape) == len(stated) and all(
        size in (None, given) for size, given in zip(stated, shape, strict=True)
    )


def _shape_text(stated: Sequence[int | None]) -> str:
    sizes = ", ".join("any" if size is None else str(size) for size in stated)
    return f"({sizes})"


def part_of(file: str) -> Part:
    """Return the part of a model to which a file belongs."""
    return next((part for part in PART_INPUTS if file.startswith(part)), "")


def is_artifact(path: str | Path) -> bool:
    """Return whether a folder, or the folder of a file, is an artifact."""
    path = Path(path)
    return os.path.isfile(path / CARD) or (
        os.path.isfile(path) and os.path.isfile(path.parent / CARD)
    )


def open_artifact(path: str | Path) -> Artifact:
    """Open the artifact in a folder. Its model is read and checked when it is loaded.

    Args:
        path: The folder, or a file in it.

    Returns:
        The artifact.

    Raises:
        ArtifactError: It is not an artifact, or its descriptions are damaged.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    try:
        card = Card.model_validate_json((folder / CARD).read_text())
        certificate = json_object(folder / CERTIFICATE)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{folder}: not an artifact (no {Path(str(error.filename)).name} in it)."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its content"
        why = first["msg"].removeprefix("Value error, ")
        raise ArtifactError(f"{folder / CARD}: {where}: {why}. Export the model again.") from None
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be read ({error}). {_OUT_OF_REACH}") from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise ArtifactError(
            f"{folder}: cannot be read ({error}). Export the model again."
        ) from None
    check_arguments(card.arguments, folder / CARD)
    check_preprocessing(card.preprocessing, folder / CARD)
    _check_channels(card, folder / CARD)
    check_balance(card.balance, card.arguments.get("num_classes") or 0, folder / CARD)
    for name in card.files:
        if Path(name).name != name or not (folder / name).is_file():
            raise ArtifactError(f"{folder}: {name} is missing. Export the model again.")
    return Artifact(folder, card, certificate)


def _check_channels(card: Card, path: Path) -> None:
    """Raise ArtifactError if images are prepared with other channels than the network takes."""
    taken, prepared = card.arguments["in_channels"], card.preprocessing["channels"]
    if taken != prepared:
        raise ArtifactError(
            f"{path}: has a network of {taken} channels for images of {prepared}. Export the model "
            "again."
        )


def save_card(folder: Path, card: Card, certificate: Mapping[str, Any]) -> Artifact:
    """Write both descriptions beside the model.

    Args:
        folder: The artifact's folder.
        card: The content of artifact.json.
        certificate: The content of certificate.json.

    Returns:
        The artifact.
    """
    content = card.model_dump()
    for name in ("thresholds", "unknown", "segmentation", "detection"):
        if not content[name]:  # so that older versions can read the card
            del content[name]
    write_json(folder / CARD, content)
    write_json(folder / CERTIFICATE, certificate)
    return Artifact(folder, card, certificate)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{file.name} cannot be read ({error.strerror}). {_OUT_OF_REACH}"
        ) from None


def json_object(file: Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
        ValueError: The file holds something else.
    """
    found = parse_json(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} does not hold an object")
    return found
