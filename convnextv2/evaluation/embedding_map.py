"""A map of images in two dimensions, by the principal components of their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from convnextv2.evaluation.drawing import colour_of

WIDTH, HEIGHT = 1500, 1050
THUMB_PX, BORDER_PX = 40, 4


@dataclass(frozen=True)
class Components:
    """The first principal components of some vectors.

    Attributes:
        points: float64 (N, 2), the coordinates of the vectors.
        shares: The share of the variance along each of the two.
    """

    points: NDArray[np.float64]
    shares: tuple[float, float]


def principal_components(vectors: NDArray[np.floating]) -> Components:
    """Project vectors onto the two directions of the largest variance.

    Args:
        vectors: (N, D).

    Returns:
        The coordinates. Along each direction, the coordinate with the largest absolute value is
        positive, so that the same vectors always give the same map.
    """
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, 0, dtype=np.float64)
    points = np.zeros((len(centred), 2))
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    found = min(2, len(values))
    points[:, :found] = left[:, :found] * values[:found]
    for axis in range(found):
        if len(points) and points[np.abs(points[:, axis]).argmax(), axis] < 0:
            points[:, axis] *= -1
    total = float((values**2).sum())
    shares = [float(values[i] ** 2) / total if i < found and total else 0.0 for i in range(2)]
    return Components(points, (shares[0], shares[1]))


def draw_map(
    points: NDArray[np.float64],
    thumbnails: Sequence[Image.Image],
    labels: Sequence[int],
    wrong: Sequence[bool],
) -> Image.Image:
    """Draw thumbnails at their points.

    Args:
        points: float64 (N, 2). The first coordinate grows to the right, the second upwards.
        thumbnails: One picture for each point, of any size.
        labels: The class of each, which decides the colour of its border; -1 for none.
        wrong: Whether each gets a black corner. Those that do are drawn on top.
    """
    side = THUMB_PX + 2 * BORDER_PX
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(canvas)
    low, high = points.min(0), points.max(0)
    span = np.where(high > low, high - low, 1.0)
    places = (points - low) / span * (WIDTH - side, HEIGHT - side)
    for i in sorted(range(len(points)), key=lambda i: wrong[i]):
        x, y = round(places[i, 0]), HEIGHT - side - round(places[i, 1])
        colour = colour_of(labels[i]) if labels[i] >= 0 else (130, 130, 130)
        draw.rectangle((x, y, x + side - 1, y + side - 1), fill=colour)
        canvas.paste(thumbnails[i].resize((THUMB_PX, THUMB_PX)), (x + BORDER_PX, y + BORDER_PX))
        if wrong[i]:
            corner = side // 3
            draw.polygon([(x, y), (x + corner, y), (x, y + corner)], fill="black")
    return canvas
