"""Reads and writes safetensors files, and the weights files of this package.

A weights file of this package is a safetensors file whose metadata describe the model, so that one
file is enough to build the model again. The same description lies beside it as readable JSON.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors import __version__ as version
from safetensors.torch import save_file
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.files import SURROGATE, parse_json, replacing, write_json
from convnextv2.weights.description import KEY, Description

WEIGHTS = "model.safetensors"
_LONGEST_HEADER = 4 << 20
"""The longest header that is read, in bytes."""
_MAX_TENSORS = 50_000


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file in one atomic step.

    Args:
        path: The file to replace or create.
        tensors: The tensors by name, on any device.
        metadata: Text to store beside the tensors.

    Raises:
        OSError: The system cannot write the file.
    """
    with replacing(path) as temporary:
        try:
            save_file(
                {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()},
                temporary,
                metadata={"format": "pt", **(metadata or {})},
            )
            _sort_metadata(temporary)
        except SafetensorError as error:  # the library wraps the error of the operating system
            number = re.search(r"(?:os error|code:) (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file by name, in place.

    The library writes them in random order, so equal weights would have files of unequal hashes.
    """
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= length:  # never longer, unless the library escapes text in another way
            file.seek(8)
            file.write(text.ljust(length))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a safetensors file.

    Args:
        path: The file.

    Returns:
        The tensors by name, on the CPU, and the metadata of the file.

    Raises:
        CheckpointError: The file is missing, damaged or of another format, or it has more tensors
            or a longer header than any network needs.
    """
    try:
        with open(path, "rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
        if _LONGEST_HEADER < length < path.stat().st_size:
            raise ValueError(f"a header of {length:,} bytes, expected at most {_LONGEST_HEADER:,}")
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            if len(names) > _MAX_TENSORS:
                raise ValueError(f"{len(names):,} tensors, expected at most {_MAX_TENSORS:,}")
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file.") from None
    except Exception as error:  # unsupported dtypes raise errors of several classes
        why = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{path}: not a safetensors file, or damaged ({why})."
            f"{_new_dtypes(path) or ' Copy or download it again.'}"
        ) from error


_OLD_DTYPES = frozenset(
    ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "U16", "I16", "F16", "BF16", "U32", "I32", "F32")
) | {"U64", "I64", "F64"}
"""The dtypes that all supported versions of safetensors read."""


def _new_dtypes(path: Path) -> str:
    """Return a sentence on the dtypes in a file that old versions of safetensors do not read."""
    try:
        with open(path, "rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            header = parse_json(raw.read(min(length, _LONGEST_HEADER)).decode())
        found = {str(entry["dtype"]) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""  # the header itself is damaged
    new = sorted(name for name in found - _OLD_DTYPES if re.fullmatch(r"[A-Z0-9_]{1,20}", name))
    if not new:
        return ""
    return (
        f" It has tensors of the dtype {', '.join(new[:3])}, which safetensors {version} may not "
        "know. Update safetensors, or save them in another dtype."
    )


def save_weights(folder: Path, tensors: Mapping[str, Tensor], description: Description) -> None:
    """Write `model.safetensors` and `model.json` into a folder.

    Args:
        folder: The folder, which is created if it is missing.
        tensors: The tensors by canonical name, on any device.
        description: The network that they belong to.

    Raises:
        CheckpointError: A name in the description is not UTF-8. Nothing is written then.
        OSError: The system cannot write the files.
    """
    save_weights_file(folder / WEIGHTS, tensors, description)
    write_json(folder / "model.json", description.to_json())


def save_weights_file(path: Path, tensors: Mapping[str, Tensor], description: Description) -> None:
    """Write one weights file of this package, without the readable JSON beside it.

    Args:
        path: The file to replace or create; its folder is created if it is missing.
        tensors: The tensors by canonical name, on any device.
        description: The network that they belong to.

    Raises:
        CheckpointError: A name in the description is not UTF-8. Nothing is written then.
        OSError: The system cannot write the file.
    """
    content = description.to_json()
    _check_text(content, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors, {KEY: json.dumps(content)})


def _check_text(content: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError if a description holds text that cannot be written as UTF-8."""
    told = json.dumps(content, ensure_ascii=False)
    if half := SURROGATE.search(told):
        around = told[max(half.start() - 40, 0) : half.end() + 40]
        raise CheckpointError(
            f"{path}: cannot be written, since a name in the model's description is not UTF-8 "
            f"(...{around}...). Rename that class (its folder) and try again."
        )
