"""Writes files and folders that other libraries can read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.files import replacing, write_json, write_text
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.weights.configurations import configuration
from convnextv2.weights.description import Description
from convnextv2.weights.mindspore import write_ckpt
from convnextv2.weights.names import library_of
from convnextv2.weights.safetensors import WEIGHTS, write_tensors


def write_foreign_file(
    out: Path, tensors: Mapping[str, Tensor], target: str, provenance: Mapping[str, str]
) -> None:
    """Write the tensors to one file, whose suffix decides its kind.

    Args:
        out: The file to replace or create.
        tensors: The tensors by the library's names.
        target: The format, a key of `FORMATS`.
        provenance: Where they come from, by the names in `containers.PROVENANCE`.

    Raises:
        OSError: The system cannot write the file.
    """
    suffix = out.suffix.lower()
    if suffix == ".ckpt":
        write_ckpt(out, {name: tensor.float() for name, tensor in tensors.items()}, provenance)
    elif suffix == ".safetensors":
        write_tensors(
            out,
            tensors,
            {"format": "ms" if library_of(target) == "mindcv" else "pt", **provenance},
        )
    else:
        key = {"official": "model", "mmpretrain": "state_dict"}.get(library_of(target))
        content: Any = {key: dict(tensors), "provenance": dict(provenance)}
        if key is None:  # no entry may stand beside the tensors, but the dictionary may have a note
            content = OrderedDict(tensors)
            content.provenance = dict(provenance)
        with replacing(out) as temporary, open(temporary, "wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:  # it hides the error of the operating system
                raise _system_error(error) or error from None


def _system_error(error: BaseException) -> OSError | None:
    """Find the error of the operating system that led to another error."""
    cause = error.__context__
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return cause


def write_foreign_folder(
    out: Path,
    model: ConvNeXtV2,
    description: Description,
    tensors: Mapping[str, Tensor],
    target: str,
    provenance: Mapping[str, str],
) -> None:
    """Write the tensors, their configuration and a model card to a folder in the Hub's layout.

    Args:
        out: The folder, which exists.
        model: The model.
        description: Its description, with the preprocessing of its images.
        tensors: The tensors by the library's names.
        target: The format, a key of `FORMATS`.
        provenance: Where they come from, by the names in `containers.PROVENANCE`.

    Raises:
        OSError: The system cannot write the files.
    """
    write_tensors(out / WEIGHTS, tensors, dict(provenance))
    licence = provenance.get("licence", "other") if provenance["notice"] else ""
    for name, content in configuration(model, description, target, licence).items():
        write_json(out / name, content)
    if licence:
        write_text(
            out / "README.md",
            f"---\nlicense: {licence}\n---\n\n# {description.model}\n\n{provenance['notice']}\n\n"
            f"Converted from {provenance['source_format']}, sha256 "
            f"{provenance['source_sha256']}.\n",
        )
