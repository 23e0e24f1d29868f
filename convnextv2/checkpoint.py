"""Reads and writes checkpoints: folders with all that a run needs to resume, hashed file by file.

    model.safetensors, model.json   the weights
    average.safetensors             their moving average, if the recipe asks for one
    optimizer.safetensors           the optimizer's tensors, by parameter name
    beside.safetensors              what is trained beside the network, if anything
    progress.json                   the position in the run; the SHA-256 of the other files and of
                                    its own content

If the run is sharded, each rank writes its part of all tensors, and the folder has

    model.json                      the description of the network
    shards/                         the tensors, see `checkpoint_shards`
    progress.json                   as above

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

from convnextv2.checkpoint_shards import Allocate, read_shards, write_shards
from convnextv2.distributed import Place, SideChannel
from convnextv2.errors import CheckpointError, DamagedCheckpointError
from convnextv2.files import sha256_of, sync_folder, write_json
from convnextv2.weights.description import Description, read_description, read_model_json
from convnextv2.weights.safetensors import WEIGHTS, read_tensors, save_weights, write_tensors

_AVERAGE, _OPTIMIZER, _PROGRESS = "average.safetensors", "optimizer.safetensors", "progress.json"
_BESIDE = "beside.safetensors"
_SHARDS, _DESCRIPTION = "shards", "model.json"
_KINDS = ("weights", "average", "optimizer", "beside")
_OUT_OF_REACH = (errno.EACCES, errno.EPERM, errno.ESTALE, errno.EMFILE)
"""Errors of the system that say nothing about a file's content."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to resume.

    Attributes:
        description: The network that the weights belong to.
        weights: The weights by parameter name.
        average: Their moving average by parameter name; empty if there is none.
        optimizer: The optimizer's tensors, as `training.state.optimizer_tensors` names them.
        progress: The position and everything else that is not a tensor, in types that JSON has.
        beside: Tensors that are trained beside the network but are not part of it, such as the
            projection to a teacher's features, by parameter name; usually empty.
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


def write_sharded_checkpoint(folder: Path, checkpoint: Checkpoint, channel: SideChannel) -> None:
    """Write a checkpoint of which each rank has a part. All ranks must call this together.

    The folder gets its name from the first rank, once the parts of all ranks are on the disk.

    Args:
        folder: The folder to create, on a file system that all ranks share.
        checkpoint: Its content, with tensors that may be DTensors.
        channel: The connection to the other ranks.

    Raises:
        OSError: The system of any rank cannot write it.
    """
    is_main, temporary = channel.rank == 0, folder.with_name(folder.name + ".tmp")
    shards = temporary / _SHARDS

    def begin() -> None:
        if is_main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            write_json(temporary / _DESCRIPTION, checkpoint.description.to_json())

    def hash_own() -> dict[str, str]:
        own = shards.glob(f"__{channel.rank}_*")
        return {f"{_SHARDS}/{path.name}": sha256_of(path) for path in own}

    def finish() -> None:
        if is_main:
            if missing := sorted(name for name in hashes if not (temporary / name).is_file()):
                raise OSError(
                    f"{temporary / missing[0]}: another rank wrote it, but it is not there. With "
                    "shard, out must be on a file system that all ranks share."
                )
            for name in (f"{_SHARDS}/.metadata", _DESCRIPTION):
                hashes[name] = sha256_of(temporary / name)
            sync_folder(shards)
            _write_progress(temporary, checkpoint.progress, dict(sorted(hashes.items())))
            os.replace(temporary, folder)
            sync_folder(folder.parent)

    channel.together(begin)
    write_shards(shards, _by_key(checkpoint), channel)
    hashes: dict[str, str] = {}
    for part in channel.gather(channel.together(hash_own)):
        hashes.update(part)
    channel.together(finish)


