"""Restore a run from a checkpoint of its own.

The rules on what may differ from the earlier run are in `training.conditions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from convnextv2.checkpoint import Checkpoint, read_weights
from convnextv2.console import say
from convnextv2.distributed import Place
from convnextv2.errors import CheckpointError
from convnextv2.find import has_file
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.text import counted
from convnextv2.training.conditions import (
    EVALUATION,
    Conditions,
    check_changes,
    check_classes,
    convert_position,
    is_before,
    recipe_then,
)
from convnextv2.training.keeper import Learner
from convnextv2.training.loop_settings import LoopSettings
from convnextv2.training.schedule import build_schedule, scaled_lr
from convnextv2.training.shard import allocator_for, placed_like
from convnextv2.training.state import Progress, best_of, load_optimizer
from convnextv2.weights.description import Description, read_model_json
from convnextv2.weights.safetensors import WEIGHTS, read_tensors

_KINDS = {
    "classifier": "one class for each image",
    "multi_label": "any number of labels for each image",
    "fcmae": "pre-training",
    "segmentation": "segmentation",
    "detection": "detection",
}
"""Descriptions of the tasks for messages, by the kind of their weights."""


def resume_run(
    recipe: Recipe,
    run: Run,
    place: Place,
    learner: Learner,
    description: Description,
    settings: LoopSettings,
    new: Conditions,
    score: str | None = None,
) -> tuple[Progress, LoopSettings, Conditions]:
    """Continue from the newest whole checkpoint of a run, if the result stays the same.

    Args:
        recipe: The recipe with which the run would continue.
        run: The run folder.
        place: This rank.
        learner: The objects that the checkpoint restores.
        description: The description of the network.
        settings: The settings of the loop that follow from the recipe.
        new: The conditions that hold now.
        score: The figure that decides which weights are best.

    Returns:
        The position, the settings of the loop and the conditions of the run. If only the number of
        ranks has changed, the run keeps its number of steps in an epoch.

    Raises:
        RunError: A change would alter what is learned, and is not allowed.
        CheckpointError: The checkpoint belongs to another model.
    """
    folder, checkpoint = _newest_whole(run, learner, place)
    saved = Progress.read(checkpoint.progress)
    old = Conditions.read(saved.conditions)
    written, allowed = run.recipe, recipe.resume_allow or ()
    old_recipe = recipe_then(written, old)
    _check_kind(checkpoint.description, description, folder)
    check_classes(checkpoint.description.class_names, description.class_names, allowed)
    check_shapes(learner.model, {**checkpoint.weights, **checkpoint.beside}, folder)
    settings, new = _keep_epoch_length(recipe, settings, old, new)
    if old.asked[0]:
        new = replace(new, asked=old.asked)
    for line in check_changes(old_recipe, recipe, old, new, allowed, written):
        say(f"  {line}")
    if recipe.epochs != old_recipe.epochs and not recipe.time:
        say(f"  {_schedule_note(old_recipe, recipe, saved.step, new)}")
    _forget_lost_best(saved, run, place, score)
    images = place.gather(_changed_validation(old, new))[0]  # the main rank decides
    _forget_other_scores(saved, recipe, old_recipe, images, score)
    restore(learner, run, folder, checkpoint, saved, settings, place)
    _complete_best(saved, run, score)
    convert_position(saved, old, new)
    return saved, settings, new


def _newest_whole(run: Run, learner: Learner, place: Place) -> tuple[Path, Checkpoint]:
    """Read the newest whole checkpoint of a run, and set damaged newer ones aside."""
    # Each rank reads only its parts of a sharded checkpoint.
    allocate = allocator_for(learner.model)
    folder, checkpoint, damaged = run.newest_whole(allocate=allocate, place=place)
    place.barrier()  # all ranks have read it before a damaged one is set aside
    for other, line in damaged:
        say(line)
        if place.is_main:
            run.set_aside(other)
    return folder, checkpoint


def _keep_epoch_length(
    recipe: Recipe, settings: LoopSettings, old: Conditions, new: Conditions
) -> tuple[LoopSettings, Conditions]:
    """Keep the steps of an epoch if only the number of ranks has changed.

    Fewer ranks may have one more step in an epoch, because each rank leaves out fewer images.
    """
    same_images = old.images == new.images and old.global_batch == new.global_batch
    if not (same_images and 0 < old.steps_per_epoch < new.steps_per_epoch):
        return settings, new
    batches = old.steps_per_epoch * recipe.accumulate
    return (
        replace(settings, batches_per_epoch=batches),
        replace(new, steps_per_epoch=old.steps_per_epoch),
    )


def _complete_best(progress: Progress, run: Run, score: str | None) -> None:
    """Find the epoch of the best score in the log, if the checkpoint is old and lacks it."""
    if progress.best is not None and progress.best_epoch is None and score is not None:
        done = [record for record in run.metrics() if record["epoch"] <= progress.epoch]
        progress.best_epoch = best_of(done, score)[1]


def _forget_lost_best(progress: Progress, run: Run, place: Place, score: str | None) -> None:
    """Look for the best weights anew if those that the run has found are lost, and say so.

    The run would otherwise compare later weights with a score whose weights nobody has.
    """
    is_due = place.is_main and progress.best is not None
    found = _lost(run.path / "best" / WEIGHTS) if is_due else ""
    if not (lost := place.gather(found)[0]):
        return
    say(f"  {lost}{_search_line(progress, score)}")
    _search_anew(progress, score)


def _changed_validation(old: Conditions, new: Conditions) -> str:
    """Return a sentence on changed validation images; empty if they are the same or unknown."""
    if old.validation is None or new.validation is None:
        return ""
    line = old.validation.change(new.validation, "validation")
    return f"{line}." if line else ""


def _forget_other_scores(
    progress: Progress, recipe: Recipe, old_recipe: Recipe, images: str, score: str | None
) -> None:
    """Look for the best weights anew if scores are measured in another way now, and say so.

    The run would otherwise compare scores on different images, or of different kinds. A run that
    is done keeps `best/`, since all its weights were compared in the same way.

    Args:
        progress: The position, which is changed in place.
        recipe: The recipe with which the run would continue.
        old_recipe: The recipe with which the checkpoint was written.
        images: A sentence on changed validation images; empty if they have not changed.
        score: The figure that decides which weights are best; None if the run looks for none.
    """
    changed = [name for name in EVALUATION if getattr(recipe, name) != getattr(old_recipe, name)]
    sentences = [images] if images else []
    if changed and score is not None:
        sentences.append(f"Scores with another {' or '.join(changed)} cannot be compared.")
    if not sentences:
        return
    line = " ".join(sentences)
    if _is_done(progress, recipe):
        say(f"  {line} The run is done, so best/ stays as it was found before.")
        return
    say(f"  {line}{_search_line(progress, score)}")
    _search_anew(progress, score)


def _is_done(progress: Progress, recipe: Recipe) -> bool:
    """Return whether a checkpoint is the end of its run, with nothing left to do."""
    epochs = (progress.plan or {}).get("epochs") if recipe.time else recipe.epochs
    is_last = epochs is not None and progress.epoch >= epochs
    return progress.is_closed and (is_last or progress.is_out_of(recipe.patience))


def _search_line(progress: Progress, score: str | None) -> str:
    """Return the sentence, after a blank, which says what `_search_anew` is about to do.

    It is empty if the run looks for no best weights.
    """
    if score is None:
        return ""
    where = ""
    if progress.score is not None:
        where = f" with those after epoch {progress.epoch}, which are evaluated again"
    return f" The search for the best weights begins anew{where}."


def _search_anew(progress: Progress, score: str | None) -> None:
    """Forget the best score, so that the search for the best weights begins anew.

    If the weights of the checkpoint were evaluated, this is done again, which writes `best/`.

    Args:
        progress: The position, which is changed in place.
        score: The figure that decides which weights are best; None if the run looks for none.
    """
    if score is not None and progress.score is not None:
        progress.closed = progress.epoch - 1
    progress.best, progress.score, progress.best_epoch = None, None, progress.epoch


def _lost(path: Path) -> str:
    """Return a sentence on a weights file of a run that is lost; empty if it is whole.

    Raises:
        RunError: The file is out of reach, as on a disk that is not mounted.
    """
    if not has_file(path):
        return f"{path}: is missing."
    try:
        read_tensors(path)
    except CheckpointError:
        return f"{path}: is damaged."
    return ""


def _check_kind(before: Description, now: Description, folder: Path) -> None:
    """Raise CheckpointError if a checkpoint belongs to another task, which shapes may not show."""
    if before.kind != now.kind:
        was, would_be = (_KINDS.get(each.kind, each.kind) for each in (before, now))
        raise CheckpointError(
            f"{folder}: belongs to a run for {was}, and this one would be for {would_be}. Resume "
            "with the verb, the task and the labels that it was started with, or start a new run "
            "with --init."
        )


def check_shapes(model: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Check that weights fit a model.

    Args:
        model: The model.
        weights: Name -> tensor.
        folder: The checkpoint that holds the weights, for the message.

    Raises:
        CheckpointError: The weights belong to another model.
    """
    if shapes_of(weights) != shapes_of(model.state_dict()):
        kind = "a pre-training run" if "mask_token" in weights else "a training run"
        raise CheckpointError(
            f"{folder}: belongs to {kind} of another model. Resume with the verb and the model "
            "that it was started with."
        )


