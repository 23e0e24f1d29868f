"""Group the batches of an epoch into steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from convnextv2.distributed import Place
from convnextv2.training.loop_settings import LoopSettings
from convnextv2.training.state import Progress
from convnextv2.training.task import Task
from convnextv2.training.window import Window


def steps_of_epoch(
    task: Task, settings: LoopSettings, progress: Progress, place: Place, window: Window
) -> Iterator[list[Any]]:
    """Yield the batches of each remaining step of the epoch, and measure the wait for them.

    Args:
        task: The task, which has the batches.
        settings: The number of batches in a step.
        progress: The position of the run. The loop updates it between two steps.
        place: This rank. It publishes the step, so that a rank that hangs can be named.
        window: Measures the wait.
    """
    groups = in_groups(rest_of_epoch(task, settings, progress), settings.accumulate)
    while True:
        place.at_step(progress.step)
        with window.waiting():
            group = next(groups, None)
        if group is None:
            return
        yield group


def rest_of_epoch(task: Task, settings: LoopSettings, progress: Progress) -> Iterable[Any]:
    """Return the batches of the current epoch that are not done yet.

    If the number of ranks has changed since the start of a run, an epoch of the loader may have a
    batch or two more. The run keeps its original number.
    """
    batches = task.loader.batches(progress.epoch, progress.batch)
    if len(task.loader) > settings.batches_per_epoch:
        return islice(batches, settings.batches_per_epoch - progress.batch)
    return batches


def in_groups(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Group batches into lists of `size`. The last list may be shorter."""
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
