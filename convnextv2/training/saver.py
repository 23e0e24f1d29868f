"""Save checkpoints while training continues: a copy is made at once, and a thread writes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from convnextv2.checkpoint import Checkpoint
from convnextv2.training.shard import CpuShards


class Saver:
    """Writes checkpoints one after another, each from a copy of its tensors.

    The memory of the copy is allocated at the first save and reused, so that later saves touch no
    new pages. The thread has the same priority as training. With a lower one, other programs on the
    machine could hold up a save forever, and training waits for it at the next save.

    Args:
        write: Writes a checkpoint to the disk. It runs in a thread if `in_background` is True.
        in_background: Whether training continues during the write.
    """

    def __init__(self, write: Callable[[Checkpoint], None], *, in_background: bool) -> None:
        self._write, self._in_background = write, in_background
        self._copies: dict[str, Tensor] = {}
        self._shards = CpuShards()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def save(self, checkpoint: Checkpoint, *, wait: bool = False) -> None:
        """Save a checkpoint.

        Args:
            checkpoint: The checkpoint. Its tensors may change as soon as this returns.
            wait: Whether to return only when the checkpoint is on the disk.

        Raises:
            OSError: This checkpoint, or the one before it, could not be written.
            RuntimeError: The ranks that write it together have lost each other.
        """
        self.wait()
        if wait or not self._in_background:
            self._write(checkpoint)
            return
        copied = replace(
            checkpoint,
            weights=self._copy("weights", checkpoint.weights),
            average=self._copy("average", checkpoint.average),
            optimizer=self._copy("optimizer", checkpoint.optimizer),
            beside=self._copy("beside", checkpoint.beside),
        )
        self._thread = threading.Thread(target=self._run, args=(copied,), name="save checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last save is on the disk.

        Raises:
            OSError: The checkpoint could not be written.
            RuntimeError: The ranks that write it together have lost each other.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def raise_failure(self) -> None:
        """Raise the error of the last save if it has failed. This does not wait for a save."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def _run(self, checkpoint: Checkpoint) -> None:
        try:
            self._write(checkpoint)
        except BaseException as error:  # raised when training waits for this save
            self._failure = error

    def _copy(self, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        copies = {}
        for name, tensor in tensors.items():
            key = f"{kind}|{name}"
            copy = self._copies.get(key)
            part = self._shards.part_of(tensor)
            if copy is None or copy.shape != part.shape or copy.dtype != part.dtype:
                copy = self._copies[key] = torch.empty_like(part, device="cpu")
            copies[name] = self._shards.as_part_of(tensor, copy.copy_(part))
        return copies
