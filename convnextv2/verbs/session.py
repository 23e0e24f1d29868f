"""The setup and the end of `train` and `pretrain`: recipe, ranks, run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from convnextv2 import waiting
from convnextv2.checkpoint import read_progress
from convnextv2.console import say
from convnextv2.data.output_path import check_outside_data
from convnextv2.distributed import Place, joined, leave
from convnextv2.ending import unwinding
from convnextv2.errors import DamagedCheckpointError, RecipeError, RunError, Stopped
from convnextv2.files import system_scratch
from convnextv2.kernels import choice
from convnextv2.lock import locked
from convnextv2.places import check_place
from convnextv2.recipe.knobs import Recipe, with_inferred
from convnextv2.run import Run, open_run
from convnextv2.tasks.preview import Previewed, write_first_images
from convnextv2.text import counted
from convnextv2.training.conditions import Conditions, keep_global_batch
from convnextv2.training.start import Start, Way, decide, make_folder, prepare
from convnextv2.training.state import Progress
from convnextv2.training.task import Examine, Task
from convnextv2.training.train import check_images, train_task
from convnextv2.verbs.options.learning import PretrainOptions, TrainOptions


@contextmanager
def new_run(options: TrainOptions | PretrainOptions) -> Iterator[Start]:
    """Begin a run, or continue one, and release ranks, folder and lock at the end.

    Args:
        options: The options of the verb. If a run is continued without a recipe, its own is used.

    Yields:
        The start of the run: its recipe, folder, ranks and initial weights.

    Raises:
        Stopped: SIGINT, SIGTERM or SIGHUP asked for a stop.
        ConvNeXtV2Error: Something is wrong with the recipe, the folder or the ranks.
    """
    began = time.monotonic()
    verb, config = options.command, options.config
    asked, notes = options.recipe(config)
    recipe, way = decide(asked, _folder(verb, asked))
    if way is Way.RESUME and config is None and recipe.out:
        own = open_run(Path(recipe.out)).path / "recipe.yaml"
        recipe, notes = options.recipe(own, overrides={"resume": True}, is_own=True)
    path = _folder(verb, recipe)
    recipe, weights, inferred = prepare(recipe, path, way)
    if way is not Way.RESUME:
        _check_not_in_absent_data(path, recipe)
        check_outside_data(path, recipe)
    notes += inferred
    with (
        _signals_stop(),
        joined(recipe.device, recipe.distribute, timeout_s=recipe.rank_timeout_s) as (place, more),
        locked(path) if place.is_main else nullcontext("") as unlocked,
    ):
        recipe, shortened = _wait_in_time(recipe, place)
        notes += shortened
        if place.is_main:
            if decide(asked, path)[1] is not way:
                raise RunError(
                    f"out = {path}: another process has written to this run in the meantime. Start "
                    "again."
                )
            make_folder(recipe, path, way)
        place.barrier()
        run = Run(path)
        if way is Way.RESUME:
            recipe, batch = _keep_batch(recipe, run, place)
            notes += batch
        notes += [*more, *_notes(verb, recipe), *_kernels(recipe.kernels, place), unlocked]
        for note in notes:
            if note:
                say(note)
        say(f"Run folder: {path}")
        yield Start(recipe, run, place, way, weights, began)


@contextmanager
def preview(options: TrainOptions | PretrainOptions) -> Iterator[Start]:
    """Prepare a run as `new_run` does, but in a folder that is removed at the end.

    Args:
        options: The options of the verb.

    Yields:
        How the run would start.

    Raises:
        RecipeError: Options contradict each other, or the picture cannot be written.
        ConvNeXtV2Error: Something is wrong with the recipe or the ranks.
    """
    file = Path(options.show_images)
    if file.suffix.lower() != ".png" or file.is_dir():
        raise RecipeError(f"show_images = {file}: expected the name of a PNG file, such as a.png.")
    check_place(file, option="show_images")
    asked, notes = options.recipe(options.config)
    check_outside_data(file, asked, option="show_images")
    if asked.resume is True:
        raise RecipeError(
            "show_images and resume: a picture shows the first images of a new run. Leave resume "
            "out."
        )
    with system_scratch("images") as folder:
        path = folder / "run"
        path.mkdir()
        recipe = asked.model_copy(update={"out": str(path), "resume": False})
        recipe, way = decide(recipe, path)
        recipe, weights, inferred = prepare(recipe, path, way)
        with joined(recipe.device, "off", timeout_s=recipe.rank_timeout_s) as (place, more):
            notes += [*inferred, *more, *_notes(options.command, recipe)]
            for note in (*notes, *_kernels(recipe.kernels, place)):
                say(note)
            yield Start(recipe, Run(path), place, way, weights)


def show_images(task: Previewed, start: Start, file: Path) -> None:
    """Write the first training images of a task to a PNG file, and say so."""
    check_images(task.recipe, task.loader, start.place)
    count = write_first_images(task, start.place, file)
    say(f"{count} training images: {file}. Nothing was trained.")


def run_task(task: Task, start: Start, examine: Examine | None = None) -> bool:
    """Train a task to its end, and leave the ranks.

    Args:
        task: The task to learn.
        start: The start of the run, from `new_run`.
        examine: Examines the model before the first step and after epochs; None to examine nothing.

    Returns:
        Whether this process has to write the report. If the run was already finished and reported,
        it does not, and a line says so.
    """
    run, place = start.run, start.place
    before = run.last_checkpoint()
    train_task(task, start, examine)
    leave()  # writing the report may take longer than ranks wait for each other
    if not place.is_main:
        return False
    # If the best weights were lost, the last ones were evaluated again, which is in the log.
    if before is not None and before == run.last_checkpoint() and run.is_reported():
        epochs = int(before.name.split("-")[1])
        say(f"{run.path} is done ({counted(epochs, 'epoch(s)')}). Report: {run.report}")
        return False
    return True


def _check_not_in_absent_data(path: Path, recipe: Recipe) -> None:
    """Raise RecipeError if the data folder is missing and the run folder would lie in it.

    Creating the run folder would create the data folder, with the run as its only class.
    """
    root = Path(recipe.data_dir).resolve()
    if recipe.data_dir and not root.exists() and root in path.resolve().parents:
        raise RecipeError(
            f"data_dir = {recipe.data_dir}: there is no such folder or file. Correct it."
        )


def _wait_in_time(recipe: Recipe, place: Place) -> tuple[Recipe, list[str]]:
    """Make sure that a rank waits for images for less time than the other ranks wait for it.

    Returns:
        The recipe and lines for the user. If data_wait_s is too long and was not set by the user,
        it is shortened, and a line says so.

    Raises:
        RecipeError: The user set a data_wait_s that is too long.
    """
    if place.world_size == 1 or recipe.data_wait_s < recipe.rank_timeout_s:
        return recipe, []
    if "data_wait_s" in recipe.model_fields_set:
        raise RecipeError(
            f"data_wait_s = {recipe.data_wait_s:g}: expected less than rank_timeout_s "
            f"({recipe.rank_timeout_s} s), after which the other ranks give up. Raise "
            "rank_timeout_s or lower data_wait_s."
        )
    shorter = recipe.rank_timeout_s / 2
    note = f"data_wait_s {shorter:g}: half of rank_timeout_s, after which the other ranks give up."
    return with_inferred(recipe, {"data_wait_s": shorter}), [note]


def _keep_batch(recipe: Recipe, run: Run, place: Place) -> tuple[Recipe, list[str]]:
    """Keep the values chosen for `auto`, and the images in a step if the ranks have changed."""
    folder, own = run.last_checkpoint(), run.recipe
    assert folder is not None, "decide() has checked that"
    if recipe.batch_size == "auto":  # keep what was chosen at the start
        found = {"batch_size": own.batch_size, "accumulate": own.accumulate}
        recipe = recipe.model_copy(update=found)
    if recipe.image_size == "auto":
        recipe = recipe.model_copy(update={"image_size": own.image_size})
    try:
        then = Conditions.read(Progress.read(read_progress(folder)).conditions)
    except DamagedCheckpointError:  # it is reported when the checkpoint before it is used
        return recipe, []
    fitted = keep_global_batch(recipe, own, then, place.world_size)
    if fitted == recipe:
        return recipe, []
    return fitted, [
        f"{counted(place.world_size, 'rank(s)')} in place of {then.ranks}: "
        f"batch_size {fitted.batch_size} and accumulate {fitted.accumulate} keep "
        f"{then.global_batch} images in a step."
    ]


@contextmanager
def _signals_stop() -> Iterator[None]:
    """Make signals end a run before and after the loop as they do inside it."""
    try:
        with unwinding():
            yield
    except Stopped:
        raise
    except KeyboardInterrupt as error:
        raise Stopped("stopped as asked") from error


def _folder(verb: str, recipe: Recipe) -> Path:
    return Path(recipe.out or f"runs/{verb}-{recipe.model}")


def _kernels(kernels: choice.Choice, place: Place) -> list[str]:
    """Choose the kernels of this process.

    Returns:
        Lines for the user: how threads of the CPU wait, and the kernels if they are not the
        expected ones.
    """
    kind = place.device.type
    if kind not in ("cpu", "cuda"):
        unused = "No effect here: kernels (for CPUs and NVIDIA GPUs only)."
        return [unused] if kernels != "auto" else []
    chosen = choice.choose(kernels, place.device)
    if kind == "cuda":
        return [] if chosen in (kernels, "native") else [f"Kernels: {chosen}."]
    lines = [waiting.line(os.environ, torch.get_num_threads())]
    if chosen not in (kernels, "native"):
        lines.append(f"Kernels: {chosen}; about half as fast on a CPU.")
    return lines


def _notes(verb: str, recipe: Recipe) -> list[str]:
    """Return lines about knobs that work differently in pre-training."""
    lines = []
    if verb == "pretrain" and recipe.mindcv_files:
        lines.append(
            "mindcv_files in pretrain: result.log only, since MindCV has no files for FCMAE."
        )
    if verb == "pretrain" and recipe.keep_policy == "top_k":
        lines.append(
            "keep_policy = top_k in pretrain: there are no scores, so the newest are kept "
            "(latest_k)."
        )
    return lines
