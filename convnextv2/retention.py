"""Decides which checkpoints of a run are kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from convnextv2.checkpoint import read_progress
from convnextv2.errors import DamagedCheckpointError

Position = TypeVar("Position")
"""The folder of a checkpoint, or its epoch."""


def kept(
    checkpoints: Sequence[Position], scores: Mapping[Position, float], keep: int, policy: str
) -> list[Position]:
    """Choose the checkpoints to keep.

    Args:
        checkpoints: All of them, in the order of training.
        scores: Those of the ones that can be compared, for "top_k". Larger is better.
        keep: The number of checkpoints to keep.
        policy: "latest_k" keeps the newest ones. "top_k" keeps the newest one and the ones with the
            best scores, and of equal scores the older ones. "all" keeps every one.
    """
    if policy == "all":
        return list(checkpoints)
    scored: list[Position] = [each for each in checkpoints if each in scores]
    if policy == "latest_k" or not scored:
        return list(checkpoints[-keep:])
    scored.sort(key=lambda each: scores[each], reverse=True)
    return [*scored[:keep], checkpoints[-1]]


def comparable_scores(checkpoints: Iterable[Path]) -> dict[Path, float]:
    """Read the scores of the checkpoints that were evaluated in the same way as the newest.

    In the same way means on the same images, with the same knobs. Older checkpoints do not say how.
    """
    found = {}
    for folder in checkpoints:
        with contextlib.suppress(DamagedCheckpointError):
            found[folder] = read_progress(folder)
    conditions = [progress.get("conditions", {}) for progress in found.values()]
    return {
        folder: float(progress["score"])
        for (folder, progress), their in zip(found.items(), conditions, strict=True)
        if progress.get("score") is not None
        and all(
            their.get(what) in (None, {}, conditions[-1].get(what))
            for what in ("validation", "evaluation")
        )
    }
