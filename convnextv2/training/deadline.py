"""Ends training at a given time, for `time: 30m` in place of `epochs`.

The first epoch is measured while the learning rate warms up. After it, the number of epochs that
fit into the time is known, and the learning rate falls along a cosine over them. After every
further epoch, the number is corrected by the time that this epoch took, and the rest of the cosine
is spread over the epochs that are left. The learning rate of a step thus follows from what a
checkpoint holds, and a run that is resumed continues along the same cosine.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from convnextv2.distributed import Place
from convnextv2.durations import duration
from convnextv2.errors import TrainingError
from convnextv2.training.schedule import warmup_lr
from convnextv2.training.state import Progress

_END_S = 3.0
"""Seconds that the end of a run takes besides an evaluation: the last checkpoint and report."""
_MIN_EPOCHS = 2


@dataclass(frozen=True)
class Plan:
    """The plan for the end of a run with a time limit. It is saved in each checkpoint.

    Times are measured from the start of the run, without the pauses between two processes.

    Attributes:
        elapsed_s: The time until now.
        epoch_began_s: The time at which the current epoch began.
        epochs_s: The durations of the last epochs, with their evaluations.
        eval_s: The duration of the last evaluation; 0 before the first.
        epochs: The number of epochs that the run will have; None in the first epoch.
        step: The number of steps that were done when `epochs` was last set.
        share: The share of the cosine that was done at that step, from 0 to 1.
    """

    elapsed_s: float = 0.0
    epoch_began_s: float = 0.0
    epochs_s: tuple[float, ...] = ()
    eval_s: float = 0.0
    epochs: int | None = None
    step: int = 0
    share: float = 0.0


class Deadline:
    """Determines the number of epochs of a run from its time limit.

    Args:
        seconds: The time for the whole run.
        progress: The position of the run. Its plan is continued, and every new plan is stored in
            it.
        place: This rank. The clock of the main rank decides.
        steps_per_epoch: Steps in an epoch.
        peak: The highest learning rate.
        floor: The lowest learning rate.
        warmup_factor: The share of `peak` at the first step.
        began: The time at which the run began, by `clock`; None for now.
        clock: Returns seconds.
    """

    def __init__(
        self,
        seconds: float,
        progress: Progress,
        place: Place,
        *,
        steps_per_epoch: int,
        peak: float,
        floor: float,
        warmup_factor: float = 0.0,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds, self._progress, self._place = seconds, progress, place
        self._steps, self._peak, self._floor = steps_per_epoch, peak, floor
        self._warmup_factor = warmup_factor
        self._clock, self._began = clock, clock() if began is None else began
        self._before_s = self.plan.elapsed_s
        if not progress.step:
            self._change(epoch_began_s=self._elapsed())

    @property
    def plan(self) -> Plan:
        """The plan of the run."""
        saved = self._progress.plan or {}
        return Plan(**{**saved, "epochs_s": tuple(saved.get("epochs_s", ()))})

    @property
    def epochs(self) -> int:
        """The number of epochs that are planned; at least two during the first epoch."""
        return self.plan.epochs or self._progress.epoch + _MIN_EPOCHS

    def left(self) -> float:
        """Return the seconds until the deadline."""
        return max(0.0, self.seconds - self._elapsed())

    def record_elapsed(self) -> None:
        """Record the time after a step, so that a checkpoint has the duration of the run so far."""
        self._change(elapsed_s=self._elapsed())

    def _change(self, **values: Any) -> None:
        self._progress.plan = asdict(replace(self.plan, **values))

    def _elapsed(self) -> float:
        return self._before_s + self._clock() - self._began

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self._steps:
            return warmup_lr(
                step, peak=self._peak, warmup_steps=self._steps, factor=self._warmup_factor
            )
        share = self._share_at(step)
        return self._floor + (self._peak - self._floor) / 2 * (1 + math.cos(math.pi * share))

    def _share_at(self, step: int) -> float:
        plan = self.plan
        if plan.epochs is None:
            return 0.0
        left = plan.epochs * self._steps - plan.step
        return min(1.0, plan.share + (step - plan.step) * (1 - plan.share) / max(left, 1))

    def check_first_epoch(self, images: int) -> None:
        """Check that the time is sufficient, as soon as that can be known.

        Args:
            images: The number of training images.

        Raises:
            TrainingError: Fewer than two epochs would fit.
        """
        done = self._progress.step
        if self.plan.epochs is not None or done < 3:
            return
        taken = self._elapsed() - self.plan.epoch_began_s
        epoch_s = taken * self._steps / done
        if taken > 0.02 * self.seconds and _MIN_EPOCHS * epoch_s > self.seconds:
            raise TrainingError(self._too_short(images, epoch_s))

    def plan_remaining_epochs(self, images: int) -> None:
        """Plan the rest of the run, after the steps of an epoch and before its evaluation.

        Args:
            images: The number of training images.

        Raises:
            TrainingError: It was the first epoch, and no second one fits.
        """
        plan, progress = self.plan, self._progress
        elapsed = float(self._place.gather(self._elapsed())[0])
        trained_s = elapsed - plan.epoch_began_s
        epoch_s = statistics.median(plan.epochs_s[-3:] or [trained_s])
        left = self.seconds - elapsed - 2 * plan.eval_s - _END_S  # this epoch's and the report's
        more = max(0, round(left / epoch_s)) if epoch_s > 0 else 0
        [more] = self._place.gather(more)[:1]
        if progress.epoch + more < _MIN_EPOCHS:
            raise TrainingError(self._too_short(images, trained_s))
        self._change(
            elapsed_s=elapsed,
            share=self._share_at(progress.step),
            step=progress.step,
            epochs=progress.epoch + more,
        )

    def close_epoch(self, eval_s: float) -> None:
        """Record how long an epoch took, after its evaluation.

        Args:
            eval_s: The seconds that its evaluation took; 0 if there was none.
        """
        plan, elapsed = self.plan, self._elapsed()
        self._change(
            elapsed_s=elapsed,
            epoch_began_s=elapsed,
            epochs_s=(*plan.epochs_s, elapsed - plan.epoch_began_s)[-3:],
            eval_s=eval_s or plan.eval_s,
        )

    def line(self) -> str:
        """Return a line that says, after the first epoch, about how many epochs fit."""
        plan = self.plan
        return (
            f"time = {duration(self.seconds)}: the first epoch ended after "
            f"{duration(plan.elapsed_s)}, so about {plan.epochs} epochs fit. The "
            "number is updated after every epoch."
        )

    def _too_short(self, images: int, epoch_s: float) -> str:
        return (
            f"time = {duration(self.seconds)}: an epoch of {images:,} images takes about "
            f"{duration(epoch_s)} here, and a run has at least {_MIN_EPOCHS}. Give it more time, "
            "or choose a smaller model or image_size."
        )
