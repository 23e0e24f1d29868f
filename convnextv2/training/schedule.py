"""Learning rate as a function of the step: pure arithmetic, no state."""

from __future__ import annotations

import math
from collections.abc import Callable

from convnextv2.recipe.knobs import Recipe


def warmup_lr(step: int, *, peak: float, warmup_steps: float, factor: float) -> float:
    """Linear from factor * peak at step 0 to peak at `warmup_steps`."""
    return peak * (factor + (1 - factor) * step / warmup_steps)


def cosine_lr(step: int, *, peak: float, floor: float, decay_steps: float) -> float:
    """Half a cosine from peak at step 0 to floor at `decay_steps`, floor from there on."""
    if step >= decay_steps:
        return floor
    return floor + (peak - floor) / 2 * (1 + math.cos(math.pi * step / decay_steps))


def build_schedule(recipe: Recipe, *, peak: float, floor: float, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate of step 0, 1, ... for a recipe; `peak` and `floor` are already scaled for the batch."""
    warmup_steps = recipe.warmup_epochs * steps_per_epoch
    decay_epochs = recipe.decay_epochs or max(recipe.epochs - recipe.warmup_epochs, 0)

    def lr_at(step: int) -> float:
        if step < warmup_steps:
            return warmup_lr(step, peak=peak, warmup_steps=warmup_steps, factor=recipe.warmup_factor)
        if recipe.schedule == "constant":
            return peak
        # Counted in whole steps from the end of the warm-up, as by MindCV and, up to less than a step, the official code.
        return cosine_lr(step - math.ceil(warmup_steps), peak=peak, floor=floor, decay_steps=decay_epochs * steps_per_epoch)

    return lr_at


def scaled_lr(recipe: Recipe, global_batch: int) -> tuple[float, float]:
    """(lr, min_lr) to train with: as stated, or with `scale_lr` by the linear rule for the global batch really used."""
    factor = global_batch / recipe.lr_batch_size if recipe.scale_lr and recipe.lr_batch_size else 1.0
    return recipe.lr * factor, recipe.min_lr * factor
