"""Images that may have several labels: patches of colours on black, and tables of them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ("red", "green", "blue")


def draw_patches(path: Path, labels: Sequence[str], seed: int, side: int = 32) -> None:
    """A dark picture with a patch of each colour that it has for a label."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 60, (side, side, 3))
    places = random.permutation(4)
    for place, name in zip(places, labels, strict=False):
        top, left = divmod(int(place), 2)
        patch = pixels[top * side // 2 :, left * side // 2 :][: side // 2 - 2, : side // 2 - 2]
        patch[..., COLOURS.index(name)] = 240
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def patch_table(folder: Path, images: int, seed: int = 0) -> Path:
    """Draw images, and write a table with their labels between vertical bars and their splits."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    rows = []
    for i in range(images):
        labels = [name for name in COLOURS if random.random() < 0.45]
        draw_patches(folder / f"{i}.png", labels, 1000 * seed + i)
        rows.append((f"{i}.png", "|".join(labels), "val" if i % 4 == 3 else "train"))
    with open(folder / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "labels", "split"), *rows])
    return folder / "table.csv"
