"""The batches of a step that was not finite, kept in the run folder for `replay`.

A file such as bad_steps/step-00000124-rank-0.safetensors holds the pixels, targets and indices of
each batch. Its metadata holds the step, the losses and the file names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from convnextv2.data.loader import Batch
from convnextv2.errors import CheckpointError
from convnextv2.training.loop import BadStep
from convnextv2.weights.safetensors import read_tensors, write_tensors

_FOLDER, _KEY = "bad_steps", "convnextv2.bad_step"


@dataclass(frozen=True)
class KeptStep:
    """A step that was kept.

    Attributes:
        step: The number of the step, from 1.
        epoch: The epoch of the step, from 0.
        rank: The rank whose batches these are.
        losses: The loss of each batch.
        gradient_norm: The norm of the gradient averaged over ranks.
        batches: The batches as the network got them.
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
        tensors |= {f"{i}.{name}": getattr(batch, name) for name in Batch._fields}
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
        content = json.loads(metadata[_KEY])
        batches = [
            Batch(*(tensors[f"{i}.{name}"] for name in Batch._fields))
            for i in range(len(content["names"]))
        ]
        return KeptStep(
            step=int(content["step"]),
            epoch=int(content["epoch"]),
            rank=int(content["rank"]),
            losses=[float(loss) for loss in content["losses"]],
            gradient_norm=float(content["gradient_norm"]),
            batches=[batch._replace(pixels=_channels_last(batch.pixels)) for batch in batches],
            names=content["names"],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: is no kept step ({error}).") from error


def _channels_last(pixels: torch.Tensor) -> torch.Tensor:
    """Lay out pixels in memory as the loader does, so that the same kernels run."""
    return pixels.contiguous(memory_format=torch.channels_last) if pixels.dim() == 4 else pixels
