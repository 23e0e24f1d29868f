"""Traces the outlines of masks as polygons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Points = NDArray[np.float64]
_Places = NDArray[np.intp]


def outlines(mask: NDArray[np.bool_], *, tolerance_px: float = 1.0) -> list[_Points]:
    """Trace the outer edges of a mask.

    Pixels that only touch at a corner belong to different outlines. Holes are filled, since the
    polygons of COCO cannot represent them.

    Args:
        mask: bool (H, W).
        tolerance_px: The largest distance of an outline from the edges of pixels, in px. At 0, it
            follows all edges.

    Returns:
        For each connected part, float64 (k, 2) of x and y in px, clockwise.
    """
    points, starts = _loops(np.pad(mask, 1))
    loops = np.split(points - 1, starts[1:]) if len(starts) else []
    return _simplified([loop for loop in loops if _area(loop) > 0], tolerance_px)


def _loops(inside: NDArray[np.bool_]) -> tuple[_Points, _Places]:
    """Join the edges of the pixels at the border of a mask to closed loops, and keep their corners.

    An edge is directed so that the mask is on its right. It is encoded as a number: four times the
    index of the corner where it starts, plus its direction: 0 right, 1 down, 2 left, 3 up.

    Args:
        inside: bool (H, W). The outermost pixels must be False.

    Returns:
        The corners of all loops, joined, float64 (n, 2) of x and y in px; and the index of the
        first corner of each loop.
    """
    wide = inside.shape[1] + 1  # corners in a row
    edges = np.concatenate(
        [
            4 * ((rows + down) * wide + columns + right) + direction
            for direction, (neighbour, right, down) in enumerate(
                (((1, 0), 0, 0), ((0, -1), 1, 0), ((-1, 0), 1, 1), ((0, 1), 0, 1))
            )
            for rows, columns in [np.nonzero(inside & ~np.roll(inside, neighbour, (0, 1)))]
        ]
    )
    edges.sort()
    following = _following(edges, wide)
    is_corner = np.zeros(len(edges), bool)
    is_corner[following] = edges[following] % 4 != edges % 4
    while not is_corner[following].all():  # skip straight runs by pointer doubling
        following = np.where(is_corner[following], following, following[following])
    order, starts = _cycles(np.flatnonzero(is_corner).tolist(), following.tolist())
    y, x = np.divmod(edges[order] // 4, wide)
    return np.stack([x, y], 1).astype(np.float64), starts


def _following(edges: _Places, wide: int) -> _Places:
    """Find the edge that follows each edge.

    Where two loops touch at a corner, the sharpest turn to the right separates them.

    Args:
        edges: The encoded edges, in ascending order.
        wide: The number of corners in a row.

    Returns:
        The index of the following edge, for each edge.
    """
    directions = edges % 4
    ends = edges // 4 + np.array([1, wide, -1, -wide])[directions]
    following = np.full(len(edges), -1, np.intp)
    for turn in (3, 0, 1):  # left, straight, right: the last one that exists wins
        wanted = 4 * ends + (directions + turn) % 4
        places = np.searchsorted(edges, wanted)
        exists = edges[np.minimum(places, len(edges) - 1)] == wanted
        following = np.where(exists, places, following)
    return following


def _cycles(corners: list[int], following: list[int]) -> tuple[_Places, _Places]:
    """Order corners by the cycles of the permutation `following`, one cycle after another."""
    order: list[int] = []
    starts: list[int] = []
    seen: set[int] = set()
    for first in corners:
        if first in seen:
            continue
        starts.append(len(order))
        at = first
        while True:
            order.append(at)
            at = following[at]
            if at == first:
                break
        seen.update(order[starts[-1] :])
    return np.array(order, np.intp), np.array(starts, np.intp)


def _area(points: _Points) -> float:
    """Compute the signed area of a polygon, positive if it is clockwise (y down)."""
    x, y = points.T
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1] + x[-1] * y[0] - x[0] * y[-1]) / 2


def _simplified(loops: list[_Points], tolerance: float) -> list[_Points]:
    """Simplify closed outlines by the algorithm of Douglas and Peucker (1973).

    The part between two kept points is split at the point that is farthest from its chord, if the
    distance exceeds the tolerance. Each step splits the parts of all outlines together.
    """
    if tolerance <= 0 or not loops:
        return loops
    closed = np.concatenate([np.concatenate([loop, loop[:1]]) for loop in loops])
    sizes = np.array([len(loop) for loop in loops])
    first = np.concatenate([[0], np.cumsum(sizes + 1)[:-1]])
    last = first + sizes
    farthest = first + [int(((loop - loop[0]) ** 2).sum(1).argmax()) for loop in loops]
    keep = np.zeros(len(closed), bool)
    keep[first] = keep[farthest] = True
    starts, ends = np.concatenate([first, farthest]), np.concatenate([farthest, last])
    while len(starts):
        worst, away = _farthest(closed, starts, ends)
        is_cut = away > tolerance
        starts, ends, worst = starts[is_cut], ends[is_cut], worst[is_cut]
        keep[worst] = True
        starts, ends = np.concatenate([starts, worst]), np.concatenate([worst, ends])
    chosen = [closed[a:b][keep[a:b]] for a, b in zip(first, last, strict=True)]
    return [
        few if len(loop) >= 5 and len(few) >= 3 and _area(few) > 0 else loop
        for loop, few in zip(loops, chosen, strict=True)
    ]


def _farthest(points: _Points, starts: _Places, ends: _Places) -> tuple[_Places, _Points]:
    """Find the point of each part that is farthest from its chord.

    Args:
        points: float64 (n, 2).
        starts: The index of the first point of each part.
        ends: The index of the last point of each part.

    Returns:
        The index of the first farthest point between both ends, and its distance in px. The
        distance is 0 if there is no point between the ends.
    """
    worst, away = starts.copy(), np.zeros(len(starts))
    counts = ends - starts - 1
    some = np.flatnonzero(counts > 0)
    if not len(some):
        return worst, away
    counts = counts[some]
    offsets = np.cumsum(counts) - counts
    between = np.arange(counts.sum()) + np.repeat(starts[some] + 1 - offsets, counts)
    origin = np.repeat(points[starts[some]], counts, 0)
    chord = np.repeat(points[ends[some]] - points[starts[some]], counts, 0)
    x, y = (points[between] - origin).T
    length = np.hypot(*chord.T)
    across = np.abs(x * chord[:, 1] - y * chord[:, 0])
    distance = np.where(length > 0, across / np.where(length > 0, length, 1), np.hypot(x, y))
    away[some] = np.maximum.reduceat(distance, offsets)
    is_worst = distance == np.repeat(away[some], counts)
    stretch, place = np.unique(np.repeat(some, counts)[is_worst], return_index=True)
    worst[stretch] = between[is_worst][place]
    return worst, away
