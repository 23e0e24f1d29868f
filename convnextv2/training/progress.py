"""Show progress: a live bar with the time left on a terminal, plain lines in other outputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Speed(Protocol):
    """The figures that the bar shows in addition to loss and learning rate."""

    @property
    def images_per_second(self) -> float:
        """Images of all ranks per second."""

    @property
    def data_wait(self) -> float:
        """Share of the time without data, from 0 to 1."""


class Display:
    """The bar or the lines of one run. Only the main rank prints them."""

    def __init__(
        self,
        total_steps: int,
        *,
        done: int,
        main: bool,
        left_s: Callable[[], float] | None = None,
    ) -> None:
        """Show a run.

        Args:
            total_steps: Steps of the whole run.
            done: Steps that are done already.
            main: Whether this is the main rank.
            left_s: Returns the seconds that are left; None to estimate them from the pace.
        """
        self._left_s = left_s
        self.main, self.total_steps, self.first_step = main, total_steps, done
        self.started = time.perf_counter()
        self.console = Console(quiet=not main, highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        if main and self.console.is_terminal:
            self.bar = Progress(
                TextColumn("step {task.completed}/{task.total}"),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
                refresh_per_second=4,
            )
            self.task = self.bar.add_task("", total=total_steps, completed=done, text="")

    def __enter__(self) -> Display:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar:
            self.bar.stop()

    def plan(self, total_steps: int) -> None:
        """Change the number of steps of the run."""
        self.total_steps = total_steps
        if self.bar:
            self.bar.update(self.task, total=total_steps)

    def advance(self, step: int, loss: float, lr: float, speed: Speed) -> None:
        """Show a step in the bar."""
        if self.bar:
            text = (
                f"loss {loss:.4f}  lr {lr:.2e}  {speed.images_per_second:.0f} images/s  "
                f"data wait {speed.data_wait:.0%}"
            )
            self.bar.update(self.task, completed=step, text=text)

    def text(self, line: str) -> None:
        """Print a line of text that stays."""
        self.console.print(line)

    def line(self, record: dict[str, Any]) -> None:
        """Print a record of metrics.jsonl as a line that stays."""
        if record["kind"] == "eval":
            figures = "  ".join(
                f"{name} {value:.4f}" for name, value in record.items() if isinstance(value, float)
            )
            self.console.print(f"epoch {record['epoch']}: validation {figures}")
        elif not self.bar:
            done = record["step"] - self.first_step
            left = (
                (time.perf_counter() - self.started)
                / max(done, 1)
                * (self.total_steps - record["step"])
            )
            left = left if self._left_s is None else self._left_s()
            self.console.print(
                f"epoch {record['epoch']:.2f}  step {record['step']}/{self.total_steps}  loss "
                f"{record['loss']:.4f}  lr {record['lr']:.3e}  {record['images_per_second']:.1f} "
                f"images/s  data wait {record['data_wait']:.0%}  left {_duration(left)}"
            )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
