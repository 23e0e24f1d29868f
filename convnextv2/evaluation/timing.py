"""Time pieces of work fairly: warmed up, taking turns, medians with their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of each repetition of one piece of work."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half of what lies between the quartiles, as a share of the median."""
        if len(self.seconds) < 3:
            return 0.0
        first, _, third = statistics.quantiles(self.seconds, n=4)
        return (third - first) / 2 / self.median


def take_turns(
    works: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    least_rounds: int = 5,
    device: torch.device | None = None,
) -> dict[str, Timing]:
    """Time each piece of work again and again, one after the other, so that what disturbs the machine disturbs all alike.

    seconds: after which no new round begins, once there were `least_rounds`. Each piece runs twice before that: compilers and
    allocators need it. device: an accelerator whose queue is to be waited for."""

    def synchronise() -> None:
        if device is not None and device.type != "cpu":
            torch.accelerator.synchronize(device)

    for work in works.values():
        for _ in range(2):
            work()
    found: dict[str, list[float]] = {name: [] for name in works}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < least_rounds or time.perf_counter() < end:
        for name, work in works.items():
            synchronise()
            start = time.perf_counter()
            work()
            synchronise()
            found[name].append(time.perf_counter() - start)
        rounds += 1
    return {name: Timing(seconds) for name, seconds in found.items()}


def ratio(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """Return how many times as fast `fast` is as `slow`: lower quartile, median, upper quartile."""
    ratios = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    first, middle, third = statistics.quantiles(ratios, n=4)
    return first, middle, third
