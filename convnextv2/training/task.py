"""The interface of a task, as training uses it.

The loop knows nothing about classes, masks or boxes. Everything that differs from task to task is
in one object, which the loop, the keeper and the start of a run take. It has no base class: a plain
class with these attributes and methods is a task. The tasks of this package are in
`convnextv2.tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from convnextv2.data.source import Source
from convnextv2.recipe.knobs import Recipe
from convnextv2.weights.description import Description


class Stoppable(Protocol):
    """Something that may wait for a long time, but gives up if a stop is asked for."""

    stop_asked: Callable[[], bool]


class Batches(Protocol):
    """A rank's training batches, such as `data.loader.TrainingLoader`."""

    @property
    def source(self) -> Source:
        """The images."""

    @property
    def storage_wait(self) -> Stoppable:
        """The object that waits for images that are unavailable."""

    @property
    def skipped(self) -> Mapping[str, str]:
        """The images that were left out so far: name -> reason."""

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch."""

    def batches(self, epoch: int, first_batch: int = 0) -> Iterable[Any]:
        """Return the batches of an epoch, starting with batch number `first_batch`."""

    def end(self) -> None:
        """Stop the processes or threads that prepare batches, when the run has ended."""


class Examined(NamedTuple):
    """The result of an examination at the end of an epoch.

    Attributes:
        record: The record for the log, without step and epoch. It is the same each time if the
            weights are, so that a resumed run logs what an uninterrupted one does.
        lines: Lines that are printed at once.
    """

    record: dict[str, Any]
    lines: list[str]


Examine = Callable[[int, int], Iterable[Examined]]
"""Examines the model after an epoch, given the number of this epoch and of the last one. Epoch 0 is
before the first step. An examination decides nothing and draws none of the run's random numbers, so
it does not change what is learned. It returns nothing on ranks other than the main one."""


class Task(Protocol):
    """The task that a run learns. Plain attributes may take the place of the properties."""

    @property
    def recipe(self) -> Recipe:
        """The recipe, in which `batch_size` and `accumulate` are numbers."""

    @property
    def model(self) -> nn.Module:
        """The network that learns."""

    @property
    def description(self) -> Description:
        """The description of the network in the run's weights files."""

    @property
    def best_description(self) -> Description:
        """The description of the network as it was evaluated last, for the best weights."""

    @property
    def depths(self) -> Sequence[int]:
        """Blocks in each stage of the encoder, for layer decay; empty without stages."""

    @property
    def loader(self) -> Batches:
        """The training batches of this rank."""

    @property
    def validation(self) -> Source | None:
        """The validation images; None if there are none.

        If they change when a run is resumed, the search for the best weights begins anew.
        """

    @property
    def score(self) -> str | None:
        """The figure that decides which weights are best. Larger is better, except for "loss".

        It is None if the task is never evaluated.
        """

    @property
    def baseline_loss(self) -> float | None:
        """The loss of a model that has learned nothing; None if it is unknown."""

    def loss(self, model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        """Compute the loss of a batch.

        The step is not an argument. A quantity that changes over a run must be passed in here by
        `training.gradients`.

        Args:
            model: The network, wrapped if gradients are averaged over ranks.
            batch: A batch of the loader.
            generator: A generator on the CPU. All randomness of the loss must come from it.

        Returns:
            A scalar.
        """

    def size(self, batch: Any) -> int:
        """Return the number of images in a batch. A batch without images is skipped."""

    def evaluate(self) -> dict[str, float]:
        """Evaluate the model as it is. This is never called if `score` is None."""
