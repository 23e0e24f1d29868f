"""The files that MindCV's train.py writes and reads again.

They are MindSpore checkpoints with training state, and a log:

- {model}-{epoch}_{batches per epoch}.ckpt is written at each save, and kept by the same policy as
  our own checkpoints.
- {model}_best.ckpt is written at each new best top-1 accuracy.
- optim_{model}.ckpt is the newest file of the first kind.
- result.log has a line for each epoch.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.files import replacing
from convnextv2.retention import kept
from convnextv2.weights.detect import depths_of, detect
from convnextv2.weights.mindspore import read_ckpt, write_ckpt
from convnextv2.weights.names import name_table, to_canonical, to_foreign
from convnextv2.weights.opened import Weights

_COLUMN = 20
_FIRST, _SECOND = ("adam_m", "exp_avg"), ("adam_v", "exp_avg_sq")


class Position(NamedTuple):
    """The position in training that a MindSpore checkpoint states.

    Attributes:
        epoch: The number of epochs that are finished.
        how: The source of this number, for a message.
    """

    epoch: int
    how: str


def result_log(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the text of result.log, in columns of 20 characters as MindCV writes it.

    An epoch without validation has accuracies of 0. The column for top-5 exists only if there are
    at least five classes.

    Args:
        records: The records of a run. Those of the kind "epoch" are used.
    """
    epochs = [record for record in records if record["kind"] == "epoch"]
    has_top5 = any("top5" in record for record in epochs)
    header = [
        "Epoch",
        "TrainLoss",
        "Top_1_Accuracy",
        *["Top_5_Accuracy"] * has_top5,
        "TrainTime",
        "EvalTime",
        "TotalTime",
    ]
    rows = [header] + [
        [
            str(record["epoch"]),
            f"{record['last_loss']:.6f}",
            f"{record.get('top1', 0):.4%}",
            *[f"{record.get('top5', 0):.4%}"] * has_top5,
            *(f"{record[name]:.2f}" for name in ("train_s", "eval_s", "total_s")),
        ]
        for record in epochs
    ]
    return "".join("".join(cell.ljust(_COLUMN) for cell in row) + "\n" for row in rows)


def read_result_log(text: str, steps_per_epoch: int) -> list[dict[str, Any]]:
    """Read a result.log of ours or of MindCV. Other lines in it are ignored.

    Args:
        text: The content of the file.
        steps_per_epoch: Steps in an epoch.

    Returns:
        The "epoch" records from which `result_log` would write this text.
    """
    records = []
    for line in text.splitlines():
        if not re.fullmatch(r"\d+( +-?[\d.einfan+-]+%?){5,6} *", line):
            continue
        epoch, loss, *accuracies, train_s, eval_s, total_s = line.split()
        record: dict[str, Any] = {
            "kind": "epoch",
            "step": int(epoch) * steps_per_epoch,
            "epoch": int(epoch),
        }
        record |= {
            "last_loss": float(loss),
            "train_s": float(train_s),
            "eval_s": float(eval_s),
            "total_s": float(total_s),
        }
        if float(eval_s):  # otherwise there was no evaluation, and the accuracies are 0
            record |= {
                key: float(share.rstrip("%")) / 100
                for key, share in zip(("top1", "top5"), accuracies, strict=False)
            }
        records.append(record)
    return records


def write_training_checkpoint(
    path: Path,
    weights: Mapping[str, Tensor],
    *,
    depths: Sequence[int],
    average: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    step: int,
    updates: int,
    betas: tuple[float, float],
    lrs: Sequence[float],
) -> None:
    """Write a MindSpore checkpoint with the tags that MindCV's training loop saves.

    Args:
        path: The file to write.
        weights: Canonical name -> tensor.
        depths: Blocks in each stage.
        average: Canonical name -> averaged tensor; empty without an average.
        optimizer: The optimizer's state from `training.state.optimizer_tensors`. Its moments are
            written if the optimizer is a variant of Adam.
        step: Steps done.
        updates: Updates of the average.
        betas: The decay rates of the optimizer's moments.
        lrs: The learning rate of every step of the run.
    """
    table = name_table("mindcv", depths)

    def to_mindcv(name: str, tensor: Tensor) -> Tensor:
        return to_foreign("mindcv", name, tensor).float()

    tensors = {table[name]: to_mindcv(name, tensor) for name, tensor in weights.items()}
    for tag, key in (_FIRST, _SECOND):
        tensors |= {
            f"{tag}.{table[name]}": to_mindcv(name, optimizer[f"{name}|{key}"])
            for name in weights
            if f"{name}|{key}" in optimizer
        }
    tensors |= {
        "global_step": torch.tensor([step], dtype=torch.int32),
        "beta1_power": torch.tensor([betas[0] ** step]),
        "beta2_power": torch.tensor([betas[1] ** step]),
        "learning_rate": torch.tensor(list(lrs)),
    }
    if average:
        tensors |= {
            f"ema.{table[name]}": to_mindcv(name, tensor) for name, tensor in average.items()
        }
        tensors |= {"updates": torch.tensor(float(updates))}
    write_ckpt(path, tensors)


def write_plain_checkpoint(
    path: Path, weights: Mapping[str, Tensor], depths: Sequence[int]
) -> None:
    """Write a MindSpore checkpoint that holds only weights."""
    table = name_table("mindcv", depths)
    write_ckpt(
        path,
        {
            table[name]: to_foreign("mindcv", name, tensor).float()
            for name, tensor in weights.items()
        },
    )


