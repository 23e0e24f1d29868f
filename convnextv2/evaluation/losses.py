"""Classification losses: pure functions of logits and targets."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Softmax cross entropy, the mean over the images.

    logits: (N, K), any float dtype. targets: int64 (N,), or float (N, K), each row a distribution (mixup).
    smoothing: share of the target, hard or soft, that is spread evenly over the K classes.
    Returns a float32 scalar (float64 for float64 logits)."""
    logits = _at_least_float32(logits)
    if targets.is_floating_point():
        targets = targets.to(logits.dtype)
    return F.cross_entropy(logits, targets, label_smoothing=smoothing)


def binary_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Binary cross entropy over one-hot targets, the mean over the N * K decisions (as timm and MindCV take it).

    Arguments and result as for `cross_entropy`."""
    logits = _at_least_float32(logits)
    num_classes = logits.shape[-1]
    if not targets.is_floating_point():
        targets = F.one_hot(targets, num_classes)
    soft = targets.to(logits.dtype) * (1 - smoothing) + smoothing / num_classes
    return F.binary_cross_entropy_with_logits(logits, soft)


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
