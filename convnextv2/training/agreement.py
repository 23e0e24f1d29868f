"""Decide at which steps the ranks agree whether to stop, to save, or to leave a step out."""

from __future__ import annotations

import time
from dataclasses import dataclass

_EVERY_S = 1.0
"""Seconds between two agreements on an accelerator, where each one makes the host wait."""
_MAX_STEPS = 100


@dataclass(frozen=True)
class Agreed:
    """The decisions that all ranks share after a step. Without an exchange, they are the defaults.

    Attributes:
        is_log_due: Whether a line of the log is due after the step. Each rank knows that by itself.
        stops: Whether the run stops after it.
        is_bad: Whether the step is left out, because it is not finite on some rank.
        saves: Whether a checkpoint is due after it.
        losses: The sum and the number of the losses of all ranks since the last agreement.
    """

    is_log_due: bool
    stops: bool = False
    is_bad: bool = False
    saves: bool = False
    losses: tuple[float, float] = (0.0, 0.0)


class Agreement:
    """Decides at which step all ranks next exchange what they know.

    An exchange makes the host wait for the slowest rank, though the accelerator needs no answer.
    Ranks therefore exchange after every step only if the host waits for each step anyway, as on a
    CPU. Otherwise they exchange about once a second, so that a stop comes at most about a second
    late. All ranks must exchange at the same step. That step is computed from numbers that all of
    them have.

    Args:
        every_step: Whether to agree after each step.
        first_step: The number of steps before the first one.
    """

    def __init__(self, *, every_step: bool, first_step: int) -> None:
        self._every_step = every_step
        self._next, self._last = 0, first_step
        self._since = time.perf_counter()

    def is_due(self, step: int) -> bool:
        """Return whether the ranks agree after a step.

        Args:
            step: Steps done before it.
        """
        return self._every_step or step >= self._next

    def step_s(self, step: int) -> float:
        """Return how long a step has taken on this rank since the last agreement, in seconds.

        Args:
            step: Steps done before the one that has just ended.
        """
        return (time.perf_counter() - self._since) / (step + 1 - self._last)

    def plan(self, step: int, step_s: float) -> None:
        """Choose the step of the next agreement.

        Args:
            step: Steps done before the one that the ranks have just agreed on.
            step_s: How long a step takes, the same number on all ranks, in seconds.
        """
        steps = int(_EVERY_S / step_s) if step_s > 0 else _MAX_STEPS
        self._next = step + min(max(1, steps), _MAX_STEPS)
        self._last, self._since = step + 1, time.perf_counter()
