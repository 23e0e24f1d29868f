"""Test-time augmentation: average the probabilities of mirrored and scaled views.

Each view costs a forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def averaged(
    logits_fn: Callable[[Tensor], Tensor], scales: Sequence[float], stride: int
) -> Callable[[Tensor], Tensor]:
    """Return a function from images to logits whose softmax is the mean over all views.

    Args:
        logits_fn: Maps images (N, C, H, W) to logits (N, classes).
        scales: The factors by which images are enlarged, each with and without mirroring.
        stride: The network's total stride. Sides are rounded to multiples of it.
    """

    def logits(images: Tensor) -> Tensor:
        found = [logits_fn(view).log_softmax(-1) for view in views(images, scales, stride)]
        return torch.stack(found).logsumexp(0) - math.log(len(found))

    return logits


def views(images: Tensor, scales: Sequence[float], stride: int) -> Iterator[Tensor]:
    """Yield images at each scale, unchanged and mirrored.

    Args:
        images: (N, C, H, W), of any type if the only scale is 1.
        scales: The factors by which images are enlarged.
        stride: The network's total stride.
    """
    for scale in scales:
        sides = [max(stride, round(side * scale / stride) * stride) for side in images.shape[2:]]
        scaled = images
        if scale != 1:
            scaled = interpolate(images, sides, mode="bicubic", antialias=True)
        yield scaled
        yield scaled.flip(-1)
