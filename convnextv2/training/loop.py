"""The only training loop.

All tasks share it. What differs between them is in the `Task` that they pass. The loop never looks
inside a batch. Everything that does not happen in every step is an `if`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from types import FrameType
from typing import Any, Protocol

import torch
from torch import nn

from convnextv2.data.chance import stream
from convnextv2.distributed import Place
from convnextv2.errors import DataError, Stopped, TrainingError
from convnextv2.training.agreement import Agreement
from convnextv2.training.bad_step import BadStep, complaint
from convnextv2.training.deadline import Deadline
from convnextv2.training.elastic import GradientTree
from convnextv2.training.ema import WeightAverage
from convnextv2.training.gradients import backward, backward_in_order, clip, seed_from
from convnextv2.training.health import MOST_SKIPPED, LossWatch
from convnextv2.training.pace import Pace, is_due
from convnextv2.training.progress import Display
from convnextv2.training.shard import whole_model
from convnextv2.training.state import Progress
from convnextv2.training.task import Examine, Task
from convnextv2.training.window import Window


class Keeper(Protocol):
    """The part of `training.keeper.Keeper` that the loop needs."""

    @property
    def needs_all_ranks(self) -> bool:
        """Whether a checkpoint can only be written if all ranks take part."""

    def log(self, record: dict[str, Any]) -> None:
        """Log a record."""

    def save(self, wait: bool) -> None:
        """Write a checkpoint. If `wait` is True, it must be on the disk when this returns."""

    def keep_best(self, figures: dict[str, float]) -> None:
        """Remember an evaluation of the weights that the model holds."""

    def close_epoch(self) -> None:
        """Finish an epoch after its evaluation was logged."""

    def keep_bad(self, bad: BadStep) -> str:
        """Keep the batches of a step that is not finite, and return where and what they are."""


def fit(
    model: nn.Module,
    task: Task,
    keeper: Keeper,
    *,
    pace: Pace,
    optimizer: torch.optim.Optimizer,
    lr_at: Callable[[int], float],
    average: WeightAverage | None,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    place: Place,
    watch: LossWatch | None = None,
    tree: GradientTree | None = None,
    deadline: Deadline | None = None,
    examine: Examine | None = None,
) -> None:
    """Train from `progress` to the end of `pace.epochs`, or until `pace.patience` is exhausted.

    Args:
        model: The network on its device, wrapped if gradients are averaged over ranks.
        task: The batches, the loss and the evaluation. The loop puts the averaged weights into the
            model before it evaluates.
        keeper: Writes what must outlive the process.
        pace: How long the loop runs, and how often it does what.
        optimizer: The optimizer. Its groups have an "lr_scale".
        lr_at: Maps a step to its learning rate.
        average: The moving average of the weights; None if there is none.
        scaler: The scaler of gradients in float16. It is disabled in every other precision.
        progress: The position of the run. It is updated as the run goes on.
        place: This rank.
        watch: Watches the losses of the log; None for no watch.
        tree: Adds gradients in an order that does not depend on the ranks; None to add them in the
            fastest way.
        deadline: Decides the number of epochs while the run goes on; None for those of `pace`.
        examine: Examines the model before the first step and after epochs; None for nothing.

    Raises:
        TrainingError: The loss, the gradient or the weights are not finite.
        Stopped: SIGINT or SIGTERM asked for a stop. A checkpoint is written first.
        BaseException: Any other error, for example with an image, an evaluation or a disk. If the
            weights are whole, a checkpoint is written first, so that no step is lost.
    """
    if deadline is not None:
        pace = replace(pace, epochs=deadline.epochs)
    # Reading a loss waits for the device. That is cheap on a CPU; elsewhere it is done only if
    # needed.
    looks_always = place.device.type == "cpu" or pace.skip_bad
    agreement = Agreement(every_step=looks_always or place.world_size == 1)
    window = Window(progress)
    skipped_in_a_row = 0
    saved_at = time.monotonic()

    with (
        Display(
            pace.total_steps,
            done=progress.step,
            main=place.is_main,
            left_s=deadline.left if deadline is not None else None,
        ) as display,
        stop_requests() as stop_requested,
        Rescue(keeper, window, progress, place) as rescue,
    ):
        task.loader.patience.stop_asked = stop_requested
        end_epoch = partial(
            close_epoch, model, task, keeper, average, progress, display, deadline, examine
        )
        if examine is not None and progress.step == 0:
            log_examined(examine, model, keeper, average, progress, display, pace.epochs)
            window.restart()
        if not progress.is_closed:
            # A stop came between the save of an epoch and its evaluation.
            end_epoch(pace, began=time.perf_counter(), trained_s=0.0)
        while progress.epoch < pace.epochs and not progress.is_out_of(pace.patience):
            model.train()
            epoch_started = time.perf_counter()
            teaches = progress.batch > 0  # batches before a resumed position are not known here
            for group in steps_of_epoch(task, pace, progress, place, window):
                # ---- one step: all of its randomness follows from (seed, step, rank), or from ----
                # ---- (seed, step, micro-batch) if a tree adds the gradients                   ----
                generator = stream(pace.seed, "step", progress.step, place.rank)
                seed_from(generator)
                lr = lr_at(progress.step)
                for parameters in optimizer.param_groups:
                    parameters["lr"] = lr * parameters["lr_scale"]

                learned_from = [batch for batch in group if task.size(batch)]
                if tree is not None:
                    losses = backward_in_order(
                        model, task, group, scaler, pace, place, tree, step=progress.step
                    )
                    learns = tree.add() > 0
                elif learned_from or place.world_size == 1:
                    losses = backward(model, task, learned_from, scaler, pace, place, generator)
                    learns = bool(losses)
                else:
                    raise DataError(
                        "No image of a batch could be read, and the other ranks cannot go on "
                        "without this one. Remove the bad files."
                    )
                teaches = teaches or learns
                norm = torch.zeros(())
                if learns:
                    scaler.unscale_(optimizer)
                    norm = clip(model, pace.clip_norm)
                if losses:
                    loss = torch.stack(losses).mean()
                    window.collect(loss, norm, leaves_out=scaler.is_enabled())

                # All ranks take the step or leave it out, save and stop together. What they do not
                # agree on now, such as a stop, they agree on at one of the next steps.
                is_line = is_due(
                    progress.step + 1, every=pace.log_every_steps, last=pace.total_steps
                )
                is_bad = (looks_always or is_line) and not window.look()
                is_late = (
                    pace.save_every_s is not None
                    and time.monotonic() > saved_at + pace.save_every_s
                )
                stop, bad, saves_now, shared = 0.0, 0.0, 0.0, [0.0, 0.0]
                if agreement.is_due(progress.step) or is_line:
                    stop, bad, saves_now, step_s, *shared = place.share(
                        stop_requested(), is_bad, is_late, agreement.step_s(), *window.unshared()
                    )
                    agreement.plan(progress.step, step_s / place.world_size)
                epoch = progress.epoch + (progress.batch + len(group)) / pace.batches_per_epoch
                now = {"step": progress.step + 1, "epoch": round(epoch, 4)}
                if bad:
                    optimizer.zero_grad(set_to_none=True)
                    window.discard()
                    skipped_in_a_row += 1
                    found = BadStep(
                        progress.step, learned_from, [float(loss) for loss in losses], float(norm)
                    )
                    where = keeper.keep_bad(found)
                    if not pace.skip_bad or skipped_in_a_row > MOST_SKIPPED:
                        raise TrainingError(complaint(found, where, is_exact=looks_always))
                    keeper.log({"kind": "bad step", **now, "kept": where})
                    display.text(
                        f"step {now['step']}: not finite, so left out. It is kept in {where}."
                    )
                elif learns:
                    window.add(*shared)
                    skipped_in_a_row = 0
                    rescue.is_whole = False
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad(set_to_none=True)
                    if average is not None:
                        average.update(progress.step + 1 + progress.average_ahead)
                progress.step += 1
                progress.batch += len(group)
                progress.score = None
                rescue.is_whole = True
                # ---- end of the step ----

                window.add_images(len(group) * pace.batch_size * place.world_size)
                if is_line and window.loss_count:
                    figures = window.figures()
                    record = {"kind": "train", **now, "lr": lr, **figures}
                    keeper.log(record)
                    display.line(record)
                    if watch is not None and (line := watch.look(figures["loss"])):
                        display.text(line)
                    if deadline is not None:
                        deadline.check_first_epoch(len(task.loader.source))
                if deadline is not None:
                    deadline.note()
                display.advance(progress.step, window.last_loss, lr, window)
                is_due_to_save = is_due(progress.step, every=pace.save_every_steps)
                if stop or saves_now or is_due_to_save:
                    window.settle(place)
                if stop:
                    raise Stopped(
                        f"stopped as asked after step {progress.step} of {pace.total_steps}"
                    )
                if saves_now or is_due_to_save:
                    window.remember(progress)
                    keeper.save(False)
                    saved_at = time.monotonic()

            if not teaches:
                rescue.is_whole = False  # the steps must be repeated, with images
                raise DataError(
                    f"epoch {progress.epoch + 1}: none of its images could be read, so nothing "
                    "was learned. Look at the data folder and its permissions."
                )
            progress.epoch, progress.batch = progress.epoch + 1, 0
            window.settle(place)
            window.restart()
            window.remember(progress)
            trained_s = time.perf_counter() - epoch_started
            if deadline is not None:
                deadline.close_training(len(task.loader.source))
                pace = replace(pace, epochs=deadline.epochs)
                display.plan(pace.total_steps)
                if progress.epoch == 1:
                    display.text(deadline.line())
            if pace.saves_after(progress.epoch):
                keeper.save(False)  # before the evaluation, which may fail
                saved_at = time.monotonic()
            # The evaluation may take longer than a launcher waits, so a stop comes before it.
            [stop] = place.share(stop_requested())
            if stop:
                raise Stopped(f"stopped as asked after step {progress.step} of {pace.total_steps}")
            end_epoch(pace, began=epoch_started, trained_s=trained_s)
            window.restart()


@dataclass
class Rescue:
    """Writes a checkpoint if an error ends the loop, so that no step is lost.

    Attributes:
        keeper: Writes the checkpoint.
        window: The losses that belong to it.
        progress: The position that belongs to it.
        place: This rank.
        is_whole: Whether weights, average and optimizer all belong to `progress.step`. If they do
            not, nothing is written.
    """

    keeper: Keeper
    window: Window
    progress: Progress
    place: Place
    is_whole: bool = True

    def __enter__(self) -> Rescue:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or not self.is_whole:
            return
        # Another error may be that of one rank alone, and the others would not come to save.
        if self.keeper.needs_all_ranks and not isinstance(error, Stopped | TrainingError):
            error.add_note(
                "The steps since the last checkpoint are not saved: a sharded run is saved by all "
                "ranks together."
            )
            return
        try:
            if self.place.world_size == 1:
                self.window.settle(self.place)
            self.window.remember(self.progress)
            self.keeper.save(True)
        except (OSError, TrainingError) as failure:  # the disk itself may have failed
            why = f" ({str(failure).rstrip('.')})" if str(failure) != str(error) else ""
            error.add_note(f"The steps since the last checkpoint are not saved{why}.")


def close_epoch(
    model: nn.Module,
    task: Task,
    keeper: Keeper,
    average: WeightAverage | None,
    progress: Progress,
    display: Display,
    deadline: Deadline | None,
    examine: Examine | None,
    pace: Pace,
    *,
    began: float,
    trained_s: float,
) -> None:
    """Evaluate, if it is due, and log the end of an epoch.

    Args:
        model: The network.
        task: The evaluation.
        keeper: Writes the records, and remembers the evaluation.
        average: The moving average, which is evaluated in place of the weights; None for none.
        progress: The position, just after the epoch's last step.
        display: Shows the figures.
        deadline: Is told what the epoch took; None if the number of epochs is fixed.
        examine: Examines the model; None for nothing.
        pace: How often to evaluate.
        began: The time at which the epoch began, by `time.perf_counter`.
        trained_s: Seconds of training since then.
    """
    figures = {}
    if task.score is not None and is_due(
        progress.epoch, every=pace.val_every_epochs, last=pace.epochs
    ):
        model.eval()
        with average.in_model() if average is not None else nullcontext():
            with whole_model(model):
                figures = task.evaluate()
            keeper.keep_best(figures)
        record = {"kind": "eval", "step": progress.step, "epoch": progress.epoch, **figures}
        keeper.log(record)
        display.line(record)
    examined = examine is not None and log_examined(
        examine, model, keeper, average, progress, display, pace.epochs
    )
    total_s = time.perf_counter() - began
    times = {
        "train_s": round(trained_s, 2),
        "eval_s": round(total_s - trained_s, 2),
        "total_s": round(total_s, 2),
    }
    where = {"kind": "epoch", "step": progress.step, "epoch": progress.epoch}
    keeper.log({**where, "last_loss": progress.last_loss, **times, **figures})
    progress.closed = progress.epoch
    if deadline is not None:
        deadline.close_epoch(total_s - trained_s if figures or examined else 0.0)
    if progress.is_out_of(pace.patience) and not pace.saves_after(progress.epoch):
        keeper.save(False)  # it is the last epoch, which is always saved
    keeper.close_epoch()


def log_examined(
    examine: Examine,
    model: nn.Module,
    keeper: Keeper,
    average: WeightAverage | None,
    progress: Progress,
    display: Display,
    last: int,
) -> bool:
    """Examine the model, or its average if there is one, and log what was found.

    Args:
        examine: Examines the model.
        model: The network.
        keeper: Writes the records.
        average: The moving average, which is examined in place of the weights; None for none.
        progress: The position, at the end of an epoch.
        display: Shows what was found.
        last: The number of the last epoch.

    Returns:
        Whether anything was examined.
    """
    model.eval()
    anything = False
    with average.in_model() if average is not None else nullcontext():
        for found in examine(progress.epoch, last):
            anything = True
            where = {"step": progress.step, "epoch": progress.epoch}
            keeper.log({"kind": found.record["kind"], **where, **found.record})
            for line in found.lines:
                display.text(f"epoch {progress.epoch}: {line}")
    return anything


def steps_of_epoch(
    task: Task, pace: Pace, progress: Progress, place: Place, window: Window
) -> Iterator[list[Any]]:
    """Yield the batches of each step that is left in the epoch, and measure the wait for them.

    Args:
        task: The batches.
        pace: How many of them belong to a step.
        progress: The position of the run, which the loop moves on between two steps.
        place: This rank, which tells the others where it waits.
        window: What measures the wait.
    """
    groups = in_groups(rest_of_epoch(task, pace, progress), pace.accumulate)
    while True:
        place.at_step(progress.step)
        with window.waiting():
            group = next(groups, None)
        if group is None:
            return
        yield group


def rest_of_epoch(task: Task, pace: Pace, progress: Progress) -> Iterable[Any]:
    """Return the batches of the current epoch that are not done yet.

    If the number of ranks has changed since the start of a run, its loader may have a batch or two
    more in an epoch. The run keeps the number that it had.
    """
    batches = task.loader.batches(progress.epoch, progress.batch)
    if len(task.loader) > pace.batches_per_epoch:
        return islice(batches, pace.batches_per_epoch - progress.batch)
    return batches


def in_groups(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Group batches into lists of `size`. The last list may be shorter."""
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Let SIGINT and SIGTERM ask for a stop after the current step. A second SIGINT interrupts.

    Yields:
        A function that returns whether a stop was asked for.
    """
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if number in received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    with ExitStack() as stack:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                stack.callback(signal.signal, number, signal.signal(number, remember))
        except ValueError:  # not in the main thread: whoever owns the signals keeps them
            pass
        yield lambda: bool(received)
