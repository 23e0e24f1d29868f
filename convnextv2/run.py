"""The run folder: everything that a run writes, and the input of every later verb.

    recipe.yaml        every knob, resolved
    metrics.jsonl      one record per line: kind (train, eval), step, epoch, loss, ...
    tensorboard/       the same as TensorBoard events
    loggers/           which runs of other loggers belong to this one, if the recipe asks for them
    checkpoints/epoch-00010-step-00000480/
                       all that is needed to resume: weights, their average, optimizer, position
    result.log  *.ckpt MindCV's files, if the recipe asks for them
    best/  last/       model.safetensors and model.json: the weights to use (the average, if there
                       is one)
    report.html        the report; report-DATA.html if other images were measured
    artifacts/         what export writes by default
    bad_steps/         the batches of steps that were not finite, for replay
    quarantine.jsonl   the images that cannot be read
    NAME.damaged       a checkpoint that was set aside

Files appear in one atomic step, so a run that is killed at any moment can be resumed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from convnextv2.checkpoint import (
    Checkpoint,
    read_checkpoint,
    read_weights,
    write_checkpoint,
    write_sharded_checkpoint,
)
from convnextv2.checkpoint_shards import Allocate
from convnextv2.distributed import Place, SideChannel
from convnextv2.errors import CheckpointError, DamagedCheckpointError, RunError
from convnextv2.files import write_text
from convnextv2.lock import LOCK
from convnextv2.recipe.files import dump_recipe
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.read import read_recipe
from convnextv2.records import line_of, whole_records
from convnextv2.retention import comparable_scores, kept
from convnextv2.weights.description import Description, read_model_json
from convnextv2.weights.safetensors import save_weights

_NAME = re.compile(r"epoch-\d{5,}-step-\d{8,}")
_BEFORE_TRAINING = {"recipe.yaml", "tensorboard", "loggers"}
"""All that a run leaves if it fails before its first step. Starting again loses nothing."""
_BEFORE_SAVING = _BEFORE_TRAINING | {"metrics.jsonl", "result.log", "best", "bad_steps"}
"""All that a run may leave if killed before its first checkpoint. A new start rewrites it."""


@dataclass(frozen=True)
class Run:
    """A run folder. `training.start` creates one, and `open_run` opens one.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def recipe(self) -> Recipe:
        """The recipe that the run was started with."""
        return read_recipe({}, config=self.path / "recipe.yaml")[0]

    def save_recipe(self, recipe: Recipe) -> None:
        """Write recipe.yaml, without the knobs that apply to a single start.

        Args:
            recipe: The resolved recipe.
        """
        asked_once = {"resume": False, "overwrite": False, "resume_allow": None}
        kept = recipe.model_fields_set - asked_once.keys()
        values = dict(recipe.model_copy(update=asked_once))
        text = dump_recipe(Recipe.model_construct(_fields_set=kept, **values))
        _write_if_other(self.path / "recipe.yaml", text)

    @property
    def report(self) -> Path:
        """The path of the report."""
        return self.path / "report.html"

    def is_reported(self) -> bool:
        """Return whether the report is at least as new as the log."""
        if not (self.report.exists() and self._log.exists()):
            return False
        return self.report.stat().st_mtime_ns >= self._log.stat().st_mtime_ns

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a record to metrics.jsonl.

        Args:
            record: What `json.dumps` accepts, with at least kind, step and epoch.
        """
        with open(self._log, "a") as file:
            file.write(line_of(record))

    def metrics(self) -> list[dict[str, Any]]:
        """Read the records of metrics.jsonl.

        Returns:
            The records in the order of the file. Damaged lines are left out.
        """
        return whole_records(self._log_text().splitlines())

    def damaged_lines(self) -> int:
        """Count the damaged lines of metrics.jsonl.

        Returns:
            The number of lines that are not records. A last line that a kill cut short does not
            count.
        """
        text = self._log_text()
        ended = text[: text.rfind("\n") + 1].splitlines()
        return len(ended) - len(whole_records(ended))

    @property
    def _log(self) -> Path:
        return self.path / "metrics.jsonl"

    def _log_text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def rewind(self, records: Iterable[Mapping[str, Any]], checkpoint: Path | None = None) -> None:
        """Go back to a position, from which the run writes everything again.

        Args:
            records: The records that stay in metrics.jsonl.
            checkpoint: The newest checkpoint that stays; None if no checkpoint stays.
        """
        _write_if_other(self._log, "".join(map(line_of, records)))
        for folder in self.checkpoints():
            if checkpoint is None or folder > checkpoint:
                _delete(folder)

    def save_checkpoint(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then `last/`.

        Args:
            checkpoint: The content; its progress must hold epoch and step.

        Returns:
            The folder of the checkpoint.

        Raises:
            OSError: The system cannot write it.
        """
        progress = checkpoint.progress
        # A run that was halted after the last step of an epoch saves that step twice, the second
        # time as the start of the next epoch.
        folder = self._checkpoint(progress["epoch"], progress["step"])
        if not folder.exists():
            self._sync_log()  # a resumed run does not write the records up to here again
            write_checkpoint(folder, checkpoint)
        self.save_last(checkpoint.average or checkpoint.weights, checkpoint.description)
        return folder

    def save_sharded_checkpoint(self, checkpoint: Checkpoint, channel: SideChannel) -> Path:
        """Write a checkpoint of which each rank has a part, then `last/`.

        All ranks must call this together.

        Args:
            checkpoint: The content, as for `save_checkpoint`. Its tensors may be DTensors.
            channel: The connection to the other ranks.

        Returns:
            The folder of the checkpoint.

        Raises:
            OSError: The system of any rank cannot write it.
        """
        is_main, progress = channel.rank == 0, checkpoint.progress
        folder = self._checkpoint(progress["epoch"], progress["step"])

        def begin() -> bool:
            if is_main and not folder.exists():
                self._sync_log()
            return is_main and not folder.exists()

        def finish() -> None:
            if is_main:  # reads the parts of all ranks, tensor by tensor
                self.save_last(read_weights(folder), checkpoint.description)

        if channel.gather(channel.together(begin))[0]:
            write_sharded_checkpoint(folder, checkpoint, channel)
        channel.together(finish)
        return folder

    def _sync_log(self) -> None:
        """Flush metrics.jsonl to the disk."""
        with (
            contextlib.suppress(FileNotFoundError),
            open(self._log, "rb") as file,
        ):
            os.fsync(file.fileno())

    def save_last(self, weights: Mapping[str, Tensor], description: Description) -> None:
        """Write `last/`.

        Args:
            weights: The weights to use, by parameter name.
            description: The network that they belong to.
        """
        save_weights(self.path / "last", weights, description)

    def prune(self, keep: int, policy: str = "latest_k") -> None:
        """Delete the checkpoints that need not be kept.

        Args:
            keep: The number of checkpoints to keep.
            policy: See `retention.kept`.
        """
        for old in set(self.checkpoints()) - set(self._kept(keep, policy)):
            _delete(old)
        for unfinished in (self.path / "checkpoints").glob("*.tmp"):
            _remove(unfinished)

    def sweep(self) -> None:
        """Delete the hidden files that remain if a process was killed while it wrote weights.

        safetensors writes to a hidden file and renames it. Only a process that holds the run's lock
        and is not writing yet may call this.
        """
        for folder in ("last", "best"):
            for unfinished in (self.path / folder).glob(".tmp??????"):
                unfinished.unlink(missing_ok=True)

    def _kept(self, keep: int, policy: str) -> list[Path]:
        """Return the checkpoints that `prune` keeps."""
        checkpoints = self.checkpoints()
        scores = comparable_scores(checkpoints) if policy == "top_k" else {}
        return kept(checkpoints, scores, keep, policy)

    def save_best(self, weights: Mapping[str, Tensor], description: Description) -> None:
        """Write `best/`.

        Args:
            weights: The weights to use, by parameter name.
            description: The network that they belong to.
        """
        save_weights(self.path / "best", weights, description)

    def last_checkpoint(self) -> Path | None:
        """Return the folder of the newest checkpoint, or None if there is none."""
        checkpoints = self.checkpoints()
        return checkpoints[-1] if checkpoints else None

    def checkpoint_of(self, epoch: int, step: int) -> Path | None:
        """Find the checkpoint at a position.

        Args:
            epoch: The epoch in the checkpoint's name.
            step: The step in its name.

        Returns:
            Its folder, or None if there is none.
        """
        folder = self._checkpoint(epoch, step)
        return folder if folder.is_dir() else None

    def _checkpoint(self, epoch: int, step: int) -> Path:
        return self.path / "checkpoints" / f"epoch-{epoch:05d}-step-{step:08d}"

    def checkpoints(self) -> list[Path]:
        """Return the folders of the run's checkpoints, the oldest first."""
        found = (self.path / "checkpoints").glob("epoch-*")
        # People make copies under other names, which must be neither used nor deleted.
        return sorted(path for path in found if _NAME.fullmatch(path.name) and path.is_dir())

    def provenance(self) -> dict[str, Any]:
        """Return the provenance of the weights that the run was started with.

        Returns:
            The provenance, as in `Description.provenance`; empty if it is unknown.
        """
        for folder in reversed(self.checkpoints()):
            with contextlib.suppress(CheckpointError):
                return read_model_json(folder / "model.json").provenance
        return {}

    def newest_whole(
        self, *, allocate: Allocate | None = None, place: Place | None = None
    ) -> tuple[Path, Checkpoint, list[tuple[Path, str]]]:
        """Read the newest checkpoint that is whole.

        Args:
            allocate: Makes the tensors to read a sharded checkpoint into; see `read_checkpoint`.
            place: This rank, if all ranks read together.

        Returns:
            Its folder, its content, and for each newer, damaged checkpoint its folder with a line
            that says so.

        Raises:
            RunError: There is no checkpoint.
            CheckpointError: All checkpoints are damaged.
        """
        damaged: list[tuple[Path, str]] = []
        for folder in reversed(self.checkpoints()):
            try:
                return folder, read_checkpoint(folder, allocate=allocate, place=place), damaged
            except DamagedCheckpointError as error:
                line = f"A damaged checkpoint is set aside and the one before it is used: {error}"
                damaged.append((folder, line))
                found = error
        if not damaged:
            raise RunError(f"{self.path}: has no checkpoint.")
        raise CheckpointError(
            f"{found} No other checkpoint of {self.path} is whole. Start again with --overwrite, "
            "or a new run from the weights in last/ or best/ with --init."
        )

    def content(self) -> set[str]:
        """Return the names of all entries of the folder except the lock."""
        return {entry.name for entry in self.path.iterdir()} - {LOCK}

    def clear(self) -> None:
        """Delete everything in the folder.

        recipe.yaml goes last, so that the folder still counts as a run folder after a kill.
        """
        for name in sorted(self.content(), key=lambda name: name == "recipe.yaml"):
            _remove(self.path / name)

    def has_only_a_start(self) -> bool:
        """Return whether the folder holds only files that a run writes before its first step."""
        begun = {name for name in self.content() if not name.endswith(".tmp")}
        return not begun - _BEFORE_TRAINING

    def foreign_content(self, model: str) -> list[str]:
        """List the files that cannot come from a run that has no checkpoint yet.

        Args:
            model: The name of the model that is to be trained.

        Returns:
            Names, relative to the folder, in sorted order. A run that was killed before its first
            checkpoint leaves none of them.
        """
        own = _BEFORE_SAVING | {"quarantine.jsonl", f"{model}_best.ckpt"}
        # Each file and each checkpoint's folder is written as *.tmp and then renamed.
        others = {name for name in self.content() - own if not name.endswith(".tmp")}
        checkpoints = self.path / "checkpoints"
        if checkpoints.is_dir():
            others.discard("checkpoints")
            kept = (entry.name for entry in checkpoints.iterdir())
            others |= {f"checkpoints/{name}" for name in kept if not name.endswith(".tmp")}
        return sorted(others)

    def set_aside(self, folder: Path) -> None:
        """Keep a damaged checkpoint under another name, NAME.damaged.

        Args:
            folder: The checkpoint.
        """
        aside = folder.with_name(folder.name + ".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)


def _delete(folder: Path) -> None:
    """Delete a checkpoint. A kill in between leaves nothing that looks like a checkpoint."""
    doomed = folder.with_name(folder.name + ".tmp")
    os.replace(folder, doomed)
    _remove(doomed)


def _remove(path: Path) -> None:
    """Delete a file or a folder. If it is a link, only the link is deleted, not its target."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def open_run(path: Path) -> Run:
    """Open an existing run.

    Args:
        path: The run folder.

    Returns:
        The run.

    Raises:
        RunError: The folder is not a run folder.
    """
    if not (path / "recipe.yaml").is_file():
        wrong = "not a run folder (no recipe.yaml in it)" if path.exists() else "no such folder"
        raise RunError(f"{path}: {wrong}. Expected the `out` folder of a run.")
    return Run(path)


def _write_if_other(path: Path, text: str) -> None:
    """Write a file unless it already has this text, so that its time is that of the last change."""
    if not path.exists() or path.read_bytes() != text.encode(errors="surrogateescape"):
        write_text(path, text)
