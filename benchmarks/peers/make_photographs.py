"""Large JPEG files for measuring loaders, made by tiling small photographs.

    python benchmarks/peers/make_photographs.py PHOTOS OUT [--count 2000] [--size 500 375]

PHOTOS is any folder of images. OUT becomes an image folder with ten classes. The files have quality
90 and 4:2:0 chroma, as most photographs have.
"""

import argparse
import random
from pathlib import Path

from PIL import Image, ImageOps


def tile(photos: list[Path], size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Make a grid of photographs, one in each cell."""
    cell = 125
    canvas = Image.new("RGB", size)
    for top in range(0, size[1], cell):
        for left in range(0, size[0], cell):
            canvas.paste(
                ImageOps.fit(Image.open(rng.choice(photos)).convert("RGB"), (cell, cell)),
                (left, top),
            )
    return canvas


def make(photos: Path, out: Path, count: int, size: tuple[int, int]) -> Path:
    """Write `count` files under out/0 ... out/9; those that are there already are kept."""
    paths = sorted(
        path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    rng = random.Random(0)
    for i in range(count):
        path = out / str(i % 10) / f"{i:05}.jpg"
        image_rng = random.Random(rng.random())
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            tile(paths, size, image_rng).save(path, quality=90)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument(
        "--size", type=int, nargs=2, default=(500, 375), metavar=("WIDTH", "HEIGHT")
    )
    arguments = parser.parse_args()
    make(arguments.photos, arguments.out, arguments.count, tuple(arguments.size))
