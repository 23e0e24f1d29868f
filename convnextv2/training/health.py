"""Check that a run still learns.

A step is checked before it is taken, the weights before they are saved, and the loss as it is
logged.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from convnextv2.errors import TrainingError

MAX_SKIPPED = 10
"""Steps in a row that may be left out. More of them cannot be due to single batches."""
LARGEST_WEIGHT = 1e8
"""A network that learns has no larger weights, and one whose update made them larger does not
recover."""
_SPIKE = 2.0
_STILL = 0.005
_LINES, _MIN_LINES = 20, 5
_ALIKE = 0.1
"""Diversity of 0.1 means that two channels have a cosine similarity of 0.8 on average."""
_MAX_SHARE = 0.5


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the 2-norm of all gradients together, as a scalar on their device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def check_weights(tensors: Mapping[str, Tensor], step: int) -> None:
    """Check weights before they replace good ones on the disk.

    Args:
        tensors: Name -> tensor.
        step: Steps done.

    Raises:
        TrainingError: A weight is not finite, or is larger than `LARGEST_WEIGHT`.
    """
    named = {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and tensor.numel()  # a rank's part may be empty
    }
    if not named:
        return
    largest = torch._foreach_norm(list(named.values()), math.inf)
    values = torch.stack([value.float() for value in largest]).tolist()
    for name, value in zip(named, values, strict=True):
        if not value <= LARGEST_WEIGHT:
            raise TrainingError(
                f"{name}: has a weight of {value:.3g} after step {step}, so it is not saved over "
                "the last good checkpoint. Lower lr, or set clip_norm, and continue with --resume "
                "--resume_allow lr,clip_norm."
            )


class LossWatch:
    """Warns if the loss jumps or stalls, judged by the means that the log shows.

    Args:
        baseline: The loss of a model that has learned nothing, if it is known. For FCMAE with
            normalised targets, whose tiles have variance 1, predicting their mean costs 1.
        losses: The means of earlier lines of the log, if the run is continued.
    """

    def __init__(self, baseline: float | None = None, losses: Sequence[float] = ()) -> None:
        self.baseline = baseline
        self._losses = deque(losses, maxlen=_LINES)
        self._has_warned = False

    def check(self, loss: float) -> str:
        """Compare the next mean loss with those before it.

        Returns:
            A line for the user if the loss spikes or stalls; otherwise an empty text.
        """
        recent = median(self._losses) if len(self._losses) >= _MIN_LINES else None
        self._losses.append(loss)
        if recent is not None and 0 < recent < loss / _SPIKE:
            return (
                f"loss {loss:.4g}: a spike, {loss / recent:.1f} times the median of the lines "
                f"before ({recent:.4g}). If it does not come down, lower lr or set clip_norm."
            )
        if self.baseline is not None and not self._has_warned and len(self._losses) == _LINES:
            self._has_warned = all(abs(loss / self.baseline - 1) < _STILL for loss in self._losses)
            if self._has_warned:
                return (
                    f"loss {loss:.4g}: for {_LINES} lines, about the loss of predicting the mean "
                    "of each tile. The model has collapsed, or has not begun to learn."
                )
        return ""


def feature_warnings(record: Mapping[str, Any], first: Mapping[str, Any] | None) -> list[str]:
    """Warn if the features of a pre-training run collapse.

    Args:
        record: A record of the kind "health".
        first: The first such record of the run; None if this is it.

    Returns:
        Lines for the user, none if nothing is wrong.
    """
    lines, names = [], record["layers"]
    then = first["diversity"] if first is not None else record["diversity"]
    alike = [
        name
        for name, now, before in zip(names, record["diversity"], then, strict=True)
        if now is not None and before is not None and now < min(_ALIKE, before / 2)
    ]
    if alike:
        lines.append(
            f"the channels of layers {', '.join(alike)} have become similar (diversity below "
            f"{_ALIKE}, and below half of what it was). The features collapse: use block v2, or "
            "lower lr."
        )
    for figure, what in (("dead", "hardly ever active"), ("saturated", "the same everywhere")):
        most = [name for name, now in zip(names, record[figure], strict=True) if now > _MAX_SHARE]
        if most:
            lines.append(
                f"more than half of the channels of layers {', '.join(most)} are {what} "
                f"({figure}). Lower lr, or set clip_norm."
            )
    broken = [name for name, now in zip(names, record["diversity"], strict=True) if now is None]
    if broken:
        lines.append(f"the features of layers {', '.join(broken)} are all 0 or not finite.")
    return lines
