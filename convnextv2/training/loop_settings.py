"""What the training loop takes from the recipe: length, batch, clipping, precision, intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from convnextv2.recipe.knobs import Recipe


@dataclass(frozen=True)
class LoopSettings:
    """What the training loop takes from the recipe.

    Attributes:
        epochs: The epoch after which the loop ends.
        batches_per_epoch: Batches of this rank in an epoch.
        batch_size: Images in a batch.
        accumulate: Batches in a step.
        clip_norm: Maximum norm of the gradient; None for no limit.
        log_every_steps: Steps between lines of the log.
        val_every_epochs: Epochs between evaluations.
        save_every_epochs: Epochs between checkpoints.
        seed: The seed of the run.
        dtype: The precision of the forward pass.
        save_every_steps: Steps between further checkpoints; None for no such checkpoints.
        save_every_s: Seconds between further checkpoints; None for no such checkpoints.
        skip_bad: Whether a step that is not finite is left out instead of ending the run.
        patience: Epochs without a better score after which the loop ends; None for no such end.
    """

    epochs: int
    batches_per_epoch: int
    batch_size: int
    accumulate: int
    clip_norm: float | None
    log_every_steps: int
    val_every_epochs: int
    save_every_epochs: int
    seed: int
    dtype: torch.dtype
    save_every_steps: int | None = None
    save_every_s: float | None = None
    skip_bad: bool = False
    patience: int | None = None

    def saves_after(self, epoch: int) -> bool:
        """Return whether a checkpoint is due after an epoch.

        It is due at each multiple of `save_every_epochs` and at the last planned epoch. If patience
        ends a run early, the loop saves that epoch by itself.
        """
        return is_due(epoch, every=self.save_every_epochs, last=self.epochs)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch. The last one may have fewer batches."""
        return math.ceil(self.batches_per_epoch / self.accumulate)

    @property
    def total_steps(self) -> int:
        """Steps in the whole run."""
        return self.epochs * self.steps_per_epoch


def is_due(count: int, *, every: int | None, last: int | None = None) -> bool:
    """Return whether something is due: at each multiple of `every`, and at the last count.

    Args:
        count: The current count, of steps or epochs.
        every: The interval; None for never.
        last: The last count; None if there is none.
    """
    return (every is not None and count % every == 0) or count == last


def build_loop_settings(recipe: Recipe, batches_per_epoch: int, dtype: torch.dtype) -> LoopSettings:
    """Collect the values of a recipe that the loop needs."""
    minutes = recipe.save_every_minutes
    return LoopSettings(
        epochs=recipe.epochs,
        batches_per_epoch=batches_per_epoch,
        batch_size=recipe.images_per_batch(),
        accumulate=recipe.accumulate,
        clip_norm=recipe.clip_norm,
        log_every_steps=recipe.log_every_steps,
        val_every_epochs=recipe.val_every_epochs,
        save_every_epochs=recipe.save_every_epochs,
        save_every_steps=recipe.save_every_steps,
        save_every_s=None if minutes is None else 60 * minutes,
        patience=recipe.patience,
        skip_bad=recipe.bad_steps == "skip",
        seed=recipe.seed,
        dtype=dtype,
    )
