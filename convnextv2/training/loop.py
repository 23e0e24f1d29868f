"""The only training loop: supervised training, fine-tuning and FCMAE differ in the `loss_fn` that they pass.

It never looks inside a batch. Read from the top, each thing that does not happen in every step is an `if`.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from convnextv2.data.chance import stream
from convnextv2.distributed import Place
from convnextv2.errors import TrainingError
from convnextv2.training.ema import WeightAverage
from convnextv2.training.progress import Display
from convnextv2.training.state import Progress


@dataclass(frozen=True)
class Pace:
    """How long the loop runs and what it does how often. batches_per_epoch counts this rank's; `accumulate` of them make a
    step."""

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

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch; the last one may have fewer batches."""
        return math.ceil(self.batches_per_epoch / self.accumulate)


def is_due(count: int, *, every: int, last: int) -> bool:
    """True at each multiple of `every`, and at the last."""
    return count % every == 0 or count == last


def fit(
    model: nn.Module,
    batches: Callable[[int, int], Iterable[Any]],
    loss_fn: Callable[[nn.Module, Any, torch.Generator], Tensor],
    *,
    pace: Pace,
    optimizer: torch.optim.Optimizer,
    lr_at: Callable[[int], float],
    average: WeightAverage | None,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    place: Place,
    log: Callable[[dict[str, Any]], None],
    evaluate: Callable[[], dict[str, float]] | None,
    save: Callable[[], None],
    close: Callable[[], None],
    file_names: Callable[[Any], list[str]],
) -> None:
    """Train from `progress` to the end of `pace.epochs`.

    batches: (epoch, first batch) to the batches of this rank from there on. loss_fn: (model, batch, CPU generator) to a scalar.
    evaluate: measures the model as it is; the loop puts the averaged weights in. log: takes one record.
    save: writes a checkpoint. close: called after the evaluation of an epoch was logged, for what follows from it.
    file_names: of a batch, for the message when its loss is not finite.
    Raises TrainingError when the loss is not finite, KeyboardInterrupt after a checkpoint when asked to stop (SIGINT,
    SIGTERM). Any other exception is raised after a checkpoint, too: what is wrong with an image, an evaluation or a
    disk costs no step."""
    total_steps = pace.epochs * pace.steps_per_epoch
    # Reading a loss waits for the device: cheap on a CPU, on accelerators done only where a line is due anyway.
    look_every = 1 if place.device.type == "cpu" else pace.log_every_steps
    losses: list[tuple[Tensor, list[str]]] = []  # with the names of the images, not the images: a window of them is large
    window = Window(progress, place)
    is_whole = True  # the weights, their average and the optimizer are those of progress.step

    def close_epoch(began: float, trained_s: float) -> None:
        figures = {}
        if evaluate is not None and is_due(progress.epoch, every=pace.val_every_epochs, last=pace.epochs):
            model.eval()
            with average.in_model() if average is not None else nullcontext():
                figures = evaluate()
            record = {"kind": "eval", "step": progress.step, "epoch": progress.epoch, **figures}
            log(record)
            display.line(record)
        total_s = time.perf_counter() - began
        times = {"train_s": round(trained_s, 2), "eval_s": round(total_s - trained_s, 2), "total_s": round(total_s, 2)}
        where = {"kind": "epoch", "step": progress.step, "epoch": progress.epoch}
        log({**where, "last_loss": progress.last_loss, **times, **figures})
        progress.closed = progress.epoch
        close()

    with Display(total_steps, done=progress.step, main=place.is_main) as display, stop_requests() as stop_requested:
        try:
            if not progress.is_closed:  # a stop came between the save of an epoch and its evaluation
                close_epoch(time.perf_counter(), 0.0)
            while progress.epoch < pace.epochs:
                model.train()
                epoch_started = time.perf_counter()
                groups = iter(in_groups(batches(progress.epoch, progress.batch), pace.accumulate))
                while True:
                    with window.waiting():
                        group = next(groups, None)
                    if group is None:
                        break

                    # ---- one step: all of its randomness follows from (seed, step, rank) ----
                    generator = stream(pace.seed, "step", progress.step, place.rank)
                    torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
                    lr = lr_at(progress.step)
                    for parameters in optimizer.param_groups:
                        parameters["lr"] = lr * parameters["lr_scale"]
                    step_loss = torch.zeros((), device=place.device)
                    for i, batch in enumerate(group):
                        with nullcontext() if i == len(group) - 1 else no_sync(model):
                            with place.autocast(pace.autocast):
                                loss = loss_fn(model, batch, generator)
                            scaler.scale(loss / len(group)).backward()
                        step_loss += loss.detach() / len(group)
                    if pace.clip_norm is not None:
                        scaler.unscale_(optimizer)
                        torch.nn.utils.clip_grad_norm_(model.parameters(), pace.clip_norm)
                    losses.append((step_loss, [name for batch in group for name in file_names(batch)]))
                    if len(losses) >= look_every:
                        window.add_losses(finite(losses, progress.step))
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

                    epoch_now = progress.epoch + progress.batch / pace.batches_per_epoch
                    if is_due(progress.step, every=pace.log_every_steps, last=total_steps):
                        window.add_losses(finite(losses, progress.step))
                        record = {
                            "kind": "train",
                            "step": progress.step,
                            "epoch": round(epoch_now, 4),
                            "lr": lr,
                            **window.figures(place),
                        }
                        log(record)
                        display.line(record)
                    display.advance(progress.step, window.last_loss, lr, window)
                    if place.agree(stop_requested()):
                        window.add_losses(finite(losses, progress.step))
                        window.gather(place)
                        raise KeyboardInterrupt

                window.add_losses(finite(losses, progress.step))
                progress.epoch, progress.batch = progress.epoch + 1, 0
                window.restart()
                window.remember(progress)
                trained_s = time.perf_counter() - epoch_started
                if is_due(progress.epoch, every=pace.save_every_epochs, last=pace.epochs):
                    save()  # before the evaluation, which may fail
                close_epoch(epoch_started, trained_s)
                window.restart()
        except BaseException as error:
            # A loss that is not finite may come from weights that are not worth saving.
            if is_whole and not isinstance(error, TrainingError):
                window.add_losses(finite(losses, progress.step))
                window.remember(progress)
                try:
                    save()
                except (OSError, SafetensorError) as failure:  # the disk may be what went wrong
                    error.add_note(f"The steps since the last checkpoint are not saved ({failure}).")
            raise


