"""The outlines of masks, as polygons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TURNS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Steps to the right, down, to the left and up."""


def outlines(mask: NDArray[np.bool_], *, tolerance_px: float = 1.0) -> list[NDArray[np.float64]]:
    """Trace the outer edges of a mask.

    Pixels that only touch at a corner belong to different outlines. Holes are filled, since COCO's
    polygons know none.

    Args:
        mask: bool (H, W).
        tolerance_px: How far an outline may be from the edges of pixels, in px. At 0, it follows
            all of them.

    Returns:
        For each connected part, float64 (k, 2) of x and y in px, clockwise.
    """
    found = []
    for loop in _loops(np.pad(mask, 1)):
        points = np.array(loop, np.float64) - 1
        if _area(points) > 0:
            found.append(_simplified(points, tolerance_px))
    return found


def _loops(inside: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Join the edges between pixels of a mask, which has a margin, to closed loops."""
    steps: dict[tuple[int, int], list[int]] = {}
    # An edge runs so that the mask is on its right: the corner it starts at, and its direction.
    for turn, (rows, columns, y, x) in enumerate(
        ((-1, 0, 0, 0), (0, 1, 0, 1), (1, 0, 1, 1), (0, -1, 1, 0))
    ):
        is_edge = inside & ~np.roll(inside, (-rows, -columns), (0, 1))
        for row, column in zip(*(each.tolist() for each in np.nonzero(is_edge)), strict=True):
            steps.setdefault((column + x, row + y), []).append(turn)
    loops = []
    while steps:
        start = next(iter(steps))
        at, turn = start, steps[start][0]
        loop: list[tuple[int, int]] = []
        last = -1
        while at in steps and turn in steps[at]:
            steps[at].remove(turn)
            if not steps[at]:
                del steps[at]
            if turn != last:
                loop.append(at)
            last = turn
            at = at[0] + _TURNS[turn][0], at[1] + _TURNS[turn][1]
            if at == start:
                break
            # At a corner where two loops meet, the sharpest turn to the right keeps them apart.
            there = steps.get(at, [])
            turn = next((t % 4 for t in (last + 1, last, last + 3) if t % 4 in there), last)
        loops.append(loop)
    return loops


def _area(points: NDArray[np.float64]) -> float:
    """The area within a polygon, positive if it runs clockwise on a screen."""
    x, y = points.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _simplified(points: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Leave out points of a closed outline (Douglas and Peucker 1973)."""
    if len(points) < 5 or tolerance <= 0:
        return points
    far = int(((points - points[0]) ** 2).sum(1).argmax())
    closed = np.concatenate([points, points[:1]])
    keep = np.zeros(len(closed), bool)
    keep[[0, far, -1]] = True
    todo = [(0, far), (far, len(points))]
    while todo:
        start, end = todo.pop()
        if end - start < 2:
            continue
        line = closed[end] - closed[start]
        between = closed[start + 1 : end] - closed[start]
        length = float(np.hypot(*line))
        away = (
            np.abs(between[:, 0] * line[1] - between[:, 1] * line[0]) / length
            if length
            else np.hypot(*between.T)
        )
        worst = int(away.argmax())
        if away[worst] > tolerance:
            keep[start + 1 + worst] = True
            todo += [(start, start + 1 + worst), (start + 1 + worst, end)]
    chosen = closed[:-1][keep[:-1]]
    return chosen if len(chosen) >= 3 and _area(chosen) > 0 else points
