"""The state of training that must survive a restart, besides the weights.

It consists of the state of the optimizer, by parameter name, and the position in the run.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from convnextv2.errors import CheckpointError
from convnextv2.training.shard import placed_like


@dataclass
class Progress:
    """The position of a run.

    All randomness follows from (seed, epoch, step), so no generator is saved.

    Attributes:
        step: Steps done.
        epoch: Epochs whose steps are done.
        batch: Batches of the current epoch that were used.
        best: The best score so far, see `score_of`.
        best_epoch: The epoch after which it was first reached. None in older checkpoints.
        score: The score of the current weights; None if they were not evaluated.
        scaler: The state of the gradient scaler.
        average_ahead: The number of updates by which the average is ahead of `step`. It may differ
            from 0 after continuing from MindCV.
        conditions: The other conditions on which the result depends; see `training.conditions`. It
            is empty in older checkpoints.
        closed: The number of epochs that are evaluated and logged. It is None in older checkpoints,
            which were written after the evaluation.
        last_loss: The loss of the last step; None before the first.
        loss_sum: The sum of the losses since the last line of the log, over all ranks.
        loss_count: The number of these losses.
        plan: The plan for the end of the run if it has a time limit; see `training.deadline.Plan`.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float | None = None
    best_epoch: int | None = None
    score: float | None = None
    scaler: dict[str, Any] = field(default_factory=dict)
    average_ahead: int = 0
    conditions: dict[str, Any] = field(default_factory=dict)
    closed: int | None = 0
    last_loss: float | None = None
    loss_sum: float = 0.0
    loss_count: int = 0
    plan: dict[str, Any] | None = None

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> Progress:
        """Restore the position from a checkpoint, including one of an older version.

        Raises:
            CheckpointError: It has an entry that this version does not know.
        """
        content = {"closed": None} | dict(saved)
        if images := content.pop("images", 0):
            content["conditions"] = {"images": images}
        if unknown := sorted(content.keys() - cls.__dataclass_fields__.keys()):
            raise CheckpointError(
                f"the checkpoint's progress.json has {', '.join(unknown)}, which this version does "
                "not know. Continue with the version that wrote it."
            )
        return cls(**content)

    @property
    def is_closed(self) -> bool:
        """True if the evaluation of the last complete epoch is finished and logged."""
        return self.closed is None or self.closed >= self.epoch

    def take_score(self, score: float) -> bool:
        """Remember the score of the current weights, and return whether none was better.

        If several weights have the same score, the latest are the best. They have learned for
        longer, which a score such as top-1 on few images may not show. Patience is counted from the
        first of them.
        """
        self.score = score
        if self.best is not None and score < self.best:
            return False
        if self.best is None or score > self.best:
            self.best, self.best_epoch = score, self.epoch
        return True

    def is_out_of(self, patience: int | None) -> bool:
        """Return whether the score has not improved for too many epochs.

        The answer is False before the current weights are evaluated, since they may be the best.

        Args:
            patience: The number of epochs; None for no limit.
        """
        return (
            patience is not None
            and self.score is not None
            and self.epoch - (self.best_epoch or 0) >= patience
        )


def score_of(figures: Mapping[str, Any], name: str) -> float | None:
    """Return the figure that decides which weights are best, so that larger is better.

    Args:
        figures: The figures of an evaluation, or a record of it.
        name: The figure that decides. A loss is negated. A loss that is not finite is the worst.

    Returns:
        The score, or None if there is no such figure.
    """
    value = figures.get(name)
    if name != "loss" or value is None:
        return value
    return -value if math.isfinite(value) else -sys.float_info.max


def best_of(records: Iterable[Mapping[str, Any]], name: str) -> tuple[float | None, int | None]:
    """Find the best score in a log, the earliest if there are several.

    Args:
        records: Records of metrics.jsonl.
        name: The figure that decides, see `score_of`.

    Returns:
        The score and its epoch; None for both if the log has no such figure.
    """
    best, epoch = None, None
    for record in records:
        score = score_of(record, name) if record["kind"] in ("eval", "epoch") else None
        if score is not None and (best is None or score > best):
            best, epoch = score, int(record["epoch"])
    return best, epoch


def network_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model by name, without those that only training needs.

    The latter belong to the layer `projection` of a student, which maps its features to those of a
    teacher.
    """
    return {
        name: tensor for name, tensor in model.state_dict().items() if not is_beside_network(name)
    }


def weights_beside(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that `network_weights` leaves out; empty unless there is a teacher."""
    return {name: tensor for name, tensor in model.state_dict().items() if is_beside_network(name)}


def is_beside_network(name: str) -> bool:
    """Return whether a tensor with this name is trained but is not a part of the network."""
    return name.startswith("projection.")


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the state of the optimizer as "parameter name|key" -> tensor."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}|{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor], step: int
) -> None:
    """Restore the state of an optimizer.

    Args:
        optimizer: The optimizer.
        model: The model whose parameters it trains.
        tensors: The state as `optimizer_tensors` returned it.
        step: Updates done, which some optimizers count for each group.

    Raises:
        CheckpointError: The tensors belong to other parameters, or have other shapes.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, what = key.rpartition("|")
        by_name.setdefault(name, {})[what] = tensor
    parameters = [
        names[parameter] for group in optimizer.param_groups for parameter in group["params"]
    ]
    if by_name and set(by_name) != set(parameters):
        odd = sorted(set(by_name) ^ set(parameters))[0]
        raise CheckpointError(
            f"the checkpoint's optimizer state belongs to other parameters, for example {odd}. "
            "Resume with the recipe it was written with."
        )
    trained = dict(model.named_parameters())
    for name, state in by_name.items():
        for what, tensor in state.items():
            if tensor.dim() and tensor.shape != trained[name].shape:
                raise CheckpointError(
                    f"the checkpoint's optimizer state has {name} ({what}) as "
                    f"{tuple(tensor.shape)}, the model as {tuple(trained[name].shape)}. Leave the "
                    "state out (MindCV: resume_opt), or use the model that it was written with."
                )
            if tensor.dim():
                state[what] = placed_like(trained[name], tensor)
    # torch.optim.Optimizer.load_state_dict knows which device each kind of state belongs on.
    optimizer.load_state_dict(
        {
            "state": {i: by_name[name] for i, name in enumerate(parameters) if name in by_name},
            "param_groups": optimizer.state_dict()["param_groups"],
        }
    )
    if type(optimizer).__module__.startswith("pytorch_optimizer"):
        for group in optimizer.param_groups:
            group["step"] = step
