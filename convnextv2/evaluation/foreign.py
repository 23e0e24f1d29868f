"""How foreign an image is: the distance of its features from those of all classes.

The distance is that of Mahalanobis to the nearest class mean, with one covariance for all classes
(Lee et al. 2018, arXiv 1807.03888). The covariance is shrunk towards a multiple of the identity
(Ledoit and Wolf 2004), because there may be fewer images than features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_FOLDS = 5
_FLOOR = 1e-6
"""The least variance in any direction, as a share of the mean one."""
_LEAST_VARIANCE = 1e-12
"""The least variance if images do not vary at all. Features after a norm are about 1."""


@dataclass(frozen=True, eq=False)
class Distance:
    """Distance from the features of known classes.

    Attributes:
        whitening: float32 (D, D). Features times this have the covariance 1 within classes.
        means: float32 (K, D), the mean of each class, whitened.
    """

    whitening: Floats
    means: Floats

    def __call__(self, features: Floats) -> Floats:
        """Return the distance of each image to the nearest class, float32 (N,).

        Args:
            features: float32 (N, D).
        """
        white = features @ self.whitening
        squares = np.square(white).sum(1, keepdims=True) - 2 * white @ self.means.T
        squares += np.square(self.means).sum(1)
        nearest: Floats = np.sqrt(squares.min(1).clip(0))
        return nearest


def fit_distance(features: Floats, targets: NDArray[np.int64]) -> Distance:
    """Fit the distance.

    Args:
        features: float32 (N, D), of images of known classes.
        targets: int64 (N,), their classes. Classes without images are left out.
    """
    wide = features.astype(np.float64)
    classes, rows = np.unique(targets, return_inverse=True)
    sums = np.zeros((len(classes), wide.shape[1]))
    np.add.at(sums, rows, wide)
    means = sums / np.bincount(rows)[:, None]
    variances, directions = np.linalg.eigh(shrunk_covariance(wide - means[rows]))
    floor = max(_FLOOR * float(variances.mean()), _LEAST_VARIANCE)
    whitening = directions / np.sqrt(variances.clip(floor))
    return Distance(whitening.astype(np.float32), (means @ whitening).astype(np.float32))


def distances_apart(features: Floats, targets: NDArray[np.int64]) -> Floats:
    """Return the distance of each image by a fit on images that it is not among, float32 (N,).

    The images are dealt to five parts by turns. Sort them by class for an even deal.

    Args:
        features: float32 (N, D), N at least 2.
        targets: int64 (N,).
    """
    parts = np.arange(len(features)) % min(_FOLDS, len(features))
    found = np.empty(len(features), np.float32)
    for part in np.unique(parts):
        here = parts == part
        found[here] = fit_distance(features[~here], targets[~here])(features[here])
    return found


def shrunk_covariance(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Estimate a covariance as Ledoit and Wolf do (Journal of Multivariate Analysis 88, 2004).

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
    noise = float(np.square(np.square(centred).sum(1)).sum() / images) / images
    noise -= float(np.square(empirical).sum()) / images
    share = min(noise / apart, 1.0) if apart > 0 else 1.0
    return (1 - share) * empirical + share * mean * identity
