"""The loss and the class of every pixel, from logits on a coarser grid, on the CPU.

A segmentor computes logits for every 4 x 4 pixels. PyTorch's operations enlarge them to all pixels
and keep several copies of that size: with 59 classes, this takes two fifths of a training step. The
kernels compute the logits of each pixel when they need them, and keep none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import convnextv2.kernels.operations  # noqa: F401 - registers torch.ops.convnextv2
from convnextv2.kernels.derivatives import first_derivatives_only


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(logits: Tensor, targets: Tensor) -> Tensor:
        return torch.ops.convnextv2.cross_entropy(logits, targets)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.ops.convnextv2.cross_entropy_gradient(*ctx.saved_tensors, gradient), None


def enlarged_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Enlarge logits bilinearly to the pixels, and compute the cross entropy of each.

    Args:
        logits: float32 (N, K, h, w), on the CPU.
        targets: int64 (N, H, W), class indices, or -1 for a pixel that is ignored.

    Returns:
        float32 (N, H, W), 0 at ignored pixels.

    Raises:
        IndexError: A target is not a class.
    """
    losses: Tensor = _CrossEntropy.apply(logits.permute(0, 2, 3, 1), targets)
    return losses


def enlarged_classes(logits: Tensor, covered: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """Enlarge logits bilinearly to the pixels of an image, and find the largest of each pixel.

    Args:
        logits: float32 (K, h, w), on the CPU.
        covered: The number of rows and columns of the logits that the image covers.
        size: Height and width of the image.

    Returns:
        int16 (*size), class indices. If several logits are the largest, the first is chosen. NaN is
        never the largest.
    """
    found: Tensor = torch.ops.convnextv2.largest_class(logits.permute(1, 2, 0), covered, size)
    return found
