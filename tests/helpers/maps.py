"""A drawn data set with label maps: a red and a blue rectangle on a noisy background."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("background", "red", "blue")


def scene(seed: int, size: tuple[int, int] = (60, 80)) -> tuple[np.ndarray, np.ndarray]:
    """The pixels (H, W, 3) and the class indices (H, W) of a scene."""
    rng = np.random.default_rng(seed)
    height, width = size
    pixels = rng.integers(60, 120, (height, width, 3))
    labels = np.zeros((height, width), np.uint8)
    for number, band in ((1, 0), (2, 2)):
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        rows = slice(top, top + height // 3 + 1)
        columns = slice(left, left + width // 3 + 1)
        labels[rows, columns] = number
        pixels[rows, columns] = 40
        pixels[rows, columns, band] = 220
    return pixels.astype(np.uint8), labels


def draw_maps(
    root: Path, train: int = 8, val: int = 3, size: tuple[int, int] = (60, 80), table: bool = True
) -> Path:
    """Write a data set in the layout of ADE20K, of images of slightly different sizes."""
    for split, count, first in (("train", train, 0), ("val", val, 1000)):
        for i in range(count):
            pixels, labels = scene(first + i, (size[0] + 2 * (i % 3), size[1] + 3 * (i % 2)))
            write_pair(root, split, f"{i}", pixels, labels)
    if table:
        lines = "".join(f"{i},{name}\n" for i, name in enumerate(CLASSES))
        (root / "classes.csv").write_text("id,name\n" + lines)
    return root


def write_pair(root: Path, split: str, name: str, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Write an image and its label map."""
    for folder, array, end in (("images", pixels, "jpg"), ("annotations", labels, "png")):
        path = root / folder / split / f"{name}.{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"quality": 95} if end == "jpg" else {}
        Image.fromarray(array).save(path, **options)


def draw_beside(root: Path, train: int = 4, valid: int = 2) -> Path:
    """Write a data set in the layout of Roboflow, with the label maps beside the images."""
    seed = 0
    for split, count in (("train", train), ("valid", valid), ("test", 1)):
        (root / split).mkdir(parents=True)
        lines = "".join(f" {i}, {name}\n" for i, name in enumerate(CLASSES))
        (root / split / "_classes.csv").write_text("Pixel Value, Class\n" + lines)
        for i in range(count):
            pixels, labels = scene(seed)
            Image.fromarray(pixels).save(root / split / f"{i}_jpg.rf.{seed}.jpg", quality=95)
            Image.fromarray(labels).save(root / split / f"{i}_jpg.rf.{seed}_mask.png")
            seed += 1
    return root
