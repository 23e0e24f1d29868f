"""The lines that a run prints before it begins."""

from __future__ import annotations

import contextlib
import os
from functools import cache

import torch

from convnextv2.checkpoint import read_progress
from convnextv2.console import say
from convnextv2.data.source import Source
from convnextv2.distributed import Place
from convnextv2.durations import duration, read_duration
from convnextv2.errors import DamagedCheckpointError
from convnextv2.find import run_of, same_data
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.text import counted
from convnextv2.training.conditions import Conditions, Fingerprint
from convnextv2.training.schedule import build_schedule, scaled_lr
from convnextv2.training.start import Start, Way

_MANY_IMAGES = 50_000
"""From this number of images on, training from random weights needs no note."""
_MAX_COMPARED = 1_000_000
"""Names of training and validation images are compared up to this number of training images."""


def announce_images(
    start: Start, training: Source, validation: Source | None, summary: str
) -> None:
    """Print the notes about the images, a summary, and a warning if validation images were learned.

    Args:
        start: The start of the run.
        training: The training images.
        validation: The validation images; None if there are none.
        summary: A line with the numbers of images.
    """
    say_notes(training, validation)
    if line := learned_line(start, training, validation):
        say(line)
    say(summary)


def say_notes(training: Source, validation: Source | None = None) -> None:
    """Print the notes about the images, and warn of images in both training and validation."""
    for source in (training, validation):
        for note in source.notes if source else ():
            say(note)
    if line := overlap_line(training, validation):
        say(line)


def overlap_line(training: Source, validation: Source | None) -> str:
    """Return a line about validation images that are training images too; empty if none are.

    Images are compared by name, in whichever way their folders are written or linked. This takes
    time for each name, so it is done only up to a million training images.
    """
    if validation is None or len(training) > _MAX_COMPARED:
        return ""
    real = cache(os.path.realpath)

    def place(name: str) -> tuple[str, str]:
        folder, own = os.path.split(name)
        return real(folder), own

    places = set(map(place, training.names))
    shared = {name for name in validation.names if place(name) in places}
    if not shared:
        return ""
    return (
        f"{len(shared):,} of {len(validation):,} validation images are training images too, for "
        f"example {min(shared)}. What is measured on them says nothing about new images."
    )


def scratch_line(way: Way, images: int, *, classifies: bool = True) -> str:
    """Return a line about the cost of random weights if images are few; empty if they are not.

    Args:
        way: How the run starts.
        images: The number of training images.
        classifies: Whether images get classes, so that a measured accuracy says something.
    """
    if way is not Way.SCRATCH or images >= _MANY_IMAGES:
        return ""
    measured = (
        "On 3,068 photographs of clothes, a start from FCMAE pre-training on the same photographs "
        "gave 79.2 % instead of 70.0 %. "
    )
    return (
        f"The run starts from random weights, with {images:,} images. {measured * classifies}"
        "`--init RUN` starts from a pre-training run, `--init pretrained` from public weights."
    )


def learned_line(start: Start, training: Source, validation: Source | None) -> str:
    """Return a line about validation images that the initial weights have learned; or "".

    Data without a split for validation are divided by `seed` and `val_fraction`. If the run that
    `init` names divided the same data in another way, it was trained on images that this run
    measures itself on. Its checkpoints tell which images it used.

    Args:
        start: The start of the run.
        training: The training images.
        validation: The validation images; None if there are none.
    """
    weights = start.weights
    if weights is None or validation is None or weights.description.kind == "fcmae":
        return ""
    owner = run_of(weights.path)
    if owner is None or not same_data(owner.recipe, start.recipe):
        return ""
    then = _conditions_of(owner)
    if then is None or then.validation is None:
        return ""
    if not then.training.change(Fingerprint.of(training), "training"):
        return ""
    if not then.validation.change(Fingerprint.of(validation), "validation"):
        return ""
    own, now = owner.recipe, start.recipe
    is_divided_otherwise = (own.seed, own.val_fraction) != (now.seed, now.val_fraction)
    remedy = (
        f"--seed {own.seed} --val_fraction {own.val_fraction} holds out the same images as there"
        if own.val_while_train and is_divided_otherwise
        else "Measure the model on other images"
    )
    return (
        f"{owner.path} was trained on other images of {now.data_dir} than this run will "
        "be. So its weights may have learned some of the validation images, and what is measured "
        f"on them may be too good. {remedy}."
    )


def _conditions_of(run: Run) -> Conditions | None:
    """Read the conditions of a run from its newest checkpoint; None without a whole one."""
    for folder in reversed(run.checkpoints()):
        with contextlib.suppress(DamagedCheckpointError):
            return Conditions.read(read_progress(folder).get("conditions", {}))
    return None


def announcements(
    recipe: Recipe, global_batch: int, lr: float, dtype: torch.dtype, place: Place
) -> list[str]:
    """Return lines about what `auto` chose and what the user might not expect.

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
        f"Device {place.device}, {counted(place.world_size, 'rank(s)')}, {name}, global batch "
        f"{global_batch}."
    ]
    if recipe.shard:
        lines.append(
            f"shard: each rank holds 1/{place.world_size} of weights, gradients and moments."
            if place.world_size > 1
            else "No effect here: shard (there is only one rank)."
        )
    if recipe.lr_batch_size and recipe.lr_batch_size != global_batch:
        scaled = recipe.lr * global_batch / recipe.lr_batch_size
        choice = (
            f"{lr:.4g} is used (scale_lr)"
            if recipe.scale_lr
            else f"{lr:.4g} is used; --scale_lr would take {scaled:.4g}"
        )
        lines.append(
            f"lr = {recipe.lr:.4g} is stated for a global batch of {recipe.lr_batch_size}, but "
            f"this run has {global_batch}: {choice}."
        )
    if recipe.time:
        time = duration(read_duration(recipe.time))
        return [*lines, f"time = {time}: the first epoch shows how many epochs fit."]
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
            f"decay_epochs = {recipe.decay_epochs}: the cosine needs {cosines:g} epochs, but "
            f"{main_epochs:g} follow the warm-up, so lr ends at "
            f"{lr_at(99 * recipe.epochs - 1):.3g}, not at min_lr."
        )
    return lines
