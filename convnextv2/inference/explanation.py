"""Explanations of a classifier's answer: class activation maps and occlusion maps.

A class activation map says what each position of the last feature map adds to a logit. An occlusion
map says how much the answer changes if a part of the image is covered. The first takes one pass
through the network and is coarse. The second takes hundreds of passes and relies on nothing but the
outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.layers import statistics_dtype


@dataclass(frozen=True)
class Question:
    """The class to explain: why it was chosen, or why it was chosen over another class.

    Attributes:
        row: The row of the class in the head.
        against: The row of the other class; None for no other.
        multi_label: Whether an image may have any number of labels.
    """

    row: int
    against: int | None = None
    multi_label: bool = False

    def log_odds(self, logits: Tensor) -> Tensor:
        """Compute the logarithm of the odds of the class.

        Args:
            logits: (N, K).

        Returns:
            (N,): log(p / (1 - p)) of the class, or log(p / q) where q is the probability of the
            other class. Unlike p, it distinguishes two answers that are both nearly certain.
        """
        own = logits[:, self.row]
        if self.against is not None:
            return own - logits[:, self.against]
        if self.multi_label or logits.shape[1] == 1:
            return own
        others = [row for row in range(logits.shape[1]) if row != self.row]
        return own - logits[:, others].logsumexp(1)


@dataclass(frozen=True)
class Activation:
    """A class activation map.

    Attributes:
        map: float (h, w). Its mean and `offset` add up to `logit`.
        logit: The logit of the class, or its difference to that of the other class.
        offset: The part of the logit that does not depend on the image.
    """

    map: Tensor
    logit: float
    offset: float


def activation_map(model: ConvNeXtV2, image: Tensor, question: Question) -> Activation:
    """Compute the class activation map (Zhou et al. 2016) of a network with a norm after the pool.

    The final norm divides by the deviation of the pooled features. With this one number held fixed,
    a logit is linear in the features, and its gradient says what each position adds to it.

    Args:
        model: A classifier in evaluation mode.
        image: (C, H, W), normalised, on the model's device.
        question: The class.

    Returns:
        The map, on the CPU.
    """
    assert model.norm is not None and model.head is not None
    with torch.no_grad():
        encoded = model.encode(image[None])[0]
        encoded = encoded.to(statistics_dtype(encoded.dtype))  # (h, w, D)
        pooled = encoded.mean((0, 1))
        deviation = (pooled.var(correction=0) + model.norm.eps).sqrt()
    with torch.enable_grad():
        pooled = pooled.clone().requires_grad_()
        normed = (pooled - pooled.mean()) / deviation
        logits = model.head(normed * model.norm.weight + model.norm.bias)
        logit = logits[question.row]
        if question.against is not None:
            logit = logit - logits[question.against]
        (gradient,) = torch.autograd.grad(logit, pooled)
    found, whole = encoded @ gradient, float(logit.detach())
    return Activation(found.cpu(), whole, whole - float(found.mean()))


def occlusion_map(
    model: ConvNeXtV2,
    image: Tensor,
    question: Question,
    *,
    patch: int,
    step: int,
    batch_size: int = 32,
) -> Tensor:
    """Cover an image square by square, and measure how the answer changes.

    The squares have the mean colour of the training images, which is 0 after normalisation. They
    lie `step` pixels apart, the last ones at the edges. Source: Zeiler and Fergus 2014, section
    4.2. Here, the answer is the logarithm of the odds.

    Args:
        model: A classifier in evaluation mode.
        image: (C, H, W), normalised, on the model's device.
        question: The class.
        patch: Side of a square in px; a side of the image if that is shorter.
        step: The distance from one square to the next in px.
        batch_size: Covered images that are scored at once.

    Returns:
        float64 (H, W), on the CPU: for each pixel the mean decrease of the log odds over the
        squares that cover it. A positive number means that the pixel supports the class.
    """
    height, width = image.shape[-2:]
    rows, columns = min(patch, height), min(patch, width)
    squares = [
        (top, left) for top in starts(height, rows, step) for left in starts(width, columns, step)
    ]
    total = torch.zeros(height, width, dtype=torch.float64)
    count = torch.zeros(height, width, dtype=torch.float64)
    with torch.inference_mode():
        whole = float(question.log_odds(_logits(model, image[None]))[0])
        for first in range(0, len(squares), batch_size):
            part = squares[first : first + batch_size]
            covered = image.repeat(len(part), 1, 1, 1)
            for i, (top, left) in enumerate(part):
                covered[i, :, top : top + rows, left : left + columns] = 0
            log_odds = question.log_odds(_logits(model, covered)).tolist()
            for (top, left), one in zip(part, log_odds, strict=True):
                total[top : top + rows, left : left + columns] += whole - one
                count[top : top + rows, left : left + columns] += 1
    return total / count


def starts(side: int, patch: int, step: int) -> Sequence[int]:
    """List where squares begin along a side, so that they cover it to its end.

    Args:
        side: The length of the side, in pixels.
        patch: The length of a square, at most that of the side.
        step: The distance from one square to the next.
    """
    found = list(range(0, side - patch + 1, step))
    return found if found[-1] == side - patch else [*found, side - patch]


def _logits(model: ConvNeXtV2, images: Tensor) -> Tensor:
    """Compute logits in float32 or finer."""
    logits = model(images)
    assert isinstance(logits, Tensor)
    return logits.to(statistics_dtype(logits.dtype))


def enlarge(small: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge a map (h, w) to the size of its image, between the centres of its positions.

    Args:
        small: The map.
        size: Height and width of the image.

    Returns:
        float64, of that size.
    """
    return F.interpolate(small.double()[None, None], size, mode="bilinear")[0, 0]
