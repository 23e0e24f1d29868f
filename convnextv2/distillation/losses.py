"""The losses of distillation: pure functions of the outputs of student and teacher."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from convnextv2.model.layers import full_precision


def soft_label_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 times the divergence KL(teacher || student) at temperature T, as timm does.

    The factor preserves the scale of the gradient when T changes (Hinton et al. 2015, arXiv
    1503.02531).

    Args:
        logits: The student's logits, (N, K).
        teacher: The teacher's logits for the same K classes, (N, K).
        temperature: The number T by which all logits are divided before softmax.

    Returns:
        A float32 scalar, the mean over the images.
    """
    with full_precision(logits.device):
        own = (logits.float() / temperature).log_softmax(-1)
        wanted = (teacher.float() / temperature).log_softmax(-1)
        divergence = F.kl_div(own, wanted, reduction="batchmean", log_target=True)
        return temperature**2 * divergence


def feature_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared error between projected and normalised features.

    The features of the teacher get mean 0 and variance 1 over their channels, as in a layer norm
    without parameters. The loss of a constant prediction is then at most 1 for every teacher.

    Args:
        projected: The student's prediction of the features, (..., D).
        teacher: The features of the teacher, (..., D).

    Returns:
        A float32 scalar, the mean over everything.
    """
    with full_precision(projected.device):
        teacher = teacher.float()
        return F.mse_loss(projected.float(), F.layer_norm(teacher, teacher.shape[-1:]))
