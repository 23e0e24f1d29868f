"""The lines that a run prints before it begins."""

from __future__ import annotations

import torch

from convnextv2.console import say
from convnextv2.data.source import Source
from convnextv2.distributed import Place
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.schedule import build_schedule, scaled_lr


def say_notes(*sources: Source | None) -> None:
    """Print the notes of data sources."""
    for source in sources:
        for note in source.notes if source else ():
            say(note)


def announcements(
    recipe: Recipe, global_batch: int, lr: float, dtype: torch.dtype, place: Place
) -> list[str]:
    """Say what `auto` chose and what the user might not expect.

    Args:
        recipe: The recipe of the run.
        global_batch: Images in a step, over all ranks.
        lr: The peak learning rate that is used.
        dtype: The precision of the forward pass.
        place: This rank.

    Returns:
        Lines to print.
    """
    name = str(dtype).removeprefix("torch.")
    lines = [
        f"Device {place.device}, {place.world_size} rank(s), {name}, global batch {global_batch}."
    ]
    if recipe.lr_batch_size and recipe.lr_batch_size != global_batch:
        scaled = recipe.lr * global_batch / recipe.lr_batch_size
        choice = (
            f"{lr:.4g} is used (scale_lr)"
            if recipe.scale_lr
            else f"{lr:.4g} is used; --scale_lr would take {scaled:.4g}"
        )
        lines.append(
            f"lr = {recipe.lr:.4g} is stated for a global batch of {recipe.lr_batch_size}, this "
            f"run has {global_batch}: {choice}."
        )
    if recipe.warmup_epochs >= recipe.epochs:
        lines.append(
            f"warmup_epochs = {recipe.warmup_epochs:g}: not shorter than the run (epochs = "
            f"{recipe.epochs}), so lr never reaches its peak."
        )
    main_epochs, cosines = (
        recipe.epochs - recipe.warmup_epochs,
        (recipe.decay_epochs or 0) * recipe.num_cycles,
    )
    if recipe.schedule == "cosine" and cosines > main_epochs > 0:
        lr_at = build_schedule(
            recipe, peak=lr, floor=scaled_lr(recipe, global_batch)[1], steps_per_epoch=99
        )
        lines.append(
            f"decay_epochs = {recipe.decay_epochs}: the cosine needs {cosines:g} epochs, after the "
            "warm-up there are "
            f"{main_epochs:g}: lr ends at {lr_at(99 * recipe.epochs - 1):.3g}, not at min_lr."
        )
    return lines
