"""Train a task from its start to a finished run."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from convnextv2.console import say
from convnextv2.device import choose_precision
from convnextv2.distributed import Place
from convnextv2.durations import read_duration
from convnextv2.errors import DataError, TrainingError
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.announce import announcements
from convnextv2.training.conditions import current_conditions
from convnextv2.training.deadline import Deadline
from convnextv2.training.elastic import (
    GradientTree,
    broadcast_weights,
    check_micro_batches,
    fix_threads,
)
from convnextv2.training.ema import WeightAverage
from convnextv2.training.health import LossWatch
from convnextv2.training.keeper import Keeper, Learner
from convnextv2.training.loop import Loop
from convnextv2.training.loop_settings import LoopSettings, build_loop_settings
from convnextv2.training.memory import out_of_memory, out_of_memory_text
from convnextv2.training.mindcv_resume import continue_mindcv
from convnextv2.training.optim import build_optimizer
from convnextv2.training.resume import resume_run
from convnextv2.training.schedule import build_schedule, scaled_lr
from convnextv2.training.shard import is_sharded, shard_model, shares_model
from convnextv2.training.start import Start, Way
from convnextv2.training.state import Progress
from convnextv2.training.task import Batches, Examine, Task


def train_task(task: Task, start: Start, examine: Examine | None = None) -> None:
    """Train a model as its recipe says, and write best/ and last/ into the run folder.

    Args:
        task: The task that is learned.
        start: The run folder, and how the run starts.
        examine: Examines the model before the first step and after epochs; None for nothing.

    Raises:
        DataError: There are too few images for one batch.
        TrainingError: The memory is not sufficient, or the loss is not finite.
    """
    recipe, run, place, model = task.recipe, start.run, start.place, task.model
    check_images(task.recipe, task.loader, place)
    if recipe.elastic:
        check_micro_batches(recipe.accumulate, place.world_size)
        if line := fix_threads(place.device):
            say(line)
    dtype = choose_precision(recipe.precision, place.device)
    settings = build_loop_settings(recipe, len(task.loader), dtype)
    global_batch = recipe.images_per_batch() * recipe.accumulate * place.world_size
    lr, min_lr = scaled_lr(recipe, global_batch)
    for line in announcements(recipe, global_batch, lr, dtype, place):
        say(line)

    learner = _build_learner(task, dtype, place)
    progress, settings = _restore_position(task, start, learner, settings, dtype)
    start.release()
    if place.is_main:
        run.save_recipe(recipe)
        run.prune(recipe.keep_checkpoints, recipe.keep_policy)  # in case a kill prevented it
        run.sweep()
    steps_per_epoch = settings.steps_per_epoch
    lr_at = build_schedule(recipe, peak=lr, floor=min_lr, steps_per_epoch=steps_per_epoch)
    deadline = None
    if recipe.time:
        deadline = _build_deadline(recipe, start, progress, steps_per_epoch, (lr, min_lr))
        lr_at = deadline.lr_at
    losses = [record["loss"] for record in run.metrics() if record["kind"] == "train"]
    total_steps = settings.total_steps
    keeper = Keeper(
        task, run, place, learner, progress, lambda: [lr_at(step) for step in range(total_steps)]
    )
    with _end_of_run(task, keeper, settings, place):
        loop = Loop(
            _over_ranks(recipe, model, place),
            task,
            keeper,
            settings=settings,
            optimizer=learner.optimizer,
            lr_at=lr_at,
            average=learner.average,
            scaler=learner.scaler,
            progress=progress,
            place=place,
            watch=LossWatch(task.baseline_loss, losses),
            tree=GradientTree(model, recipe.accumulate, place) if recipe.elastic else None,
            deadline=deadline,
            examine=examine,
        )
        loop.run()
        keeper.finish()
        if progress.is_out_of(settings.patience) and progress.epoch < settings.epochs:
            say(stopped_early_line(recipe, progress, task.score or recipe.best_by))


@contextmanager
def _end_of_run(task: Task, keeper: Keeper, settings: LoopSettings, place: Place) -> Iterator[None]:
    """Close the keeper and the loader after the `with` block, and explain exhausted memory.

    Raises:
        TrainingError: An error in the block means that the memory is used up.
    """
    try:
        yield
    except BaseException as error:
        keeper.give_up()
        if not out_of_memory(error):
            raise
        text = out_of_memory_text(
            error,
            batch_size=settings.batch_size,
            accumulate=settings.accumulate,
            device=place.device,
        )
        raise TrainingError(text) from error
    finally:
        keeper.close()
        # A notebook keeps the traceback of an error. The traceback would keep the loader alive, and
        # the loader its processes.
        task.loader.end()


def _build_learner(task: Task, dtype: torch.dtype, place: Place) -> Learner:
    """Move the model to its device, sharded if the recipe says so, and build what trains it."""
    recipe, model = task.recipe, task.model
    if shares_model(recipe.shard, place):
        shard_model(model, place)
    else:
        model.to(place.device)
    return Learner(
        model,
        build_optimizer(recipe, model, task.depths),
        WeightAverage(model, recipe.ema_decay, recipe.ema_form) if recipe.ema else None,
        build_scaler(recipe.loss_scale, dtype, place.device),
    )


def _build_deadline(
    recipe: Recipe,
    start: Start,
    progress: Progress,
    steps_per_epoch: int,
    span: tuple[float, float],
) -> Deadline:
    """Build the deadline of a run. `span` has the highest and the lowest learning rate."""
    return Deadline(
        read_duration(recipe.time),
        progress,
        start.place,
        steps_per_epoch=steps_per_epoch,
        peak=span[0],
        floor=span[1],
        warmup_factor=recipe.warmup_factor,
        began=start.began,
    )


def stopped_early_line(recipe: Recipe, progress: Progress, score: str) -> str:
    """Return a line that says that a run ended before its last epoch, and why.

    Args:
        recipe: The recipe.
        progress: The position at the end.
        score: The figure that decides which weights are best.
    """
    assert progress.best is not None and recipe.patience is not None
    best = -progress.best if score == "loss" else progress.best
    return (
        f"Stopped after epoch {progress.epoch} of {recipe.epochs}: {score} has not "
        f"improved on {best:.4f}, after epoch {progress.best_epoch}, for "
        f"{progress.epoch - (progress.best_epoch or 0)} epochs (patience {recipe.patience}). To "
        f"continue: --resume --patience {2 * recipe.patience}."
    )


def check_images(recipe: Recipe, loader: Batches, place: Place) -> None:
    """Check that there are enough images for a step.

    Args:
        recipe: The recipe, in which batch_size and accumulate are numbers.
        loader: The training batches of this rank.
        place: This rank.

    Raises:
        DataError: There are not enough.
    """
    if len(loader):
        return
    images, ranks = len(loader.source), place.world_size
    if recipe.elastic:
        raise DataError(
            f"elastic = True: a step takes accumulate x batch_size x ranks = {recipe.accumulate} x "
            f"{recipe.batch_size} x {ranks} images, but there are {images} for training. Use a "
            "smaller accumulate or batch_size."
        )
    raise DataError(
        f"batch_size = {recipe.batch_size}: there are only {images:,} training images"
        f"{f' for {ranks} ranks' * (ranks > 1)}, which do not fill one batch. Use "
        f"--batch_size {max(1, images // ranks)} or less, or --batch_size auto."
    )


def _restore_position(
    task: Task, start: Start, learner: Learner, settings: LoopSettings, dtype: torch.dtype
) -> tuple[Progress, LoopSettings]:
    """Restore model, optimizer, average and scaler if the run continues.

    Returns:
        The position and the settings of the loop. If a run is continued with another number of
        ranks, it keeps the number of steps in its epochs.
    """
    recipe, run, place = task.recipe, start.run, start.place
    asked = recipe.images_per_batch(), recipe.accumulate
    source = task.loader.source
    here = current_conditions(
        recipe, place, source, task.validation, dtype, settings.steps_per_epoch, asked
    )
    progress = Progress()
    if start.way is Way.RESUME:
        progress, settings, here = resume_run(
            recipe, run, place, learner, task.description, settings, here, task.score
        )
        say(
            f"Resuming {run.path} at step {progress.step} (epoch {progress.epoch}, batch "
            f"{progress.batch})."
        )
    elif start.way.continues_mindcv:
        assert start.weights is not None
        inside = start.way is Way.CONTINUE_INSIDE
        progress = continue_mindcv(
            recipe, run, start.weights, learner, settings, place, inside=inside
        )
    progress.conditions = asdict(here)
    return progress, settings


def build_scaler(start: float, dtype: torch.dtype, device: torch.device) -> torch.amp.GradScaler:
    """Build the scaler that keeps gradients in the range of float16.

    Args:
        start: The initial factor on the loss.
        dtype: The precision of the forward pass. Unless it is float16, the scaler is disabled.
        device: The device.
    """
    return torch.amp.GradScaler(device.type, init_scale=start, enabled=dtype == torch.float16)


def _over_ranks(recipe: Recipe, model: nn.Module, place: Place) -> nn.Module:
    """Prepare the model for its steps: compiled if asked, and exchanging gradients with the ranks.

    Returns:
        The model, wrapped by DistributedDataParallel unless gradients are exchanged otherwise.
    """
    if recipe.compile:
        model.compile(dynamic=False)
    if recipe.elastic:
        broadcast_weights(model)
    if recipe.elastic or is_sharded(model) or place.world_size == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, **data_parallel_options(model, place.device))


def data_parallel_options(model: nn.Module, device: torch.device) -> dict[str, Any]:
    """Return arguments for DistributedDataParallel that avoid a copy and a needless exchange.

    Args:
        model: The model.
        device: The device of this rank.
    """
    # Gradients are views of the buckets that are exchanged, and not copies of them.
    options: dict[str, Any] = {"gradient_as_bucket_view": True}
    if device.type == "cpu":
        return options
    options["device_ids"] = [device.index]
    # The only buffers are the statistics of batch norms, which are synchronised on CUDA.
    if device.type == "cuda" and any(True for _ in model.buffers()):
        known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options[name] = False
    return options
