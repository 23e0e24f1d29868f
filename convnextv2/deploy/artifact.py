"""The artifact: a folder with an exported model and all that is needed to use it and to trust it.

model.onnx | model.pt2 | model.xml and model.bin
artifact.json       what goes in and comes out, preprocessing, class names, provenance, licence, hashes
certificate.json    how closely it agreed with the PyTorch model, on what, and at what speed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convnextv2.data.transforms import EvalTransform
from convnextv2.deploy.formats import FORMATS, Runner, check_format
from convnextv2.errors import ArtifactError
from convnextv2.weights.files import check_preprocessing, write_json

CARD = "artifact.json"
CERTIFICATE = "certificate.json"


class Card(BaseModel):
    """artifact.json.

    files: name and sha256 of each file of the model. model: the size's name. arguments: of `ConvNeXtV2`. outputs: names, in
    order, see `graph.OUTPUTS`. shapes: of input and outputs, None for what may be of any size. preprocessing: of
    `EvalTransform`. temperature: by which logits are divided before softmax. provenance: where the weights came from. versions:
    of the packages that made it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, protected_namespaces=())

    artifact: Literal[1] = 1
    format: Literal["torch", "aoti", "onnx", "openvino"]
    precision: Literal["float32", "float16", "bfloat16", "int8"]
    kind: Literal["classifier", "features", "backbone"]
    files: dict[str, str] = Field(min_length=1)
    model: str
    arguments: dict[str, Any]
    input: Literal["images", "pixels"]
    outputs: list[str] = Field(min_length=1)
    shapes: dict[str, list[int | None]]
    preprocessing: dict[str, Any]
    class_names: list[str]
    temperature: float = Field(gt=0)
    provenance: dict[str, Any]
    notice: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Artifact:
    """An artifact's folder and what it says of itself."""

    path: Path
    card: Card
    certificate: Mapping[str, Any]

    @property
    def transform(self) -> EvalTransform:
        """How its images are prepared."""
        return EvalTransform.from_description(self.card.preprocessing)

    @property
    def sha256(self) -> str:
        """Of the model's first file; stands for the artifact."""
        return self.card.files[FORMATS[self.card.format].file]

    def open(self, threads: int) -> Runner:
        """Load the model. Raises MissingPackageError, and DeviceError where this machine cannot compute so."""
        chosen = check_format(self.card.format, self.card.precision)
        return chosen.open(self.path / chosen.file, self.card.precision, threads)


def is_artifact(path: str | Path) -> bool:
    """Whether this folder, or the file's folder, is an artifact's."""
    path = Path(path)
    return (path / CARD).is_file() or (path.is_file() and (path.parent / CARD).is_file())


def open_artifact(path: str | Path) -> Artifact:
    """The artifact in this folder. Raises ArtifactError where it is none, is damaged, or was changed since it was made."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    try:
        card = Card.model_validate_json((folder / CARD).read_text())
        certificate = json_object(folder / CERTIFICATE)
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder}: not an artifact (no {Path(str(error.filename)).name} in it).") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its content"
        raise ArtifactError(f"{folder / CARD}: {where}: {first['msg']}. Export the model again.") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ArtifactError(f"{folder}: cannot be read ({error}). Export the model again.") from None
    check_preprocessing(card.preprocessing, folder / CARD)
    for name, expected in card.files.items():
        file = folder / name
        if Path(name).name != name or not file.is_file():
            raise ArtifactError(f"{folder}: {name} is missing. Export the model again.")
        if sha256_of(file) != expected:
            raise ArtifactError(f"{file}: differs from what {CARD} says of it (sha256). Export the model again.")
    return Artifact(folder, card, certificate)


def save_card(folder: Path, card: Card, certificate: Mapping[str, Any]) -> Artifact:
    """Write both descriptions beside the model."""
    write_json(folder / CARD, card.model_dump())
    write_json(folder / CERTIFICATE, certificate)
    return Artifact(folder, card, certificate)


def sha256_of(file: Path) -> str:
    """Of a file's content."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def json_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError where it holds something else."""
    found = json.loads(file.read_text())
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} holds no object")
    return found