def _by_key(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint under keys such as "average/head.bias"."""
    return {
        f"{kind}/{name}": tensor
        for kind in _KINDS
        for name, tensor in getattr(checkpoint, kind).items()
    }


def is_sharded(folder: Path) -> bool:
    """Return whether the ranks of a run wrote a checkpoint in parts."""
    return (folder / _SHARDS).is_dir()


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
        DamagedCheckpointError: The file is missing, is not JSON, or has changed since then.
    """
    return _read_progress(folder)[0]


def read_checkpoint(
    folder: Path, *, allocate: Allocate | None = None, place: Place | None = None
) -> Checkpoint:
    """Read a checkpoint after checking the hash of every file.

    Older versions wrote no hashes. In their checkpoints only unreadable files are noticed.

    Args:
        folder: The checkpoint.
        allocate: Makes the tensors to read into if the checkpoint is sharded; see `read_shards`.
            Keys are a kind and a name, such as "average/head.bias". None reads whole tensors.
        place: This rank. If it is given, all ranks read the same checkpoint together: each checks
            the hashes of some of the parts, and all of them learn the result.

    Returns:
        Its content. Tensors are on the CPU unless `allocate` made them elsewhere.

    Raises:
        DamagedCheckpointError: A file is missing, cannot be read or has changed since it was
            written; the message names it.
    """
    progress, hashes = _read_progress(folder)
    if is_sharded(folder):
        _check_shards(folder, hashes, place)
        return _read_sharded(folder, progress, allocate)
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


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights to use from a checkpoint: the average if there is one.

    Args:
        folder: The checkpoint, which may be sharded.

    Returns:
        Whole tensors by parameter name, on the CPU.

    Raises:
        CheckpointError: A file is missing or damaged. Hashes are not checked.
    """
    if not is_sharded(folder):
        average = folder / _AVERAGE
        return read_tensors(average if average.exists() else folder / WEIGHTS)[0]
    for kind in ("average", "weights"):
        prefix = f"{kind}/"
        if found := read_shards(folder / _SHARDS, prefix=prefix):
            return {key.removeprefix(prefix): tensor for key, tensor in found.items()}
    raise DamagedCheckpointError(f"{folder / _SHARDS}: has no weights.")


def _read_sharded(folder: Path, progress: dict[str, Any], allocate: Allocate | None) -> Checkpoint:
    tensors: dict[str, dict[str, Tensor]] = {kind: {} for kind in _KINDS}
    for key, tensor in read_shards(folder / _SHARDS, allocate=allocate).items():
        kind, _, name = key.partition("/")
        if kind not in tensors:
            raise DamagedCheckpointError(f"{folder / _SHARDS}: has a tensor named {key}.")
        tensors[kind][name] = tensor
    try:
        description = read_model_json(folder / _DESCRIPTION)
    except CheckpointError as error:
        raise DamagedCheckpointError(str(error)) from error
    return Checkpoint(description, progress=progress, **tensors)


def _check_shards(folder: Path, hashes: Mapping[str, str], place: Place | None) -> None:
    """Check the files of a sharded checkpoint, each on one of the ranks."""
    if not hashes:
        raise DamagedCheckpointError(f"{folder}: its progress.json names no files.")
    rank, ranks = (place.rank, place.world_size) if place is not None else (0, 1)
    found: DamagedCheckpointError | OSError | None = None
    for name, expected in list(hashes.items())[rank::ranks]:
        try:
            _check_hash(folder / name, expected)
        except (DamagedCheckpointError, OSError) as error:
            found = found or error
    errors = place.gather(found) if place is not None else [found]
    if first := next(filter(None, errors), None):
        raise first


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
        raise DamagedCheckpointError(f"{path}: has changed since it was written (SHA-256).")
    if stated is None and "files" in content:
        raise DamagedCheckpointError(f"{path}: lacks the SHA-256 of its content.")
    if stated is None:
        _check_position(content, path)
    return content, content.pop("files", {})


def _check_position(content: Mapping[str, Any], path: Path) -> None:
    """Check the progress in a checkpoint that an older version wrote without a hash.

    Raises:
        DamagedCheckpointError: It has no position, or another one than the name of its folder.
    """
    position = [content.get(name) for name in ("epoch", "step", "batch")]
    named = re.fullmatch(r"epoch-(\d+)-step-(\d+)", path.parent.name)
    expected = [int(number) for number in named.groups()] if named else position[:2]
    are_numbers = all(isinstance(number, int) and number >= 0 for number in position)
    if not are_numbers or position[:2] != expected:
        raise DamagedCheckpointError(
            f"{path}: epoch, step and batch are {position}, which does not match "
            f"{path.parent.name}."
        )


def _check_hash(path: Path, expected: str) -> None:
    try:
        found = sha256_of(path)
    except OSError as error:
        _raise_if_out_of_reach(error)
        raise DamagedCheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    if found != expected:
        raise DamagedCheckpointError(
            f"{path}: has changed since it was written (SHA-256 {found[:12]}..., expected "
            f"{expected[:12]}...)."
        )


def _raise_if_out_of_reach(error: Exception) -> None:
    """Raise the error again if the file is not at fault, so its checkpoint is not set aside."""
    if isinstance(error, OSError) and error.errno in _OUT_OF_REACH:
        raise error


def _content_sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