def restore(
    learner: Learner,
    run: Run,
    folder: Path,
    checkpoint: Checkpoint,
    progress: Progress,
    settings: LoopSettings,
    place: Place,
) -> None:
    """Restore everything to a checkpoint of the run, and delete what the run wrote after it.

    Args:
        learner: The objects to restore.
        run: The run folder.
        folder: The folder of the checkpoint.
        checkpoint: The checkpoint.
        progress: The position in the checkpoint.
        settings: The settings of the loop.
        place: This rank. Only the main rank changes files.
    """
    weights = {**checkpoint.weights, **checkpoint.beside}
    check_shapes(learner.model, weights, folder)
    own = learner.model.state_dict()
    learner.model.load_state_dict({name: placed_like(own[name], weights[name]) for name in own})
    load_optimizer(learner.optimizer, learner.model, checkpoint.optimizer, progress.step)
    if learner.average is not None:
        learner.average.load(checkpoint.average or weights)
    if progress.scaler:
        learner.scaler.load_state_dict(progress.scaler)
    elif learner.scaler.is_enabled():
        say("  The loss scale of float16 starts again: the run had another precision.")
    if place.is_main:
        if lines := run.damaged_lines():
            say(f"  metrics.jsonl: leaving out {counted(lines, 'line(s)')} that cannot be read.")
        position = progress.epoch + progress.batch / settings.batches_per_epoch
        stays = [record for record in run.metrics() if is_before(record, progress, position)]
        closed = progress.epoch - (not progress.batch and not progress.is_closed)
        if closed > 0 and not any(record["kind"] == "epoch" for record in stays):
            say("  metrics.jsonl: has no record of the epochs so far, so the curves begin here.")
        run.rewind(stays, folder)
        _repair_last(run, folder, checkpoint.description)


