"""Finds near-duplicates: images that show nearly the same picture.

The search has two steps. The first compares the low frequencies of small grey copies (the
discrete cosine transform that perceptual hashes start from), each image against views of all
others: whole, mirrored, and cropped by a tenth. The second aligns each candidate by moving the four
edges of the crop, and compares what is left after the low frequencies are removed. Two photographs
of the same kind of thing share their layout, but only copies share their detail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from convnextv2.auditing.scan import SIDE

_VIEWS = (
    (0.0, 0.0, 1.0, 1.0),
    (0.05, 0.05, 0.95, 0.95),
    (0.0, 0.0, 0.9, 0.9),
    (0.0, 0.1, 0.9, 1.0),
    (0.1, 0.0, 1.0, 0.9),
    (0.1, 0.1, 1.0, 1.0),
)
"""Parts of an image that a copy may show: top, left, bottom and right as shares of its sides."""
_HASH_SIDE = 32
_FREQUENCIES = 9
"""Frequencies along each axis that the first step compares."""
_MAX_CANDIDATES = 8
"""Candidates for each image. Copies of a copy find each other, so that few are enough."""
_MIN_SIMILARITY = 0.55
"""The minimum cosine similarity between the low frequencies of two candidates."""
_ROUNDS = ((24, (0.04, 0.02), 0.55, 0.8), (48, (0.01, 0.01), 0.8, 0.9))
"""Rounds of the alignment: the side in px at which images are compared, how far each edge is moved
as a share of the side, and the correlation that a pair needs before and after the round."""
MIN_DETAIL = 0.75
"""The minimum correlation between the details of two images that may show the same picture."""
SURE_DETAIL = 0.85
"""The minimum correlation between the details of two images that count as the same picture.

Two photographs of plain garments, taken one after the other, reached 0.79."""
MAX_COLOUR = 12.0
"""The maximum mean difference between the colours of such images, in levels of Cb and Cr."""
_FLAT = 2.0
"""Standard deviation, in grey levels, below which an image has nothing to compare."""
_ROWS = 512


class Copy(NamedTuple):
    """Two images that are nearly the same picture.

    Attributes:
        first: Index of one image.
        second: Index of the other one, which is larger.
        score: Correlation of their detail, up to 1.
        mirrored: Whether one is the mirror image of the other.
    """

    first: int
    second: int
    score: float
    mirrored: bool


def near_copies(small: NDArray[np.uint8], indices: Sequence[int]) -> list[Copy]:
    """Find pairs of images that are nearly the same picture.

    They may have been saved with another quality, resized, made lighter or darker, mirrored, or
    cropped by up to a tenth of each side. The time grows with the square of the number of images.

    Args:
        small: uint8 (n, SIDE, SIDE, 3), the whole images resized.
        indices: The index that each of these has among all images.

    Returns:
        The pairs, the most similar first.
    """
    if len(small) < 2:
        return []
    rgb = torch.from_numpy(small)
    grey = rgb.float() @ torch.tensor([0.299, 0.587, 0.114])
    usable = torch.where(grey.std((1, 2)) >= _FLAT)[0]
    if len(usable) < 2:
        return []
    pairs = _confirm(rgb, grey, *_candidates(grey, usable))
    best: dict[tuple[int, int], Copy] = {}
    for one, other, score, mirrored in pairs:
        first, second = sorted((indices[one], indices[other]))
        found = Copy(first, second, score, mirrored)
        key = (first, second)
        if key not in best or best[key].score < score:
            best[key] = found
    return sorted(best.values(), key=lambda copy: (-copy.score, copy.first, copy.second))


def low_frequencies(grey: Tensor) -> Tensor:
    """Describe grey images by their lowest frequencies.

    The coefficients are those of the orthonormal DCT-II without the mean, each multiplied by its
    radial frequency, because the amplitudes of photographs fall like its inverse (Field, 1987).
    Otherwise, the few lowest ones would dominate.

    Args:
        grey: float32 (n, _HASH_SIDE, _HASH_SIDE).

    Returns:
        float32 (n, _FREQUENCIES ** 2 - 1), each of length 1.
    """
    order = torch.arange(_FREQUENCIES, dtype=torch.float32)
    place = torch.arange(_HASH_SIDE, dtype=torch.float32) + 0.5
    basis = torch.cos(torch.pi / _HASH_SIDE * order[:, None] * place) * (2 / _HASH_SIDE) ** 0.5
    basis[0] /= 2**0.5
    found = basis @ grey @ basis.T
    found = found * torch.hypot(order[:, None], order)
    return F.normalize(found.flatten(1)[:, 1:])


def _candidates(grey: Tensor, usable: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find pairs whose low frequencies are similar.

    Returns:
        int64 (m,) indices of the whole image, those of the image that is cut, and the number of
        the view; views from len(_VIEWS) on are those of the mirrored whole image.
    """
    chosen = grey[usable]
    views = [low_frequencies(_cut(chosen, view)) for view in _VIEWS]
    queries = views[0], low_frequencies(_cut(chosen.flip(2), _VIEWS[0]))
    found = []
    for start in range(0, len(usable), _ROWS):
        rows = torch.arange(start, min(start + _ROWS, len(usable)))
        best = torch.full((len(rows), len(usable)), -1.0)
        which = torch.zeros((len(rows), len(usable)), dtype=torch.uint8)
        for turn, query in enumerate(queries):
            for number, view in enumerate(views):
                similarity = query[rows] @ view.T
                better = similarity > best
                best = torch.maximum(best, similarity)
                which.masked_fill_(better, turn * len(_VIEWS) + number)
        best[torch.arange(len(rows)), rows] = -1
        top, column = best.topk(min(_MAX_CANDIDATES, len(usable) - 1))
        row, rank = torch.where(top >= _MIN_SIMILARITY)
        column = column[row, rank]
        found.append((usable[rows[row]], usable[column], which[row, column].long()))
    one, other, view = (torch.cat(part) for part in zip(*found, strict=True))
    return one, other, view


