"""The only training loop.

All tasks share it. What differs between them is in the `Task` that they pass. The loop never looks
inside a batch. Everything that does not happen in every step is an `if`.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from convnextv2.data.chance import stream
from convnextv2.distributed import Place
from convnextv2.errors import DataError, Stopped, TrainingError
from convnextv2.training.elastic import GradientTree
from convnextv2.training.ema import WeightAverage
from convnextv2.training.health import MOST_SKIPPED, LossWatch, gradient_norm
from convnextv2.training.progress import Display
from convnextv2.training.state import Progress
from convnextv2.training.task import Task


@dataclass(frozen=True)
class Pace:
    """How long the loop runs, and how often it does what.

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
        autocast: The precision of the forward pass.
        save_every_steps: Steps between further checkpoints; None for no such checkpoints.
        save_every_s: Seconds between further checkpoints; None for no such checkpoints.
        skip_bad: Whether a step that is not finite is left out instead of ending the run.
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
    autocast: torch.dtype
    save_every_steps: int | None = None
    save_every_s: float | None = None
    skip_bad: bool = False

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch. The last one may have fewer batches."""
        return math.ceil(self.batches_per_epoch / self.accumulate)


@dataclass(frozen=True)
class BadStep:
    """A step whose loss or gradient is not finite.

    Attributes:
        number: The number of steps before it.
        batches: This rank's batches of the step.
        losses: The loss of each of these batches.
        gradient_norm: The norm of the gradient averaged over ranks; NaN if the loss was not finite.
    """

    number: int
    batches: list[Any]
    losses: list[float]
    gradient_norm: float


class Keeper(Protocol):
    """The part of `training.keeper.Keeper` that the loop needs."""

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


def is_due(count: int, *, every: int | None, last: int | None = None) -> bool:
    """Return whether something is due: at each multiple of `every`, and at the last count.

    Args:
        count: The current count, of steps or epochs.
        every: The interval; None for never.
        last: The last count; None if there is none.
    """
    return (every is not None and count % every == 0) or count == last


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
) -> None:
    """Train from `progress` to the end of `pace.epochs`.

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

    Raises:
        TrainingError: The loss, the gradient or the weights are not finite.
        Stopped: SIGINT or SIGTERM asked for a stop. A checkpoint is written first.
        BaseException: Any other error, for example with an image, an evaluation or a disk. If the
            weights are whole, a checkpoint is written first, so that no step is lost.
    """
    total_steps = pace.epochs * pace.steps_per_epoch
    # Reading a loss waits for the device. That is cheap on a CPU; elsewhere it is done only if
    # needed.
    looks_always = place.device.type == "cpu" or pace.skip_bad
    window = Window(progress)
    is_whole = True  # weights, average and optimizer all belong to progress.step
    skipped_in_a_row = 0
    saved_at = time.monotonic()

    def close_epoch(began: float, trained_s: float) -> None:
        figures = {}
        if task.score is not None and is_due(
            progress.epoch, every=pace.val_every_epochs, last=pace.epochs
        ):
            model.eval()
            with average.in_model() if average is not None else nullcontext():
                figures = task.evaluate()
                keeper.keep_best(figures)
            record = {"kind": "eval", "step": progress.step, "epoch": progress.epoch, **figures}
            keeper.log(record)
            display.line(record)
        total_s = time.perf_counter() - began
        times = {
            "train_s": round(trained_s, 2),
            "eval_s": round(total_s - trained_s, 2),
            "total_s": round(total_s, 2),
        }
        where = {"kind": "epoch", "step": progress.step, "epoch": progress.epoch}
        keeper.log({**where, "last_loss": progress.last_loss, **times, **figures})
        progress.closed = progress.epoch
        keeper.close_epoch()

    with (
        Display(total_steps, done=progress.step, main=place.is_main) as display,
        stop_requests() as stop_requested,
    ):
        task.loader.patience.stop_asked = stop_requested
        try:
            if (
                not progress.is_closed
            ):  # a stop came between the save of an epoch and its evaluation
                close_epoch(time.perf_counter(), 0.0)
            while progress.epoch < pace.epochs:
                model.train()
                epoch_started = time.perf_counter()
                groups = iter(in_groups(rest_of_epoch(task, pace, progress), pace.accumulate))
                teaches = progress.batch > 0  # batches before a resumed position are not known here
                while True:
                    place.at_step(progress.step)
                    with window.waiting():
                        group = next(groups, None)
                    if group is None:
                        break

                    # ---- one step: all of its randomness follows from (seed, step, rank), or ----
                    # ---- from (seed, step, micro-batch) if a tree adds the gradients         ----
                    generator = stream(pace.seed, "step", progress.step, place.rank)
                    seed_from(generator)
                    lr = lr_at(progress.step)
                    for parameters in optimizer.param_groups:
                        parameters["lr"] = lr * parameters["lr_scale"]
                    learned_from = [batch for batch in group if task.size(batch)]
                    learns = bool(learned_from)
                    losses = []
                    if tree is not None:
                        for i, batch in enumerate(group):
                            if task.size(batch):
                                generator = tree.chance(pace.seed, progress.step, i)
                                seed_from(generator)
                                with place.autocast(pace.autocast):
                                    loss = task.loss(model, batch, generator)
                                scaler.scale(loss).backward()
                                losses.append(loss.detach())
                            tree.take(taught=task.size(batch) > 0)
                        learns = tree.add() > 0
                    else:
                        for i, batch in enumerate(learned_from):
                            with nullcontext() if i == len(learned_from) - 1 else no_sync(model):
                                with place.autocast(pace.autocast):
                                    loss = task.loss(model, batch, generator)
                                scaler.scale(loss / len(learned_from)).backward()
                            losses.append(loss.detach())
                    teaches = teaches or learns
                    norm = torch.zeros(())
                    if not learned_from and place.world_size > 1 and tree is None:
                        raise DataError(
                            "No image of a batch could be read, and the other ranks cannot go on "
                            "without this one. Remove the bad files."
                        )
                    if learns:
                        scaler.unscale_(optimizer)
                        norm = clip(model, pace.clip_norm)
                    if learned_from:
                        window.collect(
                            torch.stack(losses).mean(), norm, leaves_out=scaler.is_enabled()
                        )

                    epoch_now = (
                        progress.epoch + (progress.batch + len(group)) / pace.batches_per_epoch
                    )
                    is_line = is_due(
                        progress.step + 1, every=pace.log_every_steps, last=total_steps
                    )
                    is_bad = (looks_always or is_line) and not window.look()
                    is_late = (
                        pace.save_every_s is not None
                        and time.monotonic() > saved_at + pace.save_every_s
                    )
                    stop, bad, saves_now, *shared = place.share(
                        stop_requested(), is_bad, is_late, *window.unshared()
                    )
                    if bad:
                        optimizer.zero_grad(set_to_none=True)
                        window.discard()
                        skipped_in_a_row += 1
                        found = BadStep(
                            progress.step,
                            learned_from,
                            [float(loss) for loss in losses],
                            float(norm),
                        )
                        where = keeper.keep_bad(found)
                        if not pace.skip_bad or skipped_in_a_row > MOST_SKIPPED:
                            raise TrainingError(complaint(found, where, is_exact=looks_always))
                        told = {
                            "kind": "bad step",
                            "step": progress.step + 1,
                            "epoch": round(epoch_now, 4),
                        }
                        keeper.log({**told, "kept": where})
                        display.text(
                            f"step {progress.step + 1}: not finite, so left out. It is kept in "
                            f"{where}."
                        )
                    elif learns:
                        window.add(*shared)
                        skipped_in_a_row = 0
                        is_whole = False
                        scaler.step(optimizer)
                        scaler.update()
                        optimizer.zero_grad(set_to_none=True)
                        if average is not None:
                            average.update(progress.step + 1 + progress.average_ahead)
                    progress.step += 1
                    progress.batch += len(group)
                    progress.score = None
                    is_whole = True
                    window.add_images(len(group) * pace.batch_size * place.world_size)
                    # ---- end of the step ----

                    if is_line and window.loss_count:
                        figures = window.figures()
                        record = {
                            "kind": "train",
                            "step": progress.step,
                            "epoch": round(epoch_now, 4),
                            "lr": lr,
                        }
                        keeper.log({**record, **figures})
                        display.line({**record, **figures})
                        if watch is not None and (line := watch.look(figures["loss"])):
                            display.text(line)
                    display.advance(progress.step, window.last_loss, lr, window)
                    saves_now = saves_now or is_due(progress.step, every=pace.save_every_steps)
                    if stop or saves_now:
                        window.settle(place)
                    if stop:
                        raise Stopped(
                            f"stopped as asked after step {progress.step} of {total_steps}"
                        )
                    if saves_now:
                        window.remember(progress)
                        keeper.save(False)
                        saved_at = time.monotonic()

                if not teaches:
                    is_whole = False  # the steps must be repeated, with images
                    raise DataError(
                        f"epoch {progress.epoch + 1}: none of its images could be read, so nothing "
                        "was learned. Look at the data folder and its permissions."
                    )
                progress.epoch, progress.batch = progress.epoch + 1, 0
                window.settle(place)
                window.restart()
                window.remember(progress)
                trained_s = time.perf_counter() - epoch_started
                if is_due(progress.epoch, every=pace.save_every_epochs, last=pace.epochs):
                    keeper.save(False)  # before the evaluation, which may fail
                    saved_at = time.monotonic()
                if place.share(stop_requested())[
                    0
                ]:  # the evaluation may take longer than a launcher waits
                    raise Stopped(f"stopped as asked after step {progress.step} of {total_steps}")
                close_epoch(epoch_started, trained_s)
                window.restart()
        except BaseException as error:
            if is_whole:
                try:
                    if place.world_size == 1:
                        window.settle(place)
                    window.remember(progress)
                    keeper.save(True)
                except (OSError, TrainingError) as failure:  # the disk itself may have failed
                    why = f" ({str(failure).rstrip('.')})" if str(failure) != str(error) else ""
                    error.add_note(f"The steps since the last checkpoint are not saved{why}.")
            raise


def seed_from(generator: torch.Generator) -> None:
    """Seed PyTorch's own random numbers, such as those of drop path, from a step's generator."""
    torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))


def clip(model: nn.Module, largest: float | None) -> Tensor:
    """Scale the gradient down to a norm, if one is given, and return the norm that it had.

    Args:
        model: The model that has the gradient.
        largest: The maximum norm; None for no limit.
    """
    if largest is None:
        return gradient_norm(model.parameters())
    return torch.nn.utils.clip_grad_norm_(model.parameters(), largest)


def complaint(bad: BadStep, where: str, *, is_exact: bool) -> str:
    """Say what was not finite, and what to do.

    Args:
        bad: The step.
        where: Where its batches are kept.
        is_exact: Whether the step itself is known, or only that it was a recent one.
    """
    what = next((f"loss = {loss}" for loss in bad.losses if not math.isfinite(loss)), None)
    what = what or f"the gradient's norm = {bad.gradient_norm}"
    when = (
        f"at step {bad.number + 1}, which is not taken"
        if is_exact
        else f"near step {bad.number + 1}"
    )
    return (
        f"{what} {when}: training stops. Look at its batch with `convnextv2 replay`: {where}. "
        "Lower lr, lengthen the warm-up, or go on without such steps: --resume --bad_steps skip."
    )


class Window:
    """Figures since the last log line: mean loss, pace, share of the time spent waiting for data.

    A loss passes through three stages. It is collected while the device computes it. After it was
    looked at, it waits to be shared with the other ranks. After it was shared, it is counted. Every
    rank has the counts of all ranks, so that whatever it saves is complete.
    """

    def __init__(self, progress: Progress) -> None:
        self.last_loss = math.nan if progress.last_loss is None else progress.last_loss
        self._collected: list[Tensor] = []
        self._looked_at: list[float] = []
        self.restart()
        self.loss_sum, self.loss_count = progress.loss_sum, progress.loss_count

    def restart(self) -> None:
        """Forget what was counted. Evaluation and saving are not part of the pace of training."""
        self.started = time.perf_counter()
        self.waited_s, self.images = 0.0, 0
        self.loss_sum, self.loss_count = 0.0, 0

    def collect(self, loss: Tensor, norm: Tensor, *, leaves_out: bool) -> None:
        """Collect the loss and the gradient norm of a step, which the device may still compute.

        Args:
            loss: The loss of this rank, a scalar.
            norm: The norm of the gradient, a scalar.
            leaves_out: Whether the scaler leaves out steps with a bad norm by itself. The norm is
                then ignored here.
        """
        norm = torch.zeros_like(loss) if leaves_out else norm
        self._collected.append(
            torch.stack([loss.float(), norm.float()])
        )  # not every device has float64

    def look(self) -> bool:
        """Read what was collected, and return whether all of it is finite."""
        if not self._collected:
            return True
        found = torch.stack(self._collected)
        self._collected.clear()
        self._looked_at += found[:, 0].tolist()
        return bool(found.isfinite().all())

    def unshared(self) -> tuple[float, int]:
        """Return the sum and the number of the losses that the other ranks do not know yet."""
        return sum(self._looked_at), len(self._looked_at)

    def discard(self) -> None:
        """Forget the losses that the other ranks do not know yet."""
        self._looked_at.clear()

    def add(self, loss_sum: float, loss_count: float) -> None:
        """Count losses of all ranks, including those that this rank had not shared yet."""
        if self._looked_at:
            self.last_loss = self._looked_at[-1]
            self._looked_at.clear()
        self.loss_sum += loss_sum
        self.loss_count += int(loss_count)

    def settle(self, place: Place) -> None:
        """Look at, share and count the remaining losses. All ranks must call this together.

        Raises:
            TrainingError: A loss or a gradient is not finite.
        """
        is_finite = self.look()
        bad, *shared = place.share(not is_finite, *self.unshared())
        if bad:
            self.discard()
            raise TrainingError(
                "a loss or gradient since the last log line is not finite: training stops. Lower "
                "lr, lengthen the warm-up, or go on without such steps: --resume --bad_steps skip."
            )
        self.add(*shared)

    def remember(self, progress: Progress) -> None:
        """Put into the progress what a resumed run needs to log the same lines."""
        progress.last_loss = None if math.isnan(self.last_loss) else self.last_loss
        progress.loss_sum, progress.loss_count = self.loss_sum, self.loss_count

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measure the time in the `with` block as time without data."""
        start = time.perf_counter()
        yield
        self.waited_s += time.perf_counter() - start

    def add_images(self, count: int) -> None:
        """Count images of all ranks."""
        self.images += count

    @property
    def images_per_second(self) -> float:
        """Images of all ranks per second."""
        return self.images / max(time.perf_counter() - self.started, 1e-9)

    @property
    def data_wait(self) -> float:
        """Share of the time without data, from 0 to 1."""
        return self.waited_s / max(time.perf_counter() - self.started, 1e-9)

    def figures(self) -> dict[str, float]:
        """Return the figures of the window, and start a new window."""
        figures = {
            "loss": round(self.loss_sum / max(self.loss_count, 1), 6),
            "images_per_second": round(self.images_per_second, 2),
            "data_wait": round(self.data_wait, 4),
        }
        self.restart()
        return figures


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


def no_sync(model: nn.Module) -> Any:
    """Return a context in which gradients are accumulated on this rank and not averaged."""
    return (
        model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()
    )


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
