"""Draws images by class, so that rare classes occur more often in an epoch than in the data."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.data.randomness import uniform
from convnextv2.data.source import Targets

POWERS = {"natural": 1.0, "sqrt": 0.5, "balanced": 0.0}
"""The words that `sampling` accepts, and the powers q that they stand for."""


def power_of(sampling: str | float) -> float:
    """Return the power q of the knob `sampling`: classes are drawn in proportion to n ** q."""
    return POWERS[sampling] if isinstance(sampling, str) else sampling


def class_shares(counts: NDArray[np.int64], power: float = 1.0) -> NDArray[np.float64]:
    """Return the share of each class if classes are drawn in proportion to n ** power.

    Source: Kang et al. 2020, "Decoupling Representation and Classifier for Long-Tailed
    Recognition", arXiv 1910.09217.

    Args:
        counts: int64 (K,), the number n of images of each class.
        power: 1 for the shares in the data, 0 for equal shares.

    Returns:
        float64 (K,) with sum 1. A class without images has 0.
    """
    occurs = counts > 0
    powers = np.where(occurs, np.maximum(counts, 1).astype(np.float64) ** power, 0.0)
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def draw_epoch(targets: Targets, power: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw as many images as there are, with classes in proportion to n ** power.

    The number of draws of a class is its expected number, rounded up or down at random. Within a
    class, no image is drawn again before all others have been drawn. Independent draws would miss
    about a third of the images of a class that keeps its share.

    Args:
        targets: int64 (N,), the class of each image.
        power: See `class_shares`.
        generator: A generator on the CPU. All random choices are drawn from it.

    Returns:
        The indices of the images, int64 (N,), in random order; and the number of times that each
        was drawn before in this epoch, int64 (N,).
    """
    length = len(targets)
    counts = np.unique(targets, return_counts=True)[1]
    ends = np.cumsum(length * class_shares(counts, power))
    ends[-1] = length
    # One random offset rounds all sums, so the draws add up to N and each has its expected mean.
    draws = np.diff(np.floor(ends + uniform(generator)).astype(np.int64), prepend=0)
    members = torch.from_numpy(np.argsort(targets, kind="stable")).split(counts.tolist())
    order, occurrence = [], []
    for images, drawn in zip(members, draws.tolist(), strict=True):
        rounds = -(-drawn // len(images))
        shuffled = [images[torch.randperm(len(images), generator=generator)] for _ in range(rounds)]
        order += [torch.cat(shuffled)[:drawn]] if shuffled else []
        occurrence.append(torch.arange(drawn) // len(images))
    mixed = torch.randperm(length, generator=generator)
    return torch.cat(order)[mixed], torch.cat(occurrence)[mixed]
