"""Our weights file: safetensors whose metadata describe the model, with the same description as readable JSON beside it.

One file is enough to build the model again, and it is replaced in one atomic step. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from convnextv2.errors import CheckpointError

WEIGHTS = "model.safetensors"
_KEY = "convnextv2"


@dataclass(frozen=True)
class Description:
    """What a weights file holds.

    kind: "classifier", "encoder" (pooled or plain features) or "fcmae". model: its name. arguments: of `ConvNeXtV2`. fcmae:
    arguments of `FCMAE` beside the encoder. class_names: one per row of the head. preprocessing: how evaluation images are
    prepared (`data.transforms`). training: step, epoch and the figures measured then. provenance: where the weights came from:
    format, licence, notice."""

    kind: str
    model: str
    arguments: dict[str, Any]
    fcmae: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file in one atomic step."""
    temporary = path.with_name(path.name + ".tmp")
    save_file(
        {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()},
        temporary,
        metadata={"format": "pt", **(metadata or {})},
    )
    _replace(temporary, path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, on CPU, and its metadata. Raises CheckpointError where it is none, or is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file.") from None
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged ({error}).") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in one atomic step."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    _replace(temporary, path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one atomic step."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def save_weights(folder: Path, tensors: Mapping[str, Tensor], description: Description) -> None:
    """Write `model.safetensors` and `model.json` into a folder, which is made where needed."""
    folder.mkdir(parents=True, exist_ok=True)
    content = asdict(description)
    write_tensors(folder / WEIGHTS, tensors, {_KEY: json.dumps(content)})
    write_json(folder / "model.json", content)


def is_ours(metadata: Mapping[str, str]) -> bool:
    """Whether the metadata of a safetensors file say that we wrote it."""
    return _KEY in metadata


def read_description(metadata: Mapping[str, str], path: Path) -> Description:
    """The description in one of our weights files. Raises CheckpointError where it cannot be read."""
    try:
        return Description(**json.loads(metadata[_KEY]))
    except (json.JSONDecodeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its model description cannot be read ({error}).") from error


def _replace(temporary: Path, path: Path) -> None:
    """Make `temporary` the file at `path`, on disk before the name points to it, so that a crash leaves the old or the new
    file."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
