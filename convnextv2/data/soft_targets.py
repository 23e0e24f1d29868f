"""Soft targets, which mixup and cutmix can mix."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def soft_targets(targets: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Turn class indices or labels into soft targets.

    Args:
        targets: int64 (N,), the class of each image; or int64 (N, K) of 1, 0 and -1 (unknown) if
            images may have several labels.
        num_classes: The number of classes.
        dtype: The dtype of the result, a floating-point type.

    Returns:
        (N, num_classes). Unknown labels are NaN, and so are the results of mixing with them.
    """
    if targets.dim() == 1:
        return one_hot(targets, num_classes).to(dtype)
    return targets.to(dtype).masked_fill(targets < 0, torch.nan)
