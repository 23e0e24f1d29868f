"""Write the files of a run while it trains: its log, checkpoints, best weights and bad steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from convnextv2.checkpoint import Checkpoint, rewrite_progress
from convnextv2.data.notices import say_left_out
from convnextv2.distributed import Place, SideChannel
from convnextv2.errors import TrainingError
from convnextv2.files import write_text
from convnextv2.run import Run
from convnextv2.training import mindcv_files
from convnextv2.training.bad_step import BadStep, save_bad_step
from convnextv2.training.ema import WeightAverage
from convnextv2.training.health import check_weights
from convnextv2.training.loggers import Loggers, scalars
from convnextv2.training.saver import Saver
from convnextv2.training.shard import gathered, is_sharded, local
from convnextv2.training.state import (
    Progress,
    network_weights,
    optimizer_tensors,
    score_of,
    weights_beside,
)
from convnextv2.training.task import Task
from convnextv2.weights.description import Description

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True)
class Learner:
    """The objects that learn, which a checkpoint restores.

    Attributes:
        model: The network.
        optimizer: The optimizer.
        average: The moving average of the weights; None if there is none.
        scaler: The scaler of the loss in float16. It is disabled in every other precision.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    scaler: torch.amp.GradScaler


class Keeper:
    """Writes everything that must outlive the process into the run folder.

    Only the main rank writes. If the model is sharded, every rank writes its part of a checkpoint.

    Args:
        task: The task that is learned.
        run: The run folder.
        place: This rank.
        learner: The objects that are saved.
        progress: The position of the run. The loop changes it.
        rates: Returns the learning rate of every step of the run, for MindCV's files.
    """

    def __init__(
        self,
        task: Task,
        run: Run,
        place: Place,
        learner: Learner,
        progress: Progress,
        rates: Callable[[], list[float]],
    ) -> None:
        self._task, self._run, self._place = task, run, place
        self._learner, self._progress, self._rates = learner, progress, rates
        self._recipe = task.recipe
        self._channel: SideChannel | None = None
        if is_sharded(learner.model):
            self._channel = SideChannel(place, timeout_s=self._recipe.rank_timeout_s)
        self._saver = Saver(self._write, in_background=self._recipe.async_save)
        self._reported: set[str] = set()  # skipped images that were reported
        self._loggers: Loggers | None = None
        if self._recipe.loggers and place.is_main:
            config = self._recipe.model_dump(mode="json")
            self._loggers = Loggers(self._recipe.loggers, run.path, config)
        self._writer: SummaryWriter | None = None
        if self._recipe.tensorboard and place.is_main:
            # TensorBoard drops the events from this step on. The records of this very step stay in
            # the log, so their events are added again.
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=progress.step)
            for record in run.metrics():
                if record["step"] == progress.step:
                    add_scalars(self._writer, record)

    @property
    def needs_all_ranks(self) -> bool:
        """True if all ranks must take part in writing a checkpoint."""
        return self._channel is not None

    @property
    def _averaged(self) -> Mapping[str, torch.Tensor]:
        return self._learner.average.tensors if self._learner.average else {}

    @property
    def _writes_mindcv(self) -> bool:
        return bool(self._recipe.mindcv_files and self._task.depths)

    def log(self, record: dict[str, Any]) -> None:
        """Append a record to the log, to TensorBoard and to other loggers."""
        self._saver.raise_failure()
        if self._place.is_main:
            self._run.log(record)
            if self._recipe.mindcv_files and record["kind"] == "epoch":
                text = mindcv_files.result_log(self._run.metrics())
                write_text(self._run.path / "result.log", text)
        if self._writer:
            add_scalars(self._writer, record)
        if self._loggers:
            self._loggers.log(record)

    def save(self, *, wait: bool) -> None:
        """Save a checkpoint.

        Args:
            wait: Whether the checkpoint must be on the disk when this returns.

        Raises:
            TrainingError: The weights are no longer finite.
            OSError: The checkpoint cannot be written.
        """
        model, progress = self._learner.model, self._progress
        if self._channel is not None:
            self._check_parts()
        elif not self._place.is_main:
            return
        else:
            check_weights(model.state_dict(), progress.step)
        progress.scaler = self._learner.scaler.state_dict()
        tensors = optimizer_tensors(self._learner.optimizer, model)
        checkpoint = Checkpoint(
            _described(self._task.description, progress),
            network_weights(model),
            self._averaged,
            tensors,
            asdict(progress),
            weights_beside(model),
        )
        self._saver.save(checkpoint, wait=wait)

    def keep_best(self, figures: Mapping[str, float]) -> None:
        """Remember an evaluation, and write best/ if no model before was better.

        The model must hold the weights that were evaluated.
        """
        assert self._task.score is not None
        score = score_of(figures, self._task.score)
        assert score is not None
        if not self._progress.take_score(score):
            return
        weights = network_weights(self._learner.model)
        if self._channel is not None:
            weights = gathered(weights, self._place)
        if not self._place.is_main:
            return
        described = _described(self._task.best_description, self._progress, figures)
        self._run.save_best(weights, described)
        if self._writes_mindcv:
            path = self._run.path / f"{self._recipe.model}_best.ckpt"
            mindcv_files.write_plain_checkpoint(path, weights, self._task.depths)

    def close_epoch(self) -> None:
        """Finish an epoch after its evaluation was logged.

        This prints which images were left out, writes MindCV's files, and prunes the checkpoints.
        """
        skipped = self._task.loader.skipped
        _report_skipped(set(skipped) - self._reported, self._place)
        self._reported.update(skipped)
        self._saver.wait()
        folder = self._run.checkpoint_of(self._progress.epoch, self._progress.step)
        if not self._place.is_main or folder is None:
            return
        if self._writes_mindcv:
            self._write_mindcv_files()
        rewrite_progress(folder, asdict(self._progress))
        self._prune()

    def keep_bad(self, bad: BadStep) -> str:
        """Keep the batches of a step that is not finite.

        Returns:
            The path of the file, and the names of the images.
        """
        source, rank = self._task.loader.source, self._place.rank
        path = save_bad_step(self._run.path, bad, source.names, self._progress.epoch, rank)
        names = [source.names[i] for batch in bad.batches for i in batch.indices.tolist()]
        return f"{path} ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})"

    def finish(self) -> None:
        """Wait for the last save, at the end of a run that succeeded.

        Raises:
            OSError: The checkpoint could not be written.
        """
        self._saver.wait()

    def give_up(self) -> None:
        """Wait for the last save and print what was left out, at the end of a run that failed."""
        with suppress(OSError, RuntimeError):
            self._saver.wait()
        _report_skipped(set(self._task.loader.skipped) - self._reported)

    def close(self) -> None:
        """Close TensorBoard's file and the other loggers."""
        if self._writer:
            self._writer.close()
        if self._loggers:
            self._loggers.close()

    def _write(self, checkpoint: Checkpoint) -> None:
        if self._channel is None:
            self._run.save_checkpoint(checkpoint)
        else:
            self._run.save_sharded_checkpoint(checkpoint, self._channel)
        # At the end of an epoch, the evaluation decides which checkpoints are kept.
        if checkpoint.progress["batch"] and self._place.is_main:
            self._prune()

    def _check_parts(self) -> None:
        """Check the weights of all ranks, so that all of them raise the same error."""
        found = ""
        parts = {name: local(part) for name, part in self._learner.model.state_dict().items()}
        try:
            check_weights(parts, self._progress.step)
        except TrainingError as error:
            found = str(error)
        if first := next(filter(None, self._place.gather(found)), ""):
            raise TrainingError(first)

    def _prune(self) -> None:
        self._run.prune(self._recipe.keep_checkpoints, self._recipe.keep_policy)

    def _write_mindcv_files(self) -> None:
        recipe, run, progress = self._recipe, self._run, self._progress
        batches = len(self._task.loader)
        path = run.path / mindcv_files.checkpoint_name(recipe.model, progress.epoch, batches)
        mindcv_files.write_training_checkpoint(
            path,
            network_weights(self._learner.model),
            depths=self._task.depths,
            average=self._averaged,
            optimizer=optimizer_tensors(self._learner.optimizer, self._learner.model),
            step=progress.step,
            updates=progress.step + progress.average_ahead,
            betas=recipe.betas or (0.9, 0.999),
            lrs=self._rates(),
        )
        mindcv_files.link_as_optim(path, recipe.model)
        epochs = [record for record in run.metrics() if record["kind"] == "epoch"]
        score = self._task.score or recipe.best_by
        scores = {record["epoch"]: score_of(record, score) for record in epochs}
        mindcv_files.prune(
            run.path,
            recipe.model,
            progress.epoch,
            keep=recipe.keep_checkpoints,
            policy=recipe.keep_policy,
            scores={epoch: score for epoch, score in scores.items() if score is not None},
        )


def add_scalars(writer: SummaryWriter, record: Mapping[str, Any]) -> None:
    """Write the figures of a record as TensorBoard events."""
    for name, value in scalars(record).items():
        writer.add_scalar(name, value, record["step"])


def _described(
    description: Description, progress: Progress, figures: Mapping[str, Any] | None = None
) -> Description:
    """Add the position of the run, and the figures that were measured there, to a description."""
    training = {"step": progress.step, "epoch": progress.epoch, **(figures or {})}
    return replace(description, training=training)


def _report_skipped(skipped: Collection[str], place: Place | None = None) -> None:
    """Print which images were left out, on all ranks if `place` is given, else on this one."""
    names = set(skipped) if place is None else set().union(*place.gather(sorted(skipped)))
    say_left_out(names, "training image")
