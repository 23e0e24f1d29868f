"""Measure how foreign an image is to a classifier, by features of the network and appearance.

Two scores are computed for each image, and the more extreme one is used:

- The Mahalanobis distance from the images of the fit.
- The log ratio of two normal densities, of enlarged parts of these images and of whole ones.
  Unknown objects with few details have less extreme features than known ones, so the distance alone
  misses them. Enlarged parts stand in for foreign images, of which there are none (compare Tack et
  al. 2020, arXiv 2007.08176).

The features of a network that was trained on few images carry little information about other kinds
of images. Simple statistics of the pixels are therefore added to them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_FOLDS = 5
_FLOOR = 1e-6
"""The minimum variance in any direction, as a share of the mean variance."""
_MIN_VARIANCE = 1e-12
"""The minimum variance if images do not vary at all."""
_PART = 0.3
"""The side of a part, as a share of the side of the image."""
_SEEN_PX = 32
"""Larger images are subsampled to about this side, so that the cost stays the same."""
_GRID = 4
_MAX_PAIRS = 6
"""The number of pairs of channels whose correlation is computed."""


def appearance(pixels: Tensor) -> Floats:
    """Describe the appearance of images: colours, their positions, contrasts and edges.

    Args:
        pixels: uint8 (N, C, H, W).

    Returns:
        float32 (N, P): mean and standard deviation of each channel, its means in a grid, the
        logarithm of the mean difference of neighbours at three scales, and correlations of
        channels.
    """
    step = max(1, min(pixels.shape[2:]) // _SEEN_PX)
    images = pixels[:, :, ::step, ::step].float() / 255
    centred = images - images.mean((2, 3), keepdim=True)
    deviation = centred.square().mean((2, 3)).sqrt()
    statistics = [images.mean((2, 3)), deviation, adaptive_avg_pool2d(images, _GRID).flatten(1)]
    for scale in (1, 2, 4):
        at = avg_pool2d(images, scale) if scale > 1 and min(images.shape[2:]) >= scale else images
        for axis in (2, 3):
            edges = at.diff(dim=axis).abs()
            mean = edges.mean((2, 3)) if edges.numel() else at.new_zeros(at.shape[:2])
            statistics.append((mean + 1e-3).log())
    pairs = torch.triu_indices(images.shape[1], images.shape[1], 1)[:, :_MAX_PAIRS]
    first, second = pairs
    products = (centred[:, first] * centred[:, second]).mean((2, 3))
    statistics.append(products / (deviation[:, first] * deviation[:, second] + 1e-3))
    found: Floats = torch.cat(statistics, 1).numpy()
    return found


def enlarged_parts(pixels: Tensor, hashes: NDArray[np.int64]) -> Tensor:
    """Enlarge a random part of each image to the size of the image.

    Args:
        pixels: uint8 (N, C, H, W).
        hashes: int64 (N,), a seed for each image, which determines the position of its part.

    Returns:
        uint8 (N, C, H, W).
    """
    height, width = pixels.shape[2:]
    rows, columns = max(1, round(_PART * height)), max(1, round(_PART * width))
    parts = []
    for image, seed in zip(pixels, hashes.tolist(), strict=True):
        draw = np.random.default_rng(seed % 2**64)
        top, left = draw.integers(0, (height - rows + 1, width - columns + 1)).tolist()
        part = image[None, :, top : top + rows, left : left + columns].float()
        parts.append(interpolate(part, (height, width), mode="bicubic"))
    return torch.cat(parts).clamp(0, 255).round().to(torch.uint8)


@dataclass(frozen=True, eq=False)
class Foreign:
    """The fitted scores of how foreign an image is.

    Attributes:
        centre: float32 (D,), the mean of the features of known images.
        scale: float32 (D,), their standard deviation. Features are centred and divided by it.
        part: float32 (D,), the mean of the features of parts, centred and divided in the same way.
        known_precision: float32 (D, D), the inverse covariance of known images.
        part_precision: float32 (D, D), the inverse covariance of parts.
        usual: float32 (2,), the median of each score over known images.
        spread: float32 (2,), the distance from this median to the 90th percentile.
    """

    centre: Floats
    scale: Floats
    part: Floats
    known_precision: Floats
    part_precision: Floats
    usual: Floats
    spread: Floats

    def __call__(self, features: Floats) -> Floats:
        """Return how foreign images are, float32 (N,): 0 is the median, 1 the 90th percentile.

        Args:
            features: float32 (N, D).
        """
        found: Floats = ((self.scores(features) - self.usual) / self.spread).max(1)
        return found

    def scores(self, features: Floats) -> Floats:
        """Compute both scores, float32 (N, 2).

        Args:
            features: float32 (N, D).
        """
        known = (features - self.centre) / self.scale
        part = known - self.part
        distance = ((known @ self.known_precision) * known).sum(1)
        other = ((part @ self.part_precision) * part).sum(1)
        return np.stack([distance, distance - other], 1)


def fit_foreign(features: Floats, parts: Floats) -> tuple[Foreign, Floats]:
    """Fit the scores of how foreign images are.

    Args:
        features: float32 (N, D), the features of known images, at least two.
        parts: float32 (N, D), the features of a part of each image; see `enlarged_parts`.

    Returns:
        The fit, and how foreign each image is, float32 (N,), by five-fold cross-validation. Images
        are assigned to folds in turn.
    """
    folds = np.arange(len(features)) % min(_FOLDS, len(features))
    scores = np.empty((len(features), 2), np.float32)
    for fold in np.unique(folds):
        here = folds == fold
        scores[here] = _fit(features[~here], parts[~here]).scores(features[here])
    usual = np.median(scores, 0)
    spread = np.quantile(scores, 0.9, 0) - usual
    spread = np.where(spread > 0, spread, 1).astype(np.float32)  # where all scores are equal
    fitted = replace(_fit(features, parts), usual=usual.astype(np.float32), spread=spread)
    return fitted, ((scores - fitted.usual) / fitted.spread).max(1)


def _fit(features: Floats, parts: Floats) -> Foreign:
    wide = features.astype(np.float64)
    centre, scale = wide.mean(0), np.maximum(wide.std(0), _MIN_VARIANCE**0.5)
    known, other = (wide - centre) / scale, (parts.astype(np.float64) - centre) / scale
    mean = other.mean(0)
    return Foreign(
        centre.astype(np.float32),
        scale.astype(np.float32),
        mean.astype(np.float32),
        precision(known).astype(np.float32),
        precision(other - mean).astype(np.float32),
        np.zeros(2, np.float32),
        np.ones(2, np.float32),
    )


def precision(centred: Doubles) -> Doubles:
    """Invert the shrunk covariance of rows of mean 0, float64 (N, D)."""
    variances, directions = np.linalg.eigh(shrunk_covariance(centred))
    floor = max(_FLOOR * float(variances.mean()), _MIN_VARIANCE)
    inverse: Doubles = (directions / variances.clip(floor)) @ directions.T
    return inverse


def shrunk_covariance(centred: Doubles) -> Doubles:
    """Estimate a covariance as Ledoit and Wolf do (Journal of Multivariate Analysis 88, 2004).

    There may be fewer images than features, whose empirical covariance has no inverse.

    Args:
        centred: float64 (N, D), of mean 0.

    Returns:
        float64 (D, D), between the empirical covariance and a multiple of the identity.
    """
    images, size = centred.shape
    empirical = centred.T @ centred / images
    mean = float(np.trace(empirical)) / size
    identity = np.eye(size)
    apart = float(np.square(empirical - mean * identity).sum())
    noise = float(np.square(np.square(centred).sum(1)).sum()) / images**2
    noise -= float(np.square(empirical).sum()) / images
    share = min(noise / apart, 1.0) if apart > 0 else 1.0
    shrunk: Doubles = (1 - share) * empirical + share * mean * identity
    return shrunk
