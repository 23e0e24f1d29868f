"""The learning rate as a function of the step: pure arithmetic without state.

Steps are counted from the end of the warm-up, except in `one_cycle_lr` and `cyclic_lr`, which have
no other warm-up. Source of the curves: mindcv/scheduler at 51b0636.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from convnextv2.recipe.knobs import Recipe


def warmup_lr(step: float, *, peak: float, warmup_steps: float, factor: float) -> float:
    """Return a rate that rises linearly from factor * peak at step 0 to peak at `warmup_steps`."""
    return peak * (factor + (1 - factor) * step / warmup_steps)


def cosine_lr(
    step: float,
    *,
    peak: float,
    floor: float,
    decay_steps: float,
    cycles: int = 1,
    cycle_decay: float = 1.0,
) -> float:
    """Return a rate on `cycles` half cosines, one after another, and the floor after the last.

    Each goes from its peak to the floor within `decay_steps`. The first peak is `peak`, and each
    later peak is `cycle_decay` times the one before it.
    """
    cycle, step = divmod(step, decay_steps)
    if cycle >= cycles:
        return floor
    return floor + (peak * cycle_decay**cycle - floor) / 2 * (
        1 + math.cos(math.pi * step / decay_steps)
    )


def exponential_lr(epoch: float, *, peak: float, rate: float) -> float:
    """Return peak * rate^epoch, for a fractional epoch."""
    return float(peak * rate**epoch)


def step_lr(epoch: float, *, peak: float, rate: float, period: int) -> float:
    """Return the peak, multiplied by `rate` after each `period` epochs."""
    return float(peak * rate ** math.floor(math.floor(epoch) / period))


def multi_step_lr(epoch: float, *, peak: float, rate: float, milestones: Sequence[int]) -> float:
    """Return the peak, multiplied by `rate` at each milestone, in epochs."""
    return float(peak * rate ** sum(milestone <= math.floor(epoch) for milestone in milestones))


def polynomial_lr(epoch: float, *, peak: float, power: float, epochs: float) -> float:
    """Return peak * (1 - epoch / epochs)^power."""
    return float(peak * max(0.0, 1 - epoch / epochs) ** power)


def one_cycle_lr(step: int, *, peak: float, floor: float, total_steps: int) -> float:
    """Return a rate that rises along a cosine from peak / 25 for 30 % of the steps, then falls."""
    rise = 0.3 * total_steps - 1
    if step <= rise:
        low, share = peak / 25, step / rise
        return low + (peak - low) / 2 * (1 - math.cos(math.pi * share))
    share = (step - rise) / (total_steps - 1 - rise)
    return floor + (peak - floor) / 2 * (1 + math.cos(math.pi * share))


def cyclic_lr(step: int, *, peak: float, floor: float, half_period: int) -> float:
    """Return a rate that rises from the floor to the peak and falls again, in triangles."""
    cycle, inside = divmod(step, 2 * half_period)
    return floor + (peak - floor) * (1 - abs(inside / half_period - 1))


def build_schedule(
    recipe: Recipe, *, peak: float, floor: float, steps_per_epoch: int
) -> Callable[[int], float]:
    """Build the recipe's schedule.

    Args:
        recipe: The recipe, which names the curve and its arguments.
        peak: The highest learning rate, already scaled for the batch.
        floor: The lowest learning rate, also scaled.
        steps_per_epoch: Steps in an epoch.

    Returns:
        A function that maps a step, counted from 0, to its learning rate.
    """
    total_steps = recipe.epochs * steps_per_epoch
    if recipe.schedule == "one_cycle":
        return partial(one_cycle_lr, peak=peak, floor=floor, total_steps=total_steps)
    if recipe.schedule == "cyclic":
        half_period = max(1, int(total_steps / recipe.num_cycles / 2))
        return partial(cyclic_lr, peak=peak, floor=floor, half_period=half_period)

    warmup_steps = recipe.warmup_epochs * steps_per_epoch
    curve = _curve_after_warmup(recipe, peak=peak, floor=floor, steps_per_epoch=steps_per_epoch)

    def lr_at(step: int) -> float:
        in_warmup = step < warmup_steps
        # MindCV counts whole steps from the end of the warm-up. The official code differs by less
        # than a step.
        step -= 0 if in_warmup else math.ceil(warmup_steps)
        if recipe.lr_epoch_stair:
            step = step // steps_per_epoch * steps_per_epoch
        if in_warmup:
            return warmup_lr(
                step, peak=peak, warmup_steps=warmup_steps, factor=recipe.warmup_factor
            )
        return curve(step)

    return lr_at


def _curve_after_warmup(
    recipe: Recipe, *, peak: float, floor: float, steps_per_epoch: int
) -> Callable[[int], float]:
    """Build the curve as a function of the steps since the end of the warm-up."""
    main_epochs = max(recipe.epochs - recipe.warmup_epochs, 0)
    decay_epochs = recipe.decay_epochs or main_epochs
    rate = recipe.decay_rate
    by_epoch: dict[str, Callable[[float], float]] = {
        "exponential": partial(exponential_lr, peak=peak, rate=rate),
        "step": partial(step_lr, peak=peak, rate=rate, period=max(1, int(decay_epochs))),
        "multi_step": partial(
            multi_step_lr, peak=peak, rate=rate, milestones=recipe.decay_milestones
        ),
        "polynomial": partial(polynomial_lr, peak=peak, power=rate, epochs=main_epochs),
    }
    if recipe.schedule in by_epoch:
        curve = by_epoch[recipe.schedule]
        return lambda step: curve(step / steps_per_epoch)
    if recipe.schedule == "constant" or not decay_epochs:
        return lambda step: peak
    return partial(
        cosine_lr,
        peak=peak,
        floor=floor,
        decay_steps=decay_epochs * steps_per_epoch,
        cycles=recipe.num_cycles,
        cycle_decay=recipe.cycle_decay,
    )


def scaled_lr(recipe: Recipe, global_batch: int) -> tuple[float, float]:
    """Return the lr and min_lr to train with.

    They are taken from the recipe. With `scale_lr`, they are scaled linearly to the global batch.

    Args:
        recipe: The recipe.
        global_batch: Images in a step, over all ranks.
    """
    factor = 1.0
    if recipe.scale_lr and recipe.lr_batch_size:
        factor = global_batch / recipe.lr_batch_size
    return recipe.lr * factor, recipe.min_lr * factor
