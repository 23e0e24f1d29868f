"""Generated images of several bands: three kinds of fields as satellites see them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KINDS = ("barley", "maize", "wheat")
MAX_VALUE = 4000
"""Roughly the largest value. 16 bits could hold 16 times as much."""


def field(kind: int, seed: int, bands: int = 5, side: int = 40) -> NDArray[np.uint16]:
    """Draw noise in which one band tells the kind of field.

    Returns:
        uint16 (side, side + 6, bands).
    """
    draw = np.random.default_rng(1000 * kind + seed)
    values = draw.normal(900 + 200 * np.arange(bands), 150, (side, side + 6, bands))
    values[..., kind] += 1500
    return values.clip(0, MAX_VALUE).astype(np.uint16)


def save_tiff(path: Path, values: NDArray[np.generic], **options: object) -> None:
    """Write (H, W, C) as a TIFF file as GDAL does: bands side by side, compressed."""
    import tifffile

    tifffile.imwrite(
        path, values, photometric="minisblack", planarconfig="contig", compression="zlib", **options
    )


def write_fields(root: Path, ending: str, *, train: int = 4, val: int = 2) -> Path:
    """Write a folder with train/ and val/, each with a folder for each kind of field.

    Args:
        root: The folder.
        ending: "npy", or anything else for TIFF.
        train: Training images of each kind.
        val: Validation images of each kind.
    """
    for split, count, first in (("train", train, 0), ("val", val, 100)):
        for kind, name in enumerate(KINDS):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                values = field(kind, first + i)
                if ending == "npy":
                    np.save(folder / f"{i}.npy", values)
                else:
                    save_tiff(folder / f"{i}.tif", values)
    return root
