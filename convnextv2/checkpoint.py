"""Reads and writes checkpoints: folders with all that a run needs to go on, hashed file by file.

    model.safetensors, model.json   the weights
    average.safetensors             their moving average, if the recipe asks for one
    optimizer.safetensors           the optimizer's tensors, by parameter name
    beside.safetensors              what learns beside the network, if anything does
    progress.json                   the position in the run; the SHA-256 of the other files and of
                                    its own content

The folder gets its name in one step, so it is there as a whole or not at all. The hashes show what
happened to it afterwards.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from convnextv2.errors import CheckpointError, DamagedCheckpointError
from convnextv2.files import sha256_of, sync_folder, write_json
from convnextv2.weights.description import Description, read_description
from convnextv2.weights.safetensors import WEIGHTS, read_tensors, save_weights, write_tensors

_AVERAGE, _OPTIMIZER, _PROGRESS = "average.safetensors", "optimizer.safetensors", "progress.json"
_BESIDE = "beside.safetensors"
_OUT_OF_REACH = (errno.EACCES, errno.EPERM, errno.ESTALE, errno.EMFILE)
"""Errors of the system that say nothing about the content of a file."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to go on.

    Attributes:
        description: The network that the weights belong to.
        weights: The weights by parameter name.
        average: Their moving average by parameter name; empty if there is none.
        optimizer: The optimizer's tensors, as `training.state.optimizer_tensors` names them.
        progress: The position and everything else that is not a tensor, as JSON takes it.
        beside: Tensors that learn beside the network and are not part of it, such as the projection
            to a teacher's features, by parameter name; usually empty.
    """

    description: Description
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    progress: Mapping[str, Any]
    beside: Mapping[str, Tensor] = field(default_factory=dict)


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, and give it its name once all of it is on the disk.

    Args:
        folder: The folder to create.
        checkpoint: Its content.

    Raises:
        OSError: The system cannot write it.
    """
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    save_weights(temporary, checkpoint.weights, checkpoint.description)
    if checkpoint.average:
        write_tensors(temporary / _AVERAGE, checkpoint.average)
    if checkpoint.beside:
        write_tensors(temporary / _BESIDE, checkpoint.beside)
    write_tensors(temporary / _OPTIMIZER, checkpoint.optimizer)
    hashes = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
    _write_progress(temporary, checkpoint.progress, hashes)
    os.replace(temporary, folder)
    sync_folder(folder.parent)


def rewrite_progress(folder: Path, progress: Mapping[str, Any]) -> None:
    """Replace the progress in a checkpoint, and leave its other files as they are.

    Args:
        folder: The checkpoint.
        progress: The new progress, as in `Checkpoint.progress`.
    """
    _write_progress(folder, progress, json.loads((folder / _PROGRESS).read_text())["files"])


def read_progress(folder: Path) -> dict[str, Any]:
    """Read where a run stood when it wrote a checkpoint.

    Args:
        folder: The checkpoint.

    Returns:
        The progress, as in `Checkpoint.progress`.

    Raises:
        DamagedCheckpointError: The file is missing, is not JSON, or is not what was written.
    """
    return _read_progress(folder)[0]


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint after checking the hash of every file.

    Older versions wrote no hashes. In their checkpoints only files that cannot be read are noticed.

    Args:
        folder: The checkpoint.

    Returns:
        Its content, with all tensors on the CPU.

    Raises:
        DamagedCheckpointError: A file is missing, cannot be read or is not what was written; the
            message names it.
    """
    progress, hashes = _read_progress(folder)
    for name, expected in hashes.items():
        _check_hash(folder / name, expected)
    average, beside = folder / _AVERAGE, folder / _BESIDE
    try:
        weights, metadata = read_tensors(folder / WEIGHTS)
        return Checkpoint(
            description=read_description(metadata, folder / WEIGHTS),
            weights=weights,
            average=read_tensors(average)[0] if average.exists() else {},
            optimizer=read_tensors(folder / _OPTIMIZER)[0],
            progress=progress,
            beside=read_tensors(beside)[0] if beside.exists() else {},
        )
    except CheckpointError as error:
        raise DamagedCheckpointError(str(error)) from error


def _write_progress(folder: Path, progress: Mapping[str, Any], hashes: Mapping[str, str]) -> None:
    content = {**progress, "files": dict(hashes)}
    write_json(folder / _PROGRESS, {**content, "sha256": _content_sha256(content)})


def _read_progress(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the progress and the hashes of the other files; older versions wrote no hashes."""
    path = folder / _PROGRESS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        _raise_if_out_of_reach(error)
        raise DamagedCheckpointError(f"{path}: cannot be read ({error}).") from error
    if not isinstance(content, dict):
        raise DamagedCheckpointError(f"{path}: is not a JSON object.")
    stated = content.pop("sha256", None)
    if stated is not None and stated != _content_sha256(content):
        raise DamagedCheckpointError(f"{path}: its content is not what was written (SHA-256).")
    if stated is None and "files" in content:
        raise DamagedCheckpointError(f"{path}: has lost the SHA-256 of its content.")
    if stated is None:
        _check_position(content, path)
    return content, content.pop("files", {})


def _check_position(content: Mapping[str, Any], path: Path) -> None:
    """Check the progress in a checkpoint that an older version wrote without a hash.

    Raises:
        DamagedCheckpointError: It has no position, or not the one in the name of its folder.
    """
    position = [content.get(name) for name in ("epoch", "step", "batch")]
    named = re.fullmatch(r"epoch-(\d+)-step-(\d+)", path.parent.name)
    expected = [int(number) for number in named.groups()] if named else position[:2]
    are_numbers = all(isinstance(number, int) and number >= 0 for number in position)
    if not are_numbers or position[:2] != expected:
        raise DamagedCheckpointError(
            f"{path}: epoch, step and batch are {position}, which is not where {path.parent.name} "
            "was."
        )


def _check_hash(path: Path, expected: str) -> None:
    try:
        found = sha256_of(path)
    except OSError as error:
        _raise_if_out_of_reach(error)
        raise DamagedCheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    if found != expected:
        raise DamagedCheckpointError(
            f"{path}: its content is not what was written (SHA-256 {found[:12]}..., expected "
            f"{expected[:12]}...)."
        )


def _raise_if_out_of_reach(error: Exception) -> None:
    """Raise an error again if the file is not at fault, so that its checkpoint is not set aside."""
    if isinstance(error, OSError) and error.errno in _OUT_OF_REACH:
        raise error


def _content_sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
