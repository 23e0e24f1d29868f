"""Continue a training from a MindSpore checkpoint, as MindCV's resume does."""

from __future__ import annotations

from typing import Any

from convnextv2.checkpoint import read_checkpoint
from convnextv2.console import say
from convnextv2.distributed import Place
from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.training import mindcv_files
from convnextv2.training.ema import WeightAverage
from convnextv2.training.keeper import Learner
from convnextv2.training.loop_settings import LoopSettings
from convnextv2.training.resume import restore, shapes_of
from convnextv2.training.shard import allocator_for
from convnextv2.training.state import Progress, best_of, load_optimizer
from convnextv2.weights.description import read_model_json
from convnextv2.weights.opened import Weights


def continue_mindcv(
    recipe: Recipe,
    run: Run,
    weights: Weights,
    learner: Learner,
    settings: LoopSettings,
    place: Place,
    *,
    inside: bool,
) -> Progress:
    """Continue from a MindSpore checkpoint.

    Args:
        recipe: The recipe. With `resume_opt`, the optimizer's state is adopted too.
        run: The run folder.
        weights: The opened checkpoint. The model already has these weights.
        learner: The objects to restore: the average, and the optimizer with `resume_opt`.
        settings: The settings of the loop.
        place: This rank.
        inside: Whether the checkpoint lies in the run folder. If so, the log of that folder is
            continued too.

    Returns:
        The position after the last epoch that the checkpoint has finished.

    Raises:
        RecipeError: The file is not a MindSpore checkpoint, or nothing is left to do.
        CheckpointError: The optimizer's state is missing, or belongs to another step.
    """
    path = weights.path
    if path.suffix != ".ckpt":
        raise RecipeError(
            f"init = {path}: resume_init and resume_opt are for MindSpore's .ckpt. Use resume to "
            "continue a run."
        )
    epoch = _epoch_of(recipe, run, weights, settings, inside=inside)
    progress = Progress(step=epoch * settings.steps_per_epoch, epoch=epoch, closed=epoch)
    if inside and (own := run.checkpoint_of(progress.epoch, progress.step)):
        say(
            f"{path.name} belongs to this run, which continues from {own}. Later checkpoints are "
            "replaced."
        )
        checkpoint = read_checkpoint(own, allocate=allocator_for(learner.model), place=place)
        progress = Progress.read(checkpoint.progress)
        restore(learner, run, own, checkpoint, progress, settings, place)
        return progress
    if recipe.resume_opt:
        _restore_optimizer(recipe, weights, learner, progress, settings)
    if learner.average is not None:
        _continue_average(weights, learner.average, progress)
    if inside:
        records = _history(run, epoch, settings.steps_per_epoch)
        progress.best, progress.best_epoch = best_of(records, recipe.best_by)
        # The run has no checkpoint of its own at the end of this epoch (see above), so `rewind`
        # deletes all of them from this epoch on.
        if place.is_main:
            run.rewind(records, run.path / "checkpoints" / f"epoch-{epoch:05d}")
    return progress


def _epoch_of(
    recipe: Recipe, run: Run, weights: Weights, settings: LoopSettings, *, inside: bool
) -> int:
    """Find the epoch after which a MindSpore checkpoint continues, and print it.

    Raises:
        RecipeError: Nothing is left to do.
    """
    path = weights.path
    epoch, how = mindcv_files.position_of(
        path.name, weights.container.tensors, settings.steps_per_epoch
    )
    best = run.path / "best" / "model.json"
    if inside and path.name == f"{recipe.model}_best.ckpt" and best.exists():
        epoch, how = int(read_model_json(best).training["epoch"]), "as best/ says"
    if epoch >= recipe.epochs:
        raise RecipeError(
            f"ckpt_path = {path}: has finished epoch {epoch} ({how}) of {recipe.epochs}, so "
            "nothing is left to do. Raise epochs, or use init to start a new run from these "
            "weights."
        )
    say(
        f"{path.name}: continues after epoch {epoch} of {recipe.epochs} ({how}). To start a new "
        "run from it, use init."
    )
    return epoch


def _restore_optimizer(
    recipe: Recipe, weights: Weights, learner: Learner, progress: Progress, settings: LoopSettings
) -> None:
    """Restore Adam's moments from a MindSpore checkpoint."""
    if recipe.optimizer not in ("adamw", "adam"):
        raise RecipeError(
            "resume_opt = True: MindCV's state is read for adamw and adam, not "
            f"{recipe.optimizer}. Leave it out."
        )
    moments = mindcv_files.optimizer_state(
        weights, recipe.model, progress.step, progress.epoch * settings.batches_per_epoch
    )
    load_optimizer(learner.optimizer, learner.model, moments, progress.step)


def _history(run: Run, epoch: int, steps_per_epoch: int) -> list[dict[str, Any]]:
    """Read the records of a run up to the end of an epoch.

    In a folder that MindCV wrote, they are taken from its result.log.
    """
    log = run.path / "result.log"
    records = run.metrics()
    if not records and log.is_file():
        records = mindcv_files.read_result_log(
            log.read_text(encoding="utf-8", errors="replace"), steps_per_epoch
        )
    return [record for record in records if record["epoch"] <= epoch]


def _continue_average(weights: Weights, average: WeightAverage, progress: Progress) -> None:
    """Restore the average of a MindSpore checkpoint.

    If the checkpoint has none, the average starts at the weights.
    """
    found = mindcv_files.average_of(weights)
    if found is None or shapes_of(found[0]) != shapes_of(average.tensors):
        why = "has none" if found is None else "has that of another head or stem"
        say(f"ema: {weights.path.name} {why}, so the average starts at the weights.")
        progress.average_ahead = -progress.step
        return
    average.load(found[0])
    progress.average_ahead = found[1] - progress.step
    say(f"ema: the average of {weights.path.name} is continued, after {found[1]} updates.")
