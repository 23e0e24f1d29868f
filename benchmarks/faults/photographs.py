"""A folder of made images in which the colour tells the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("red", "green", "blue")


def make_photographs(
    root: Path, *, training: int, validation: int, size: tuple[int, int] = (80, 70)
) -> Path:
    """Write train/ and val/, unless they are there.

    Args:
        root: The folder to make.
        training: Training images of each class, as JPEG.
        validation: Validation images of each class, as PNG.
        size: Height and width in pixels.

    Returns:
        The folder.
    """
    if (root / "whole").exists():
        return root
    for colour, name in enumerate(CLASSES):
        for number in range(training):
            _draw(root / "train" / name / f"{number:05d}.jpg", colour, number, size)
        for number in range(validation):
            _draw(root / "val" / name / f"{number:05d}.png", colour, 100_000 + number, size)
    (root / "whole").touch()
    return root


def _draw(path: Path, colour: int, number: int, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([colour, number]).integers(0, 80, (*size, 3))
    pixels[..., colour] += 150
    Image.fromarray(pixels.astype(np.uint8)).save(path)
