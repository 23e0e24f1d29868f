"""Classification losses: pure functions of logits and targets."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(
    logits: Tensor, targets: Tensor, smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Return the softmax cross entropy, as the mean (or sum) over the images.

    Args:
        logits: (N, K), any float dtype.
        targets: int64 (N,), or float (N, K) with a distribution in each row (mixup).
        smoothing: Share of the target, hard or soft, that is spread evenly over the K classes.
        reduction: "mean" or "sum".

    Returns:
        A float32 scalar (float64 for float64 logits).
    """
    logits = _at_least_float32(logits)
    if targets.is_floating_point():
        targets = targets.to(logits.dtype)
    return F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction=reduction)


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Return the binary cross entropy over one-hot targets.

    It is the mean (or sum) over the N * K decisions, as in timm and MindCV. Arguments and result
    are those of `cross_entropy`.
    """
    logits = _at_least_float32(logits)
    num_classes = logits.shape[-1]
    if not targets.is_floating_point():
        targets = F.one_hot(targets, num_classes)
    soft = targets.to(logits.dtype) * (1 - smoothing) + smoothing / num_classes
    return F.binary_cross_entropy_with_logits(logits, soft, reduction=reduction)


def asymmetric_single_label(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the asymmetric loss for one class per image, as the mean over the images.

    It is a cross entropy in which the terms of the wrong classes are focused by p^4 and the term of
    the right class by 1 - p. Source: Ridnik et al. 2021, arXiv 2009.14119. Arguments and result are
    those of `cross_entropy`. If targets are soft, the largest one counts.
    """
    logits = _at_least_float32(logits)
    if targets.is_floating_point():
        targets = targets.argmax(-1)
    positive = F.one_hot(targets, logits.shape[-1]).to(logits.dtype)
    log_probs = logits.log_softmax(-1)
    probs = log_probs.exp()
    wrong = 1 - probs * positive - (1 - probs) * (1 - positive)
    focus = wrong ** (positive + 4 * (1 - positive))
    smoothed = positive * (1 - smoothing) + smoothing / logits.shape[-1]
    return -(smoothed * log_probs * focus).sum(-1).mean()


def asymmetric_multi_label(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the asymmetric loss for any number of classes per image.

    It is the sum of a binary cross entropy over all N * K decisions. Negatives are shifted by 0.05
    and focused by p^4, and positives are focused by 1 - p. Source: Ridnik et al. 2021, arXiv
    2009.14119.

    Args:
        logits: (N, K).
        targets: int64 (N,), or (N, K) with values 0 and 1.
        smoothing: Not used.
    """
    logits = _at_least_float32(logits)
    if targets.dim() == 1:
        targets = F.one_hot(targets, logits.shape[-1])
    positive = targets.to(logits.dtype)
    probs = logits.sigmoid()
    absent = (1 - probs + 0.05).clamp(max=1)
    terms = positive * probs.clamp(min=1e-8).log() + (1 - positive) * absent.clamp(min=1e-8).log()
    right = probs * positive + absent * (1 - positive)
    return -(terms * (1 - right) ** (positive + 4 * (1 - positive))).sum()


def jensen_shannon(
    logits: Tensor, targets: Tensor, smoothing: float = 0.0, *, splits: int = 3, alpha: float = 12.0
) -> Tensor:
    """Return AugMix's loss: cross entropy of the clean images plus alpha times a divergence.

    The divergence is the Jensen-Shannon divergence between the predictions for the `splits`
    versions of each image. Source: Hendrycks et al. 2020, arXiv 1912.02781.

    Args:
        logits: (splits * N, K), the clean images first.
        targets: int64 (splits * N,).
        smoothing: See `cross_entropy`.
        splits: Number of versions of each image.
        alpha: Weight of the divergence.
    """
    logits = _at_least_float32(logits)
    versions = logits.unflatten(0, (splits, -1))
    log_probs = versions.log_softmax(-1)
    mixture = log_probs.exp().mean(0).clamp(1e-7, 1).log()
    divergence = (
        sum(F.kl_div(mixture, one, reduction="batchmean", log_target=True) for one in log_probs)
        / splits
    )
    return cross_entropy(versions[0], targets[: versions.shape[1]], smoothing) + alpha * divergence


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
