"""Pictures with structure of their own: smooth shades with a few rectangles and discs."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def scene(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """Draw a picture (width, height) that resembles no other one."""
    rng = np.random.default_rng(seed)
    shades = Image.fromarray(rng.integers(40, 216, (5, 5, 3)).astype(np.uint8))
    picture = shades.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for number in range(10):
        x, y = rng.integers(0, size[0] - 8), rng.integers(0, size[1] - 8)
        box = (x, y, x + rng.integers(6, size[0] // 2), y + rng.integers(6, size[1] // 2))
        colour = tuple(rng.integers(0, 256, 3).tolist())
        (draw.rectangle if number % 2 else draw.ellipse)([int(edge) for edge in box], colour)
    return picture


def save(picture: Image.Image, path: Path, **options) -> Path:
    """Write a picture, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def blurred(picture: Image.Image, radius: float = 5) -> Image.Image:
    """Blur a picture."""
    return picture.filter(ImageFilter.GaussianBlur(radius))
