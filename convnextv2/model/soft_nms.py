"""Linear soft-NMS: lower the scores of overlapping boxes instead of dropping them.

Source: Bodla et al. 2017 (arXiv 1704.04503). The paper of ConvNeXt V2 uses it for detection.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def soft_nms(
    boxes: Tensor, scores: Tensor, *, iou_threshold: float = 0.5, min_score: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Lower the scores of boxes that overlap with better ones.

    The box with the highest score is taken. The score of each other box whose IoU with it is at
    least `iou_threshold` is multiplied by 1 - IoU. This is repeated with the remaining boxes.

    Args:
        boxes: float (n, 4), x0, y0, x1, y1, of one class.
        scores: float (n,).
        iou_threshold: The IoU from which scores are lowered.
        min_score: Boxes whose score falls below it are dropped.

    Returns:
        int64 (m,), the indices of the boxes that are kept, the best first; and their scores.
    """
    corners = boxes.detach().double().cpu().numpy()
    lowered = scores.detach().double().cpu().numpy().copy()
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    left = np.flatnonzero(lowered >= min_score)
    kept: list[int] = []
    kept_scores: list[float] = []
    while len(left):
        best = int(left[np.argmax(lowered[left])])
        kept.append(best)
        kept_scores.append(float(lowered[best]))
        left = left[left != best]
        iou = _iou(corners, areas, best, left)
        lowered[left] *= np.where(iou >= iou_threshold, 1 - iou, 1.0)
        left = left[lowered[left] >= min_score]
    order = torch.tensor(kept, dtype=torch.int64, device=boxes.device)
    return order, torch.tensor(kept_scores, dtype=scores.dtype, device=scores.device)


def _iou(
    corners: NDArray[np.float64], areas: NDArray[np.float64], one: int, others: NDArray[np.int64]
) -> NDArray[np.float64]:
    low = np.maximum(corners[one, :2], corners[others, :2])
    high = np.minimum(corners[one, 2:], corners[others, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    result: NDArray[np.float64] = common / (areas[one] + areas[others] - common)
    return result