def _cut(grey: Tensor, view: tuple[float, float, float, float]) -> Tensor:
    top, left, bottom, right = (round(edge * SIDE) for edge in view)
    return F.interpolate(
        grey[:, None, top:bottom, left:right], (_HASH_SIDE, _HASH_SIDE), mode="area"
    )[:, 0]


def _confirm(
    rgb: Tensor, grey: Tensor, one: Tensor, other: Tensor, view: Tensor
) -> list[tuple[int, int, float, bool]]:
    """Align candidates, and keep those whose detail and colours agree."""
    kept = []
    for part in torch.arange(len(one)).split(4 * _ROWS):
        kept += _confirm_part(rgb, grey, one[part], other[part], view[part])
    return kept


def _confirm_part(
    rgb: Tensor, grey: Tensor, one: Tensor, other: Tensor, view: Tensor
) -> list[tuple[int, int, float, bool]]:
    mirrored, box = view >= len(_VIEWS), torch.tensor(_VIEWS)[view % len(_VIEWS)]
    left = torch.arange(len(one))
    for side, steps, before, after in _ROUNDS:
        whole = _turned(grey[one[left]], mirrored[left])
        found, score = _align(whole, grey[other[left]], box[left], side, steps, before)
        box[left] = found
        left = left[score >= after]
    detail = _detail_agreement(
        _turned(grey[one[left]], mirrored[left]), grey[other[left]], box[left]
    )
    agree = detail >= MIN_DETAIL
    left, detail = left[agree], detail[agree]
    whole = _turned(rgb[one[left]], mirrored[left]).float()
    apart = _colours_apart(whole, rgb[other[left]].float(), box[left])
    return [
        (int(one[i]), int(other[i]), float(score), bool(mirrored[i]))
        for i, score, colours in zip(left.tolist(), detail, apart, strict=True)
        if colours <= MAX_COLOUR
    ]


def _turned(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror some of the images (m, H, W) or (m, H, W, 3)."""
    shape = (-1, *[1] * (images.dim() - 1))
    return torch.where(mirrored.view(shape), images.flip(2), images)


def _align(
    whole: Tensor, cut: Tensor, box: Tensor, side: int, steps: Sequence[float], least: float
) -> tuple[Tensor, Tensor]:
    """Move the edges of a cut until it looks most like the whole of another image.

    Args:
        whole: float32 (m, SIDE, SIDE).
        cut: float32 (m, SIDE, SIDE), the images that are cut.
        box: float32 (m, 4), the cut to start from.
        side: The side at which images are compared, in px.
        steps: How far each edge is moved, in turn.
        least: The correlation that a pair needs at the start; others are not aligned.

    Returns:
        float32 (m, 4), the cuts, and float32 (m,), the correlations.
    """
    wanted = _centred(_sample(whole, _whole(len(whole)), side))
    best = (wanted * _centred(_sample(cut, box, side))).sum(1)
    good = torch.where(best >= least)[0]
    wanted, cut, found, score = wanted[good], cut[good], box[good], best[good]
    for step in steps:
        for edge in range(4):
            for move in (-step, step):
                moved = found.clone()
                moved[:, edge] = (moved[:, edge] + move).clamp(0, 1)
                new = (wanted * _centred(_sample(cut, moved, side))).sum(1)
                found = torch.where((new > score)[:, None], moved, found)
                score = torch.maximum(score, new)
    box, best = box.clone(), best.clone()
    box[good], best[good] = found, score
    return box, best


def _detail_agreement(whole: Tensor, cut: Tensor, box: Tensor) -> Tensor:
    """Correlate the details of aligned images: what is left when the local mean is subtracted."""
    side = _ROUNDS[-1][0]
    first = _detail(_sample(whole, _whole(len(whole)), side))
    return (_centred(first) * _centred(_detail(_sample(cut, box, side)))).sum(1)


def _colours_apart(whole: Tensor, cut: Tensor, box: Tensor) -> Tensor:
    """Return the mean difference of aligned images (m, SIDE, SIDE, 3) in Cb and Cr, (m,)."""
    side = _ROUNDS[0][0]
    apart = torch.zeros(len(whole))
    for row in ((-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)):  # ITU-T T.871
        weights = torch.tensor(row)
        first = _sample(whole @ weights, _whole(len(whole)), side)
        apart += (first - _sample(cut @ weights, box, side)).abs().mean((1, 2)) / 2
    return apart


def _whole(count: int) -> Tensor:
    return torch.tensor(_VIEWS[0]).expand(count, 4)


def _sample(grey: Tensor, box: Tensor, side: int) -> Tensor:
    """Resample parts of images, (m, SIDE, SIDE) and (m, 4), to (m, side, side)."""
    top, left, bottom, right = (edge[:, None] for edge in box.T)
    place = (torch.arange(side) + 0.5) / side
    y = (top + (bottom - top) * place) * 2 - 1
    x = (left + (right - left) * place) * 2 - 1
    grid = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], -1)
    return F.grid_sample(grey[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def _detail(grey: Tensor) -> Tensor:
    """Subtract the local mean."""
    return grey - F.avg_pool2d(grey[:, None], 5, 1, 2, count_include_pad=False)[:, 0]


def _centred(grey: Tensor) -> Tensor:
    flat = grey.flatten(1)
    return F.normalize(flat - flat.mean(1, keepdim=True), eps=1e-3)
