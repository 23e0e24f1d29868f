"""The figures of training since the last line of the log."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from convnextv2.distributed import Place
from convnextv2.errors import TrainingError
from convnextv2.training.state import Progress


class Window:
    """Figures since the last log line: mean loss, images per second, share of time without data.

    A loss passes through three states. It is collected while the device still computes it. Once the
    host has read it, it waits to be shared with the other ranks. Once it is shared, it is counted.
    Every rank has the counts of all ranks, so that the checkpoint of any rank is complete.
    """

    def __init__(self, progress: Progress) -> None:
        self.last_loss = math.nan if progress.last_loss is None else progress.last_loss
        self._collected: list[Tensor] = []
        self._unshared: list[float] = []
        self.restart()
        self.loss_sum, self.loss_count = progress.loss_sum, progress.loss_count

    def restart(self) -> None:
        """Set all counts to zero. Evaluation and saving do not count as time of training."""
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
        # Not every device has float64.
        self._collected.append(torch.stack([loss.float(), norm.float()]))

    def losses_are_finite(self) -> bool:
        """Fetch the collected losses, and return whether they and the norms are all finite."""
        if not self._collected:
            return True
        found = torch.stack(self._collected)
        self._collected.clear()
        self._unshared += found[:, 0].tolist()
        return bool(found.isfinite().all())

    def unshared(self) -> tuple[float, int]:
        """Return the sum and the number of the losses that the other ranks do not know yet."""
        return sum(self._unshared), len(self._unshared)

    def discard(self) -> None:
        """Forget the losses that the other ranks do not know yet."""
        self._unshared.clear()

    def add(self, loss_sum: float, loss_count: float) -> None:
        """Count losses of all ranks, including those that this rank had not shared yet."""
        if self._unshared:
            self.last_loss = self._unshared[-1]
            self._unshared.clear()
        self.loss_sum += loss_sum
        self.loss_count += int(loss_count)

    def settle(self, place: Place) -> None:
        """Read, share and count the remaining losses. All ranks must call this together.

        Raises:
            TrainingError: A loss or a gradient is not finite.
        """
        is_finite = self.losses_are_finite()
        bad, *shared = place.sum_numbers(not is_finite, *self.unshared())
        if bad:
            self.discard()
            raise TrainingError(
                "a loss or gradient since the last log line is not finite: training stops. Lower "
                "lr, lengthen the warm-up, or skip such steps: --resume --bad_steps skip."
            )
        self.add(*shared)

    def remember(self, progress: Progress) -> None:
        """Save in `progress` the counts that a resumed run needs to log the same lines."""
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

    def take_figures(self) -> dict[str, float]:
        """Return the figures of the window, and start a new window."""
        figures = {
            "loss": round(self.loss_sum / max(self.loss_count, 1), 6),
            "images_per_second": round(self.images_per_second, 2),
            "data_wait": round(self.data_wait, 4),
        }
        self.restart()
        return figures