def checkpoint_name(model: str, epoch: int, batches_per_epoch: int) -> str:
    """Return MindCV's name for the checkpoint after an epoch."""
    return f"{model}-{epoch}_{batches_per_epoch}.ckpt"


def prune(
    folder: Path, model: str, epoch: int, *, keep: int, policy: str, scores: Mapping[int, float]
) -> None:
    """Delete the epoch checkpoints that the policy does not keep, including those of MindCV itself.

    Args:
        folder: The folder of the checkpoints.
        model: The name of the model, with which the names of the files begin.
        epoch: The last epoch whose checkpoint may be deleted.
        keep: The number of checkpoints to keep.
        policy: See `retention.kept`.
        scores: Epoch -> score, for the epochs that were validated. Larger is better.
    """
    files: dict[int, list[Path]] = {}
    for path in folder.glob(f"{model}-*_*.ckpt"):
        match = re.fullmatch(rf"{re.escape(model)}-(\d+)_\d+\.ckpt", path.name)
        if match and int(match[1]) <= epoch:
            files.setdefault(int(match[1]), []).append(path)
    epochs = sorted(files)
    staying = kept(epochs, scores, keep, policy)
    for number in set(epochs) - set(staying):
        for path in files[number]:
            path.unlink()


def link_as_optim(newest: Path, model: str) -> None:
    """Link a checkpoint as optim_{model}.ckpt, the name that MindCV looks for."""
    target = newest.with_name(f"optim_{model}.ckpt")
    with replacing(target) as temporary:
        temporary.unlink()  # a link needs a free name
        try:
            os.link(newest, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(newest, temporary)


def position_of(name: str, tensors: Mapping[str, Tensor], steps_per_epoch: int) -> Position:
    """Find the epoch that a MindSpore checkpoint has finished.

    It is taken from the name of the file, or else from the step counter in it, or else it is 0.

    Args:
        name: The name of the file.
        tensors: Its content.
        steps_per_epoch: Steps in an epoch.
    """
    if match := re.search(r"-(\d+)_(\d+)\.ckpt$", name):
        return Position(int(match[1]), "from its name")
    step = tensors.get("global_step")
    if step is not None and step.numel() == 1:
        return Position(int(step) // steps_per_epoch, f"from its global_step, {int(step)}")
    return Position(0, "neither its name nor its content has an epoch")


def average_of(weights: Weights) -> tuple[dict[str, Tensor], int] | None:
    """Read the moving average in a MindSpore checkpoint, and the number of its updates.

    Returns:
        Canonical name -> tensor, and the number; None if the checkpoint has no average.
    """
    tensors = weights.container.tensors
    if not any(name.startswith("ema.") for name in tensors):
        return None
    updates = tensors.get("updates", tensors.get("global_step", torch.zeros(1)))
    return weights.average().tensors, int(updates) if updates.numel() == 1 else 0


def optimizer_state(
    weights: Weights, model: str, steps: int, batches: int | None = None
) -> dict[str, Tensor]:
    """Read AdamW's moments from a MindSpore checkpoint, or from the optim_{model}.ckpt beside it.

    MindCV overwrites the latter at each save, so it may belong to another epoch.

    Args:
        weights: The opened checkpoint.
        model: The name of the model, which is part of the name of the file beside it.
        steps: The number that the counter in the state must have.
        batches: The number that it may have instead, because MindCV counts every batch if gradients
            are accumulated.

    Returns:
        The moments, as `training.state.load_optimizer` takes them.

    Raises:
        CheckpointError: There are no moments, or they belong to another step.
    """
    path = source = weights.path
    tensors = weights.container.tensors
    if not any(name.startswith("adam_m.") for name in tensors):
        source = path.with_name(f"optim_{model}.ckpt")
        if not source.exists():
            raise CheckpointError(
                f"resume_opt = True: neither {path} nor {source} holds the optimizer's state. "
                "Leave it out."
            )
        tensors = read_ckpt(source)
    counted = (
        int(tensors["global_step"])
        if tensors.get("global_step", torch.empty(0)).numel() == 1
        else None
    )
    if counted not in (steps, batches or steps):
        raise CheckpointError(
            f"resume_opt = True: the optimizer's state in {source} was saved at step "
            f"{counted}, the weights at step {steps}. Leave it out, or give the checkpoint that "
            "belongs to it."
        )
    moments: dict[str, Tensor] = {}
    for tag, key in (_FIRST, _SECOND):
        own = _moment(tensors, tag, source)
        moments |= {f"{name}|{key}": tensor for name, tensor in own.items()}
    names = {name.rpartition("|")[0] for name in moments}
    return moments | {f"{name}|step": torch.tensor(float(steps)) for name in names}


def _moment(tensors: Mapping[str, Tensor], tag: str, source: Path) -> dict[str, Tensor]:
    """Return one of the two moments in a MindSpore checkpoint by canonical names.

    Args:
        tensors: The content of the checkpoint.
        tag: The prefix of the names of this moment.
        source: The checkpoint, for messages.

    Raises:
        CheckpointError: The moment of a parameter is missing.
    """
    own = {
        name.removeprefix(f"{tag}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{tag}.")
    }
    found = detect(own)
    if found is None or found[0] != "mindcv":
        raise CheckpointError(
            f"resume_opt = True: {source} has no complete {tag} of a ConvNeXt V2. Leave it out."
        )
    table = name_table("mindcv", depths_of("mindcv", found[1], own), found[1])
    if missing := [theirs for theirs in table.values() if theirs not in own]:
        raise CheckpointError(
            f"resume_opt = True: {source} has no {tag}.{missing[0]}. Leave it out."
        )
    return {name: to_canonical(name, own[theirs]) for name, theirs in table.items()}
