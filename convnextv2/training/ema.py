"""Exponential moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from convnextv2.training.shard import local, placed_like
from convnextv2.training.state import is_beside_network


def decay_at(step: int, decay: float, form: str = "warmup") -> float:
    """Return the decay of an update of the average.

    Args:
        step: The number of the update, 1 for the first.
        decay: The decay that is approached.
        form: With "warmup", the decay is min(decay, (1 + step) / (10 + step)), so that the average
            does not remember the initial weights for 1 / (1 - decay) steps. Source: TensorFlow's
            ExponentialMovingAverage with num_updates. With "mindcv", it is
            decay * (1 - exp(-step / 2000)). With "constant", it is decay itself, as in the official
            code.
    """
    if form == "warmup":
        return min(decay, (1 + step) / (10 + step))
    return decay * (1 - math.exp(-step / 2000)) if form == "mindcv" else decay


class WeightAverage:
    """A moving average of the network's weights, and of the statistics of batch norms.

    After each step, average = d * average + (1 - d) * weights, with d from `decay_at`. If the model
    is sharded, each rank averages its own part.
    """

    def __init__(self, model: nn.Module, decay: float, form: str = "warmup") -> None:
        self.decay, self.form = decay, form
        self._parameters = {
            name: tensor
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
            if not is_beside_network(name)
        }
        self.tensors = {
            name: parameter.detach().clone() for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the current weights.

        Args:
            step: The number of this update, 1 for the first.
        """
        decay = decay_at(step, self.decay, self.form)
        torch._foreach_lerp_(
            [local(average) for average in self.tensors.values()],
            [local(parameter.detach()) for parameter in self._parameters.values()],
            1 - decay,
        )

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from a saved average."""
        for name, tensor in self.tensors.items():
            tensor.copy_(placed_like(tensor, tensors[name]))

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Put the average into the model for the `with` block, and restore its weights after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self.tensors.items():
            weights = self._parameters[name].detach()
            held = weights.clone()
            weights.copy_(average)
            average.copy_(held)