def finite(losses: list[tuple[Tensor, list[str]]], step: int) -> list[float]:
    """Take the collected losses as numbers. Raises TrainingError with the names of the images where one is not finite."""
    if not losses:
        return []
    values: list[float] = torch.stack([loss for loss, _ in losses]).tolist()
    for value, (_, names) in zip(values, losses, strict=True):
        if not math.isfinite(value):
            raise TrainingError(
                f"loss = {value} near step {step}: training stops, the last checkpoint is kept. "
                f"Lower lr, lengthen the warm-up, or look at the images of that step: {', '.join(names)}"
            )
    losses.clear()
    return values


class Window:
    """Figures since the last log line: mean loss, images per second, share of the time spent waiting for data."""

    def __init__(self, progress: Progress, place: Place) -> None:
        self.last_loss = math.nan if progress.last_loss is None else progress.last_loss
        self.restart()
        if place.is_main:  # which saved the losses of all ranks
            self.loss_sum, self.loss_count = progress.loss_sum, progress.loss_count

    def restart(self) -> None:
        """Forget what was counted; evaluation and saving are not part of the pace of training."""
        self.started = time.perf_counter()
        self.waited_s, self.images = 0.0, 0
        self.loss_sum, self.loss_count = 0.0, 0

    def gather(self, place: Place) -> None:
        """Put the losses of all ranks into the main one's window."""
        total = place.sum(torch.tensor([self.loss_sum, self.loss_count], dtype=torch.float64))
        self.loss_sum, self.loss_count = (float(total[0]), int(total[1])) if place.is_main else (0.0, 0)

    def remember(self, progress: Progress) -> None:
        """Put into the progress what a resumed run needs for the same lines in its log."""
        progress.last_loss = None if math.isnan(self.last_loss) else self.last_loss
        progress.loss_sum, progress.loss_count = self.loss_sum, self.loss_count

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent here is time without data."""
        start = time.perf_counter()
        yield
        self.waited_s += time.perf_counter() - start

    def add_images(self, count: int) -> None:
        """Count images of all ranks."""
        self.images += count

    def add_losses(self, values: list[float]) -> None:
        """Take in the losses of this rank's steps."""
        if values:
            self.last_loss = values[-1]
            self.loss_sum = sum(values, self.loss_sum)
            self.loss_count += len(values)

    @property
    def images_per_second(self) -> float:
        """Images of all ranks per second."""
        return self.images / max(time.perf_counter() - self.started, 1e-9)

    @property
    def data_wait(self) -> float:
        """Share of the time without data, 0 to 1."""
        return self.waited_s / max(time.perf_counter() - self.started, 1e-9)

    def figures(self, place: Place) -> dict[str, float]:
        """The figures of the window, the loss averaged over ranks; starts a new window."""
        total = place.sum(torch.tensor([self.loss_sum, self.loss_count], dtype=torch.float64))
        figures = {
            "loss": round(float(total[0] / total[1].clamp(min=1)), 6),
            "images_per_second": round(self.images_per_second, 2),
            "data_wait": round(self.data_wait, 4),
        }
        self.restart()
        return figures


def in_groups(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` batches, the last one perhaps shorter."""
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def no_sync(model: nn.Module) -> Any:
    """Gradients of this backward pass stay on this rank (accumulation)."""
    return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask for a stop after the current step; a second SIGINT interrupts at once. Yields "was a stop asked
    for?"."""
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
