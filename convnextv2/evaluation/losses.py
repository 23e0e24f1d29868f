"""Classification losses: pure functions of logits and targets.

The knob `loss` chooses among them in `tasks.classification.goal` and `tasks.multi_label.goal`. The
losses of distillation are in `distillation.losses`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_VERSIONS = 3
"""The versions of each image that AugMix's loss compares."""
_DIVERGENCE_WEIGHT = 12.0
"""The weight of the divergence in AugMix's loss."""


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    smoothing: float = 0.0,
    reduction: str = "mean",
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the softmax cross entropy, as the mean (or sum) over the images.

    Args:
        logits: (N, K), any float dtype.
        targets: int64 (N,), or float (N, K) with a distribution in each row (mixup).
        smoothing: Share of the target, hard or soft, that is spread evenly over the K classes.
        reduction: "mean" or "sum".
        class_weights: (K,), the weight of an image of each class; None for equal weights. A mixed
            image has the mean of the weights of its classes. The sum is divided by N, not by the
            sum of the weights.

    Returns:
        A float32 scalar (float64 for float64 logits).
    """
    logits = _at_least_float32(logits)
    if targets.is_floating_point():
        targets = targets.to(logits.dtype)
    if class_weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction=reduction)
    # The argument `weight` of PyTorch divides by the sum of the weights for indices, but by N for
    # soft targets, and it weights the smoothing too, so that rare classes get more of it.
    each = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    return _reduced(each * weights_of(targets, class_weights), reduction)


def weights_of(targets: Tensor, class_weights: Tensor) -> Tensor:
    """Return the weight of each image, (N,).

    Args:
        targets: int64 (N,), or float (N, K) with a distribution in each row, before smoothing.
        class_weights: (K,), the weight of an image of each class.
    """
    if targets.is_floating_point():  # a matrix product would have low precision in autocast
        return (targets.to(class_weights.dtype) * class_weights).sum(-1)
    return class_weights[targets]


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    return losses.mean() if reduction == "mean" else losses.sum()


def binary_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    smoothing: float = 0.0,
    reduction: str = "mean",
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the binary cross entropy over one-hot targets.

    It is the mean (or sum) over the N * K decisions, as in timm and MindCV. Arguments and result
    are those of `cross_entropy`.
    """
    logits = _at_least_float32(logits)
    num_classes = logits.shape[-1]
    weights = None if class_weights is None else weights_of(targets, class_weights)
    if not targets.is_floating_point():
        targets = F.one_hot(targets, num_classes)
    soft = targets.to(logits.dtype) * (1 - smoothing) + smoothing / num_classes
    if weights is None:
        return F.binary_cross_entropy_with_logits(logits, soft, reduction=reduction)
    each = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    return _reduced(each * weights[:, None], reduction)


def asymmetric_single_label(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the asymmetric loss for one class per image, as the mean over the images.

    It is a cross entropy in which the terms of the wrong classes are focused by p^4 and the term of
    the right class by 1 - p. Source: Ridnik et al. 2021, arXiv 2009.14119. Arguments and result are
    those of `cross_entropy`. For soft targets, the class of the largest target is used.
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


def known_binary_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    smoothing: float = 0.0,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Return the binary cross entropy over the labels that are known.

    It is the mean (or sum) over the known labels of all images.

    Args:
        logits: (N, K), any float dtype.
        targets: (N, K). Whole numbers are 1, 0, and -1 for unknown. Floats are shares from 0 to 1,
            and NaN for unknown.
        smoothing: A target t becomes t * (1 - smoothing) + smoothing / 2.
        reduction: "mean" or "sum".
        pos_weight: float (K,), the weight of the term of label 1; None for 1.

    Returns:
        A float32 scalar (float64 for float64 logits). It is 0 if nothing is known.
    """
    logits = _at_least_float32(logits)
    known, shares = _known_shares(logits, targets)
    soft = shares * (1 - smoothing) + smoothing / 2
    terms = F.binary_cross_entropy_with_logits(
        logits, soft, pos_weight=pos_weight, reduction="none"
    )
    total = (terms * known).sum()
    return total / known.sum().clamp(min=1) if reduction == "mean" else total


def known_asymmetric(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the asymmetric loss over the labels that are known, as the mean over the images.

    The terms of an image are added: -(1 - p) log p for a label that it has, and
    -p_m^4 log(1 - p_m) with p_m = max(p - 0.05, 0) for one that it does not have. The authors also
    add up the images, so that the gradient grows with the batch. Source: Ridnik et al. 2021,
    arXiv 2009.14119. Arguments and result are those of `known_binary_cross_entropy`.
    """
    logits = _at_least_float32(logits)
    known, shares = _known_shares(logits, targets)
    probs = logits.sigmoid()
    shifted = (probs - 0.05).clamp(min=0)
    present = (1 - probs) * probs.clamp(min=1e-8).log()
    absent = shifted**4 * (1 - shifted).clamp(min=1e-8).log()
    terms = shares * present + (1 - shares) * absent
    return -(terms * known).sum() / len(logits)


def _known_shares(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return which labels are known (1 or 0), and the targets with 0 for unknown labels."""
    is_known = targets >= 0  # False for NaN
    shares = targets.to(logits.dtype).masked_fill(~is_known, 0)
    return is_known.to(logits.dtype), shares


def jensen_shannon(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return AugMix's loss: cross entropy of the clean images plus 12 times a divergence.

    The divergence is the Jensen-Shannon divergence between the predictions for the three versions
    of each image. Source: Hendrycks et al. 2020, arXiv 1912.02781.

    Args:
        logits: (3 * N, K), the clean images first.
        targets: int64 (3 * N,).
        smoothing: See `cross_entropy`.
    """
    logits = _at_least_float32(logits)
    versions = logits.unflatten(0, (_VERSIONS, -1))
    log_probs = versions.log_softmax(-1)
    mixture = log_probs.exp().mean(0).clamp(1e-7, 1).log()
    divergence = (
        sum(F.kl_div(mixture, one, reduction="batchmean", log_target=True) for one in log_probs)
        / _VERSIONS
    )
    clean = cross_entropy(versions[0], targets[: versions.shape[1]], smoothing)
    return clean + _DIVERGENCE_WEIGHT * divergence


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
