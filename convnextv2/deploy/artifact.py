"""The artifact: a folder with an exported model and all that is needed to use and check it.

model.onnx, or model.pt2, or model.xml and model.bin; a detector has boxes-model.onnx and, if it
finds masks, masks-model.onnx as well
artifact.json       input, outputs, preprocessing, class names, provenance, licence, hashes
unknown.safetensors which images are unknown to it, if that was fitted; see `evaluation.unknown`
certificate.json    how closely it agreed with the PyTorch model, on what, and at what speed
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from pydantic import ValidationError

from convnextv2.data.transforms import EvalTransform
from convnextv2.deploy.card import Card, Part, part_of
from convnextv2.deploy.formats import ARTIFACT_FORMATS, check_format
from convnextv2.deploy.formats.artifact_format import Array, Files, Runner
from convnextv2.errors import ArtifactError, ConvNeXtV2Error
from convnextv2.evaluation.unknown import UNKNOWN, Unknown, check_fits, load_unknown
from convnextv2.files import parse_json, write_json
from convnextv2.find import ARTIFACT_CARD
from convnextv2.preprocessing import Preprocessing
from convnextv2.text import plain
from convnextv2.weights.description import (
    Description,
    check_arguments,
    check_balance,
    check_preprocessing,
)

CARD = ARTIFACT_CARD
CERTIFICATE = "certificate.json"


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
        """Read a file, and raise ArtifactError if it has changed since it was written."""
        content = _read(self.path / name)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ArtifactError(
                f"{name} does not match its SHA-256 in {CARD}. Export the model again."
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
                    f"{self.path}: returns {len(found)} outputs, but {CARD} names {len(outputs)}. "
                    f"{_OTHER_MODEL}"
                )
            for name, output in zip(outputs, found, strict=True):
                stated = [len(x), *card.shapes[name][1:]]
                if not _fits(output.shape, stated):
                    raise ArtifactError(
                        f"{self.path}: returns {name} of shape {tuple(output.shape)}, but {CARD} "
                        f"says {_shape_text(stated)}. {_OTHER_MODEL}"
                    )
            return found

        return checked


_OUT_OF_REACH = "Fix that, or copy the artifact again."
_OTHER_MODEL = f"If {CARD} or the model was changed by hand, export the model again."


def _fits(shape: Sequence[int], stated: Sequence[int | None]) -> bool:
    """Return whether an array has a stated shape, in which None stands for any size."""
    return len(shape) == len(stated) and all(
        size in (None, given) for size, given in zip(stated, shape, strict=True)
    )


def _shape_text(stated: Sequence[int | None]) -> str:
    sizes = ", ".join("any" if size is None else str(size) for size in stated)
    return f"({sizes})"


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
