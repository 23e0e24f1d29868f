"""Folders of pictures, and tar files of them that the standard library writes."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ash", "birch", "cedar")


def picture(seed: int, size: tuple[int, int] = (40, 36)) -> bytes:
    """Return a noisy picture as a PNG file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def folder_of(root: Path, each: int = 4, *, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """Write a folder of classes with pictures; without splits if `splits` is empty."""
    for number, split in enumerate(splits or ("",)):
        for target, name in enumerate(CLASSES):
            place = root / split / name
            place.mkdir(parents=True)
            for i in range(each):
                (place / f"{i}.png").write_bytes(picture(100 * number + 10 * target + i))
    return root


def write_tar(path: Path, files: list[tuple[str, bytes]], **options) -> Path:
    """Write a tar file by the standard library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def tars_of(folder: Path, out: Path, *, per_shard: int = 5, prefix: str = "train") -> Path:
    """Write tars with .cls files of a folder of classes, in its order."""
    names = sorted(place.name for place in folder.iterdir())
    samples = []
    for target, name in enumerate(names):
        for image in sorted((folder / name).iterdir()):
            key = f"{name}/{image.stem}"
            samples.append(
                [(key + image.suffix, image.read_bytes()), (f"{key}.cls", b"%d" % target)]
            )
    for number, start in enumerate(range(0, len(samples), per_shard)):
        files = [file for sample in samples[start : start + per_shard] for file in sample]
        write_tar(out / f"{prefix}-{number:06d}.tar", files)
    return out
