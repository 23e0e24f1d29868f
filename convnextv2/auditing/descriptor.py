"""A quick descriptor of images, learned within seconds from the images themselves.

Patches of small copies are whitened and grouped by k-means; an image is described by how much each
group occurs in each part of it (Coates, Lee and Ng, "An Analysis of Single-Layer Networks in
Unsupervised Feature Learning", 2011). It captures colours, edges and textures and their positions,
which is enough for many labels, and it needs no weights.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_SIDE = 32
_PATCH = 6
_GROUPS = 384
_PARTS = 3
"""Parts along each axis in which groups are counted."""
_PATCHES = 40_000
_ROUNDS = 10
_CONTRAST = 10.0
"""Added to the variance of a patch, in squared levels, so that flat patches stay small."""
_WHITENING = 0.1
"""Added to the eigenvalues of the patches' covariance."""
_BATCH = 64


def describe(small: NDArray[np.uint8], seed: int = 0) -> Tensor:
    """Describe images.

    Args:
        small: uint8 (N, S, S, 3), small copies, S a multiple of 32.
        seed: The seed of the choice of patches and of the initial groups.

    Returns:
        float32 (N, D), not standardised.
    """
    images = torch.from_numpy(small).permute(0, 3, 1, 2).float()
    images = F.interpolate(images, (_SIDE, _SIDE), mode="area")
    generator = torch.Generator().manual_seed(seed)
    patches = _normalised(_random_patches(images, generator))
    mean, whiten = _whitening(patches)
    centres = _k_means((patches - mean) @ whiten, generator)
    found = []
    for batch in images.split(_BATCH):
        every = F.unfold(batch, _PATCH).transpose(1, 2)  # (n, positions, C * 36)
        white = (_normalised(every) - mean) @ whiten
        distance = torch.cdist(white, centres.expand(len(batch), -1, -1))
        near = (distance.mean(2, keepdim=True) - distance).clamp(min=0)
        side = _SIDE - _PATCH + 1
        maps = near.transpose(1, 2).reshape(len(batch), -1, side, side)
        found.append(F.adaptive_avg_pool2d(maps, _PARTS).flatten(1))
    return torch.cat(found)


def _random_patches(images: Tensor, generator: torch.Generator) -> Tensor:
    """Cut patches at random places, float32 (n, C * 36)."""
    many = _PATCHES // len(images) + 1
    found = []
    for _ in range(min(many, 200)):
        top, left = torch.randint(_SIDE - _PATCH + 1, (2,), generator=generator).tolist()
        found.append(images[:, :, top : top + _PATCH, left : left + _PATCH].flatten(1))
    patches = torch.cat(found)
    order = torch.randperm(len(patches), generator=generator)
    return patches[order[:_PATCHES]]


def _normalised(patches: Tensor) -> Tensor:
    """Remove brightness and contrast from patches (..., d)."""
    centred = patches - patches.mean(-1, keepdim=True)
    return centred / (patches.var(-1, keepdim=True) + _CONTRAST).sqrt()


def _whitening(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (d,) and the ZCA matrix (d, d) of patches."""
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    return mean, vectors @ torch.diag((values.clamp(min=0) + _WHITENING).rsqrt()) @ vectors.T


def _k_means(points: Tensor, generator: torch.Generator) -> Tensor:
    """Cluster points by Lloyd's algorithm, starting at random ones, and return the centres."""
    first = torch.randperm(len(points), generator=generator)[: min(_GROUPS, len(points))]
    centres = points[first]
    for _ in range(_ROUNDS):
        nearest = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = nearest.bincount(minlength=len(centres)).float()
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centres)
    return centres
