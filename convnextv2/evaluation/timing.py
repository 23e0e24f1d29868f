"""Compare the speed of functions: warm them up, time them in turn, and report medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """The seconds of each run of a function."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the interquartile range, as a share of the median."""
        if len(self.seconds) < 3:
            return 0.0
        first, _, third = statistics.quantiles(self.seconds, n=4)
        return (third - first) / 2 / self.median


def take_turns(
    works: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    min_rounds: int = 5,
    device: torch.device | None = None,
) -> dict[str, Timing]:
    """Time functions in rounds, so that other load on the machine affects all of them equally.

    Each function first runs twice without being timed, to warm up compilers and allocators.

    Args:
        works: The functions by name.
        seconds: The time after which no new round begins, if there were at least `min_rounds`.
        min_rounds: The minimum number of rounds.
        device: The accelerator whose queue must be waited for; None for the CPU.

    Returns:
        The timing of each function, by name.
    """

    def synchronise() -> None:
        if device is not None and device.type != "cpu":
            torch.accelerator.synchronize(device)

    for work in works.values():
        for _ in range(2):
            work()
    found: dict[str, list[float]] = {name: [] for name in works}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < min_rounds or time.perf_counter() < end:
        for name, work in works.items():
            synchronise()
            start = time.perf_counter()
            work()
            synchronise()
            found[name].append(time.perf_counter() - start)
        rounds += 1
    return {name: Timing(seconds) for name, seconds in found.items()}


def ratio(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """Return the quartiles (lower, median, upper) of the speed of `fast` relative to `slow`."""
    ratios = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    first, middle, third = statistics.quantiles(ratios, n=4)
    return first, middle, third
