"""The batches of a step that was not finite, kept in the run folder for `replay`.

A file such as bad_steps/step-00000124-rank-0.safetensors holds the pixels, targets and indices of
each batch. Its metadata holds the step, the losses and the file names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convnextv2.data.batch import Batch
from convnextv2.errors import CheckpointError
from convnextv2.files import parse_json
from convnextv2.weights.safetensors import read_tensors, write_tensors

_FOLDER, _KEY = "bad_steps", "convnextv2.bad_step"


@dataclass(frozen=True)
class BadStep:
    """A step whose loss or gradient is not finite.

    Attributes:
        number: The number of steps before it.
        batches: This rank's batches of the step.
        losses: The loss of each of these batches.
        gradient_norm: The norm of the gradient averaged over ranks; NaN if the loss was not finite.
    """

    number: int
    batches: list[Any]
    losses: list[float]
    gradient_norm: float


def bad_step_line(bad: BadStep, where: str, *, is_exact: bool) -> str:
    """Return a line that says what was not finite and what to do.

    Args:
        bad: The step.
        where: The file with its batches, and the names of their images.
        is_exact: Whether the step itself is known, or only that it was a recent one.
    """
    what = next((f"loss = {loss}" for loss in bad.losses if not math.isfinite(loss)), None)
    what = what or f"the gradient's norm = {bad.gradient_norm}"
    when = (
        f"at step {bad.number + 1}, which is not taken"
        if is_exact
        else f"near step {bad.number + 1}"
    )
    return (
        f"{what} {when}: training stops. Look at its batch with `convnextv2 replay`: {where}. "
        "Lower lr, lengthen the warm-up, or skip such steps: --resume --bad_steps skip."
    )


@dataclass(frozen=True)
class KeptStep:
    """A step that was kept.

    Attributes:
        step: The number of the step, from 1.
        epoch: The epoch of the step, from 0.
        rank: The rank whose batches these are.
        losses: The loss of each batch.
        gradient_norm: The norm of the gradient averaged over ranks.
        batches: The batches that the network was given.
        names: The names of the images in each batch.
    """

    step: int
    epoch: int
    rank: int
    losses: list[float]
    gradient_norm: float
    batches: list[Batch]
    names: list[list[str]]


def save_bad_step(folder: Path, bad: BadStep, names: Sequence[str], epoch: int, rank: int) -> Path:
    """Write the batches of a step that was not finite.

    Args:
        folder: The run folder.
        bad: The step, with batches from the loader.
        names: The names of all training images, by index.
        epoch: The epoch of the step, from 0.
        rank: This rank.

    Returns:
        The file.
    """
    path = folder / _FOLDER / f"step-{bad.number + 1:08d}-rank-{rank}.safetensors"
    path.parent.mkdir(exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for i, batch in enumerate(bad.batches):
        tensors |= {f"{i}.{name}": tensor for name, tensor in _tensors_of(batch).items()}
    content = {
        "step": bad.number + 1,
        "epoch": epoch,
        "rank": rank,
        "losses": [repr(loss) for loss in bad.losses],
        "gradient_norm": repr(bad.gradient_norm),
        "names": [[names[i] for i in batch.indices.tolist()] for batch in bad.batches],
    }
    write_tensors(path, tensors, {_KEY: json.dumps(content)})
    return path


def bad_steps(folder: Path) -> list[Path]:
    """List the files of the steps that a run kept, in order."""
    return sorted((folder / _FOLDER).glob("step-*.safetensors"))


def read_bad_step(path: Path) -> KeptStep:
    """Read a step that was kept.

    Raises:
        CheckpointError: The file cannot be read, or is not a kept step.
    """
    tensors, metadata = read_tensors(path)
    try:
        content = parse_json(metadata[_KEY])
        batches = [
            Batch(
                tensors[f"{i}.pixels"],
                _targets_in(tensors, f"{i}.targets", len(names)),
                tensors[f"{i}.indices"],
            )
            for i, names in enumerate(content["names"])
        ]
        for batch, names in zip(batches, content["names"], strict=True):
            _check(batch, names)
        return KeptStep(
            step=int(content["step"]),
            epoch=int(content["epoch"]),
            rank=int(content["rank"]),
            losses=[float(loss) for loss in content["losses"]],
            gradient_norm=float(content["gradient_norm"]),
            batches=[batch._replace(pixels=_channels_last(batch.pixels)) for batch in batches],
            names=content["names"],
        )
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{path}: is not a kept step ({error}).") from error


def _check(batch: Batch, names: Any) -> None:
    """Check that a batch has pixels of images, and as many names, targets and indices.

    Raises:
        ValueError: It does not.
        TypeError: A tensor has no dimensions.
    """
    pixels, targets, indices = batch
    if pixels.dtype != torch.uint8 or pixels.dim() != 4:
        raise ValueError(f"pixels are {pixels.dtype} with {pixels.dim()} dimensions")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("names of images are not text")
    counts = [len(names), len(pixels), len(targets), len(indices)]
    if not names or len(set(counts)) > 1:
        raise ValueError(f"the numbers of names, images, targets and indices are {counts}")


def _tensors_of(batch: Batch) -> dict[str, torch.Tensor]:
    """Return the tensors of a batch by name. Targets may be one dictionary for each image."""
    tensors = {"pixels": batch.pixels, "indices": batch.indices}
    if isinstance(batch.targets, torch.Tensor):
        return tensors | {"targets": batch.targets}
    for j, target in enumerate(batch.targets):
        tensors |= {f"targets.{j}.{name}": tensor for name, tensor in target.items()}
    return tensors


def _targets_in(tensors: dict[str, torch.Tensor], head: str, images: int) -> Any:
    """Return the targets of a batch, the inverse of `_tensors_of`."""
    if head in tensors:
        return tensors[head]
    found = [
        {
            name.removeprefix(f"{head}.{j}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{head}.{j}.")
        }
        for j in range(images)
    ]
    if not all(found):
        raise KeyError(head)
    return found


def _channels_last(pixels: torch.Tensor) -> torch.Tensor:
    """Lay out pixels in memory as the loader does, so that the same kernels run."""
    return pixels.contiguous(memory_format=torch.channels_last) if pixels.dim() == 4 else pixels
