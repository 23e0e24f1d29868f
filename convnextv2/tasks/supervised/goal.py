"""The parts of a supervised task that depend on its labels: one class or any number per image.

A goal has no base class: any class with these attributes and methods is one. The goals of this
package are in `tasks.classification` and `tasks.multi_label`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from convnextv2.data.loader import EvaluationLoader
from convnextv2.data.source import Source
from convnextv2.distributed import Place
from convnextv2.recipe.knobs import Recipe


class Criterion(NamedTuple):
    """The loss of a run.

    Attributes:
        loss: Maps (logits, targets) to a float32 scalar.
        balance: See `Description.balance`.
        lines: Lines for the user.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    balance: dict[str, Any]
    lines: list[str]


class LabelGoal(Protocol):
    """The part of a supervised task that depends on what its labels are."""

    kind: str
    """The kind of the weights; see `Description.kind`."""

    def check(self, recipe: Recipe, source: Source, validation: Source | None) -> None:
        """Check that the recipe and the images match.

        Args:
            recipe: The recipe.
            source: The training images.
            validation: The validation images; None if there are none.

        Raises:
            ConvNeXtV2Error: They do not match.
        """

    def score(self, recipe: Recipe) -> str:
        """Return the name of the figure that decides which weights are best."""

    def initial_bias(self, recipe: Recipe, source: Source) -> Tensor | None:
        """Return the biases that a new head starts with.

        Args:
            recipe: The recipe.
            source: The training images.

        Returns:
            float32, one for each class of the data; None for zeros.
        """

    def criterion(
        self,
        recipe: Recipe,
        source: Source,
        validation: Source | None,
        class_names: Sequence[str],
        device: torch.device,
    ) -> Criterion:
        """Build the loss.

        Args:
            recipe: The recipe.
            source: The training images.
            validation: The validation images; None if there are none.
            class_names: The names of the rows of the head.
            device: The device of the logits.
        """

    def evaluate(
        self,
        logits: Callable[[Tensor], Tensor],
        loader: EvaluationLoader,
        *,
        images: int,
        num_classes: int,
        to_images: Callable[[Tensor], Tensor],
        place: Place,
    ) -> tuple[dict[str, float], list[float]]:
        """Evaluate a model. Every image is counted exactly once over all ranks.

        Args:
            logits: Maps images to logits.
            loader: The batches of this rank.
            images: The number of images over all ranks.
            num_classes: The number of rows of the head.
            to_images: Maps pixels to the images that `logits` takes.
            place: This rank.

        Returns:
            The figures by name, and a threshold for each class; none if there are no thresholds.
        """
