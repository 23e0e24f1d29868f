"""Reads every image once, for its hashes, size, brightness and sharpness, and a small copy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnextv2.data.decode import Picture, open_picture
from convnextv2.data.formats import sniff
from convnextv2.data.storage import read_file
from convnextv2.errors import DataError, MissingPackageError, StorageError
from convnextv2.machine import available_cores

SIDE = 64
"""Side of the small copy of an image, in px, to which the whole image is resized."""
_LIGHT_SIDE = 384
"""The longer side to which larger images are reduced to measure brightness and blur, in px."""
_BLUR_TAPS = 9
"""Length of the filter that blurs an image once more, in px, as in Crete et al."""


class Look(NamedTuple):
    """The results of the scan for one image.

    Attributes:
        error: Why it cannot be read; empty if it can. If it cannot, only the hash and the size
            of the file are known.
        file_hash: SHA-256 of the file.
        pixel_hash: BLAKE2b of size and pixels, upright and in 8 bits.
        file_bytes: Size of the file.
        height: The height in px, upright.
        width: The width in px, upright.
        bands: Number of bands in the file.
        format: Format of the file, such as JPEG.
        small: uint8 (SIDE, SIDE, 3), the whole image resized.
        low_luma: The 5th percentile of the luma, from 0 to 1; an image is too bright if even this
            is high.
        high_luma: The 95th percentile of the luma, from 0 to 1; an image is too dark if even this
            is low.
        blur: From 0 (sharp) to 1 (blurred); see `blur_of`.
    """

    error: str = ""
    file_hash: bytes = b""
    pixel_hash: bytes = b""
    file_bytes: int = 0
    height: int = 0
    width: int = 0
    bands: int = 0
    format: str = ""
    small: NDArray[np.uint8] | None = None
    low_luma: float = 0.0
    high_luma: float = 0.0
    blur: float = 0.0


def look_at(
    paths: Sequence[str],
    *,
    channels: int = 3,
    value_range: tuple[float, float] | None = None,
    max_pixels: int,
) -> list[Look]:
    """Read and decode every image once, on all cores.

    Args:
        paths: The files.
        channels: Channels to decode, see `open_picture`.
        value_range: See `open_picture`.
        max_pixels: The largest image that is decoded.

    Returns:
        The results, one for each path. An image that cannot be read has an error.

    Raises:
        StorageError: The storage that holds the files is out of reach.
        MissingPackageError: A package for a kind of image is missing.
    """
    look = partial(_look, paths, channels, value_range, max_pixels)
    # Decoders, hashes and resampling release the interpreter's lock, so threads are enough.
    with ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(look, range(len(paths))))


def _look(
    paths: Sequence[str],
    channels: int,
    value_range: tuple[float, float] | None,
    max_pixels: int,
    index: int,
) -> Look:
    name = paths[index]
    data = b""
    try:
        data = read_file(paths, index)
        picture = open_picture(
            data, name=name, channels=channels, max_pixels=max_pixels, value_range=value_range
        )
        return _seen(picture, data)
    except (StorageError, MissingPackageError):
        raise
    except DataError as error:
        why = str(error).removeprefix(f"{name}: ")
        return Look(why, hashlib.sha256(data).digest() if data else b"", file_bytes=len(data))


def _seen(picture: Picture, data: bytes) -> Look:
    pixels = picture.decode().permute(1, 2, 0).contiguous().numpy()
    hashed = hashlib.blake2b(np.array(pixels.shape, np.int64).tobytes(), digest_size=16)
    hashed.update(pixels.data)
    rgb = rgb_of(pixels)
    levels = np.asarray(_within(rgb.convert("L"), _LIGHT_SIDE))
    luma = (levels / 255).astype(np.float32)
    low, high = np.percentile(luma, (5, 95)).tolist()
    return Look(
        file_hash=hashlib.sha256(data).digest(),
        pixel_hash=hashed.digest(),
        file_bytes=len(data),
        height=picture.height,
        width=picture.width,
        bands=picture.bands,
        format=sniff(data) or "NPY",
        small=np.asarray(rgb.resize((SIDE, SIDE), Image.Resampling.BOX)),
        low_luma=low,
        high_luma=high,
        blur=blur_of(luma),
    )


def rgb_of(pixels: NDArray[np.uint8]) -> Image.Image:
    """Make an RGB picture of pixels (H, W, C): the first three channels, or the first as grey."""
    if pixels.shape[2] < 3:
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0])).convert("RGB")
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3]))


def _within(image: Image.Image, side: int) -> Image.Image:
    """Reduce an image whose longer side is longer than `side`; others are left as they are."""
    factor = side / max(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(length * factor)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def blur_of(luma: NDArray[np.float32]) -> float:
    """Measure how blurred an image is.

    The image is blurred once more along each axis. A sharp image then loses most of the differences
    between its neighbouring pixels, and a blurred one keeps them (Crete, Dolmiere, Ladret and
    Nicolas, "The Blur Effect", 2007, equations 1 to 8).

    Args:
        luma: float32 (H, W), from 0 to 1.

    Returns:
        From 0 (sharp) to 1 (blurred). 0 for an image too small or too flat to tell.
    """
    found = []
    for axis in (0, 1):
        along = luma if axis == 0 else luma.T
        if len(along) < 2 * _BLUR_TAPS or along.shape[1] < 2:
            continue
        half = _BLUR_TAPS // 2
        sums = np.cumsum(np.concatenate([np.zeros((1, along.shape[1]), np.float32), along]), axis=0)
        blurred = (sums[_BLUR_TAPS:] - sums[:-_BLUR_TAPS]) / _BLUR_TAPS
        sharp = np.abs(np.diff(along[half:-half], axis=0))
        lost = np.maximum(sharp - np.abs(np.diff(blurred, axis=0)), 0)
        total = float(sharp.sum())
        if total > 1e-3 * sharp.size:
            found.append((total - float(lost.sum())) / total)
    return max(found, default=0.0)
