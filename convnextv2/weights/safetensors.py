"""Reads and writes safetensors, and our weights file: safetensors beside readable JSON that describes the model.

One file is enough to build the model again, and it is replaced in one atomic step.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.files import SURROGATE, replacing, write_json
from convnextv2.weights.description import KEY, Description

WEIGHTS = "model.safetensors"
_LONGEST_HEAD = 4 << 20
_MOST_TENSORS = 50_000


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file in one atomic step.

    Raises:
        OSError: The system cannot write it.
    """
    with replacing(path) as temporary:
        try:
            save_file(
                {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()},
                temporary,
                metadata={"format": "pt", **(metadata or {})},
            )
        except SafetensorError as error:  # the library wraps what the system says
            number = re.search(r"(?:os error|code:) (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, on CPU, and its metadata. Raises CheckpointError where it is none, or is damaged, or
    has more tensors or a longer head than any network."""
    try:
        with open(path, "rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
        if _LONGEST_HEAD < length < path.stat().st_size:
            raise ValueError(f"a head of {length:,} bytes, expected at most {_LONGEST_HEAD:,}")
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            if len(names) > _MOST_TENSORS:
                raise ValueError(f"{len(names)} tensors, expected at most {_MOST_TENSORS}")
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file.") from None
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: not a safetensors file, or damaged ({' '.join(str(error).split())})."
        ) from error


def save_weights(folder: Path, tensors: Mapping[str, Tensor], description: Description) -> None:
    """Write `model.safetensors` and `model.json` into a folder, which is made where needed."""
    content = asdict(description)
    told = json.dumps(content, ensure_ascii=False)
    if half := SURROGATE.search(told):
        around = told[max(half.start() - 40, 0) : half.end() + 40]
        raise CheckpointError(
            f"{folder}: cannot be written, since a name in the model's description is not UTF-8 (...{around}...). Rename that "
            "class (its folder) and try again."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, tensors, {KEY: json.dumps(content)})
    write_json(folder / "model.json", content)
