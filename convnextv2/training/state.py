"""What must survive a restart besides the weights.

This is the state of the optimizer, by parameter name, and the position in the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from convnextv2.errors import CheckpointError


@dataclass
class Progress:
    """The position of a run.

    All randomness follows from (seed, epoch, step), so no generator is saved.

    Attributes:
        step: Steps done.
        epoch: Epochs whose steps are done.
        batch: Batches of the current epoch that were used.
        best: The best score so far.
        score: The score of the current weights; None if they were not evaluated.
        scaler: The state of the gradient scaler.
        average_ahead: The number of updates by which the average is ahead of `step`. It may differ
            from 0 after continuing from MindCV.
        conditions: What else the result depends on, see `training.conditions`. It is empty in older
            checkpoints.
        closed: Epochs that are evaluated and logged. It is None in older checkpoints, which were
            written after the evaluation.
        last_loss: The loss of the last step; None before the first.
        loss_sum: The sum of the losses since the last line of the log, over all ranks.
        loss_count: The number of these losses.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float | None = None
    score: float | None = None
    scaler: dict[str, Any] = field(default_factory=dict)
    average_ahead: int = 0
    conditions: dict[str, Any] = field(default_factory=dict)
    closed: int | None = 0
    last_loss: float | None = None
    loss_sum: float = 0.0
    loss_count: int = 0

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
                "not know. Go on with the version that wrote it."
            )
        return cls(**content)

    @property
    def is_closed(self) -> bool:
        """Whether the evaluation of the last whole epoch is done and logged."""
        return self.closed is None or self.closed >= self.epoch


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
            f"the checkpoint's optimizer state is of other parameters, for example {odd}. Resume "
            "with the recipe it was written with."
        )
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name, state in by_name.items():
        for what, tensor in state.items():
            if tensor.dim() and tensor.shape != shapes[name]:
                raise CheckpointError(
                    f"the checkpoint's optimizer state has {name} ({what}) as "
                    f"{tuple(tensor.shape)}, the model as {tuple(shapes[name])}. Leave the state "
                    "out (MindCV: resume_opt), or use the model that it was written with."
                )
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