def _schedule_note(old_recipe: Recipe, new_recipe: Recipe, step: int, new: Conditions) -> str:
    rates = []
    for recipe in (old_recipe, new_recipe):
        peak, floor = scaled_lr(recipe, new.global_batch)
        lr_at = build_schedule(recipe, peak=peak, floor=floor, steps_per_epoch=new.steps_per_epoch)
        last = recipe.epochs * new.steps_per_epoch - 1
        rates.append(lr_at(min(step, last)))
    return (
        f"The schedule is that of {counted(new_recipe.epochs, 'epoch(s)')} from here on: the "
        f"learning rate at this step is {rates[1]:.3e}, by the schedule of "
        f"{counted(old_recipe.epochs, 'epoch(s)')} it was {rates[0]:.3e}."
    )


def _repair_last(run: Run, folder: Path, description: Description) -> None:
    """Write `last/` again if it is lost, or older than the checkpoint, as after a kill."""
    last = run.path / "last"
    try:
        is_new = read_model_json(last / "model.json").training == description.training
    except CheckpointError:
        is_new = False
    lost = _lost(last / WEIGHTS)
    if is_new and lost:
        say(f"  {lost} It is written again from {folder.name}.")
    if lost or not is_new:
        run.save_last(read_weights(folder), description)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of each tensor, by name."""
    return {name: tensor.shape for name, tensor in tensors.items()}
