"""The only training loop.

All tasks share it. What differs between them is in the `Task` that they pass. The loop never looks
inside a batch. Everything that does not happen in every step is an `if`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from convnextv2.data.randomness import generator_for
from convnextv2.distributed import Place
from convnextv2.errors import DataError, Stopped, TrainingError
from convnextv2.training.agreement import Agreed, Agreement
from convnextv2.training.bad_step import BadStep, bad_step_line
from convnextv2.training.deadline import Deadline
from convnextv2.training.elastic import GradientTree
from convnextv2.training.ema import WeightAverage
from convnextv2.training.gradients import backward, backward_in_order, clip, seed_from
from convnextv2.training.health import MAX_SKIPPED, LossWatch
from convnextv2.training.keeper import Keeper
from convnextv2.training.loop_settings import LoopSettings, is_due
from convnextv2.training.progress import Display
from convnextv2.training.rescue import Rescue
from convnextv2.training.shard import whole_model
from convnextv2.training.state import Progress
from convnextv2.training.steps import steps_of_epoch
from convnextv2.training.stop import stop_requests
from convnextv2.training.task import Examine, Task
from convnextv2.training.window import Window


@dataclass
class Loop:
    """Trains from `progress` until `settings.epochs` are done or `settings.patience` is exhausted.

    Attributes:
        model: The network on its device, wrapped if gradients are averaged over ranks.
        task: The batches, the loss and the evaluation. The loop puts the averaged weights into the
            model before it evaluates.
        keeper: Writes the log, the checkpoints and the best weights.
        settings: How long the loop runs, and how often it logs, evaluates and saves.
        optimizer: The optimizer. Its groups have an "lr_scale".
        lr_at: Maps a step to its learning rate.
        average: The moving average of the weights; None if there is none.
        scaler: The scaler of gradients in float16. It is disabled in every other precision.
        progress: The position of the run. It is updated during the run.
        place: This rank.
        watch: Warns if the losses of the log jump or stall; None for no warnings.
        tree: Adds gradients in an order that does not depend on the number of ranks; None to add
            them in the fastest order.
        deadline: Decides the number of epochs during the run; None for the number in `settings`.
        examine: Examines the model before the first step and after epochs; None for nothing.
    """

    model: nn.Module
    task: Task
    keeper: Keeper
    settings: LoopSettings
    optimizer: torch.optim.Optimizer
    lr_at: Callable[[int], float]
    average: WeightAverage | None
    scaler: torch.amp.GradScaler
    progress: Progress
    place: Place
    watch: LossWatch | None = None
    tree: GradientTree | None = None
    deadline: Deadline | None = None
    examine: Examine | None = None
    _display: Display = field(init=False)
    _stop_requested: Callable[[], bool] = field(init=False)
    _rescue: Rescue = field(init=False)

    def __post_init__(self) -> None:
        if self.deadline is not None:
            self.settings = replace(self.settings, epochs=self.deadline.epochs)
        # Reading a loss makes the host wait for the device. That costs nothing on a CPU; on other
        # devices it is done only if needed.
        self._reads_every_loss = self.place.device.type == "cpu" or self.settings.skip_bad
        self._agreement = Agreement(
            every_step=self._reads_every_loss or self.place.world_size == 1,
            first_step=self.progress.step,
        )
        self._window = Window(self.progress)
        self._skipped_in_a_row = 0
        self._saved_at = time.monotonic()

    def run(self) -> None:
        """Train to the end.

        Raises:
            TrainingError: The loss, the gradient or the weights are not finite.
            Stopped: SIGINT, SIGTERM or SIGHUP asked for a stop. A checkpoint is written first.
            BaseException: Any other error, for example of an image, an evaluation or a disk. Unless
                it came in the middle of an update, a checkpoint is written first, so that no step
                is lost.
        """
        progress = self.progress
        with (
            Display(
                self.settings.total_steps,
                done=progress.step,
                main=self.place.is_main,
                left_s=self.deadline.left if self.deadline is not None else None,
            ) as self._display,
            stop_requests() as self._stop_requested,
            Rescue(self.keeper, self._window, progress, self.place) as self._rescue,
        ):
            self.task.loader.storage_wait.stop_asked = self._stop_requested
            if progress.step == 0:
                self._log_examined()
                self._window.restart()
            if not progress.is_closed:
                # A stop came between the save of an epoch and its evaluation.
                self._close_epoch(began=time.perf_counter(), trained_s=0.0)
            while not self._is_done():
                self._run_epoch()

    def _is_done(self) -> bool:
        """Return whether all epochs are done, or patience is exhausted."""
        progress, settings = self.progress, self.settings
        return progress.epoch >= settings.epochs or progress.is_out_of(settings.patience)

    def _run_epoch(self) -> None:
        """Train on the rest of an epoch, then save, evaluate and log."""
        progress, window = self.progress, self._window
        self.model.train()
        began = time.perf_counter()
        has_learned = progress.batch > 0  # a resumed run has learned before
        for group in steps_of_epoch(self.task, self.settings, progress, self.place, window):
            has_learned |= self._step(group)
        if not has_learned:
            self._rescue.is_whole = False  # the steps must be repeated, with images
            raise DataError(
                f"epoch {progress.epoch + 1}: none of its images could be read, so nothing "
                "was learned. Check the data folder and its permissions."
            )
        progress.epoch, progress.batch = progress.epoch + 1, 0
        window.settle(self.place)
        window.restart()
        window.remember(progress)
        trained_s = time.perf_counter() - began
        if self.deadline is not None:
            self.deadline.plan_remaining_epochs(len(self.task.loader.source))
            self.settings = replace(self.settings, epochs=self.deadline.epochs)
            self._display.plan(self.settings.total_steps)
            if progress.epoch == 1:
                self._display.text(self.deadline.line())
        if self.settings.saves_after(progress.epoch):
            self._save()  # before the evaluation, which may fail
        # The evaluation may take longer than a launcher waits, so the run stops before it.
        [stop] = self.place.sum_numbers(self._stop_requested())
        if stop:
            raise self._stopped()
        self._close_epoch(began=began, trained_s=trained_s)
        window.restart()

    def _step(self, group: list[Any]) -> bool:
        """Make a step, then log and save if it is due.

        Args:
            group: The batches of the step on this rank.

        Returns:
            Whether any batch of the step had images.
        """
        progress, window, scaler = self.progress, self._window, self.scaler
        # ---- one step: all of its randomness follows from (seed, step, rank), or from ----
        # ---- (seed, step, micro-batch) if a tree adds the gradients                   ----
        generator = generator_for(self.settings.seed, "step", progress.step, self.place.rank)
        seed_from(generator)
        lr = self.lr_at(progress.step)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr * parameters["lr_scale"]

        losses, learns = self._backward(group, generator)
        norm = torch.zeros(())
        if learns:
            scaler.unscale_(self.optimizer)
            norm = clip(self.model, self.settings.clip_norm)
        if losses:
            window.collect(torch.stack(losses).mean(), norm, leaves_out=scaler.is_enabled())

        agreed = self._agree()
        if agreed.is_bad:
            self.optimizer.zero_grad(set_to_none=True)
            window.discard()
            self._leave_out(group, losses, norm)
        elif learns:
            window.add(*agreed.losses)
            self._skipped_in_a_row = 0
            self._rescue.is_whole = False
            scaler.step(self.optimizer)
            scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            if self.average is not None:
                self.average.update(progress.step + 1 + progress.average_ahead)
        progress.step += 1
        progress.batch += len(group)
        progress.score = None
        self._rescue.is_whole = True
        # ---- end of the step ----

        self._close_step(len(group), lr, agreed)
        return learns

    def _backward(self, group: list[Any], generator: torch.Generator) -> tuple[list[Tensor], bool]:
        """Compute the gradients of a step.

        Args:
            group: The batches of the step on this rank.
            generator: The source of all random numbers of the step.

        Returns:
            The loss of each batch with images, and whether any rank has a gradient to apply.
        """
        model, task, scaler, place = self.model, self.task, self.scaler, self.place
        dtype, seed = self.settings.dtype, self.settings.seed
        if self.tree is not None:
            step = self.progress.step
            losses = backward_in_order(
                model, task, group, scaler, dtype, place, self.tree, seed=seed, step=step
            )
            return losses, self.tree.add() > 0
        batches = [batch for batch in group if task.size(batch)]
        if not batches and place.world_size > 1:
            raise DataError(
                "No image of a batch could be read, and the other ranks cannot continue "
                "without this one. Remove the bad files."
            )
        losses = backward(model, task, batches, scaler, dtype, place, generator)
        return losses, bool(losses)

    def _agree(self) -> Agreed:
        """Agree with all ranks on whether to take the step, to save, and to stop.

        All ranks must do the same. If no exchange is due now, a request such as a stop is answered
        at one of the next steps.
        """
        step, settings = self.progress.step, self.settings
        is_log_due = is_due(step + 1, every=settings.log_every_steps, last=settings.total_steps)
        is_bad = (self._reads_every_loss or is_log_due) and not self._window.losses_are_finite()
        every_s = settings.save_every_s
        is_save_due = every_s is not None and time.monotonic() > self._saved_at + every_s
        if not self._agreement.is_due(step) and not is_log_due:
            return Agreed(is_log_due=False)
        stopping, bad, saving, step_s, *losses = self.place.sum_numbers(
            self._stop_requested(), is_bad, is_save_due, self._agreement.step_s(step),
            *self._window.unshared(),
        )  # fmt: skip
        self._agreement.plan(step, step_s / self.place.world_size)
        return Agreed(is_log_due, stopping > 0, bad > 0, saving > 0, (losses[0], losses[1]))

    def _leave_out(self, group: list[Any], losses: list[Tensor], norm: Tensor) -> None:
        """Keep the batches of a step that is not finite, and end the run unless it may continue.

        Raises:
            TrainingError: Such steps end the run, or there were too many of them in a row.
        """
        self._skipped_in_a_row += 1
        batches = [batch for batch in group if self.task.size(batch)]
        found = BadStep(self.progress.step, batches, [float(loss) for loss in losses], float(norm))
        where = self.keeper.keep_bad(found)
        if not self.settings.skip_bad or self._skipped_in_a_row > MAX_SKIPPED:
            raise TrainingError(bad_step_line(found, where, is_exact=self._reads_every_loss))
        step, epoch = self.progress.step + 1, self._epoch_after(len(group))
        self.keeper.log({"kind": "bad step", "step": step, "epoch": epoch, "kept": where})
        self._display.text(f"step {step}: not finite, so left out. It is kept in {where}.")

    def _epoch_after(self, batches: int) -> float:
        """Return the position in epochs after some more batches, rounded as in the log."""
        done = self.progress.batch + batches
        return round(self.progress.epoch + done / self.settings.batches_per_epoch, 4)

    def _close_step(self, batches: int, lr: float, agreed: Agreed) -> None:
        """Log a finished step if that is due; then stop or save as agreed.

        Args:
            batches: The batches of the step on this rank.
            lr: The learning rate of the step.
            agreed: What all ranks agreed on after the step.
        """
        progress, window, settings = self.progress, self._window, self.settings
        window.add_images(batches * settings.batch_size * self.place.world_size)
        if agreed.is_log_due and window.loss_count:
            where = {"step": progress.step, "epoch": self._epoch_after(0)}
            figures = window.take_figures()
            record = {"kind": "train", **where, "lr": lr, **figures}
            self.keeper.log(record)
            self._display.line(record)
            if self.watch is not None and (line := self.watch.check(figures["loss"])):
                self._display.text(line)
            if self.deadline is not None:
                self.deadline.check_first_epoch(len(self.task.loader.source))
        if self.deadline is not None:
            self.deadline.record_elapsed()
        self._display.advance(progress.step, window.last_loss, lr, window)
        saves = agreed.saves or is_due(progress.step, every=settings.save_every_steps)
        if agreed.stops or saves:
            window.settle(self.place)
        if agreed.stops:
            raise self._stopped()
        if saves:
            window.remember(progress)
            self._save()

    def _save(self) -> None:
        self.keeper.save(wait=False)
        self._saved_at = time.monotonic()

    def _stopped(self) -> Stopped:
        return Stopped(
            f"stopped as asked after step {self.progress.step} of {self.settings.total_steps}"
        )

    def _close_epoch(self, *, began: float, trained_s: float) -> None:
        """Evaluate, if it is due, and log the end of an epoch.

        Args:
            began: The time at which the epoch began, by `time.perf_counter`.
            trained_s: Seconds of training since then.
        """
        progress, settings, task, keeper = self.progress, self.settings, self.task, self.keeper
        where = {"step": progress.step, "epoch": progress.epoch}
        figures = {}
        if task.score is not None and is_due(
            progress.epoch, every=settings.val_every_epochs, last=settings.epochs
        ):
            self.model.eval()
            with self._averaged():
                with whole_model(self.model):
                    figures = task.evaluate()
                keeper.keep_best(figures)
            record = {"kind": "eval", **where, **figures}
            keeper.log(record)
            self._display.line(record)
        examined = self._log_examined()
        total_s = time.perf_counter() - began
        times = {
            "train_s": round(trained_s, 2),
            "eval_s": round(total_s - trained_s, 2),
            "total_s": round(total_s, 2),
        }
        keeper.log({"kind": "epoch", **where, "last_loss": progress.last_loss, **times, **figures})
        progress.closed = progress.epoch
        if self.deadline is not None:
            self.deadline.close_epoch(total_s - trained_s if figures or examined else 0.0)
        if progress.is_out_of(settings.patience) and not settings.saves_after(progress.epoch):
            keeper.save(wait=False)  # the last epoch is always saved
        keeper.close_epoch()

    def _log_examined(self) -> bool:
        """Examine the model, or its average if there is one, and log the results.

        Returns:
            Whether there were any results.
        """
        if self.examine is None:
            return False
        self.model.eval()
        anything = False
        with self._averaged():
            for found in self.examine(self.progress.epoch, self.settings.epochs):
                anything = True
                where = {"step": self.progress.step, "epoch": self.progress.epoch}
                self.keeper.log({"kind": found.record["kind"], **where, **found.record})
                for line in found.lines:
                    self._display.text(f"epoch {self.progress.epoch}: {line}")
        return anything

    def _averaged(self) -> AbstractContextManager[object]:
        """Return a context in which the model has the averaged weights, if there are any."""
        return self.average.in_model() if self.average is not None else nullcontext()
