"""Makes the good files of each format, with all that it is usually used with."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "BMP")


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Make an image of smooth colours with some texture."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).normal(0, 8, (height, width, 3))
    waves = np.stack([np.sin(x / 9 + seed), np.cos(y / 7), np.sin((x + y) / 13)], -1)
    return Image.fromarray((128 + 100 * waves + noise).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode an image with Pillow."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned() -> Image.Exif:
    """Make metadata that say that an image lies on its side."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    return exif


def originals(kind: str, folder: Path | None) -> list[bytes]:
    """Make files of a format: generated images, and up to four photographs of a folder."""
    one, two = photograph(96, 64, 0), photograph(61, 83, 1)
    clear = one.convert("RGBA")
    clear.putalpha(photograph(96, 64, 2).convert("L"))
    made: dict[str, Callable[[], list[bytes]]] = {
        "JPEG": lambda: [
            encode(one, kind, quality=90),
            encode(two, kind, progressive=True, exif=turned()),
            encode(one.convert("L"), kind),
            encode(one, kind, subsampling=2, restart_marker_blocks=3, comment=b"made"),
            encode(two.convert("CMYK"), kind),
        ],
        "PNG": lambda: [
            encode(one, kind, exif=turned()),
            encode(clear, kind),
            encode(two.quantize(60), kind, transparency=3),
            encode(Image.fromarray(np.arange(6144, dtype=np.uint16).reshape(64, 96) * 9), kind),
            encode(one, kind, save_all=True, append_images=[two.resize(one.size)]),
            encode(two.convert("1"), kind, icc_profile=b"\1" * 300),
        ],
        "WEBP": lambda: [
            encode(one, kind, exif=turned()),
            encode(clear, kind, lossless=True),
            encode(clear, kind),
            encode(two, kind, save_all=True, append_images=[two.rotate(90)]),
        ],
        "TIFF": lambda: [
            encode(one, kind),
            encode(two, kind, compression="tiff_lzw", exif=turned()),
            encode(one, kind, compression="tiff_adobe_deflate", tile=(32, 32)),
            encode(one, kind, compression="jpeg"),
            encode(two.convert("L").convert("F"), kind),
            encode(two.convert("1"), kind, compression="group4"),
            encode(clear, kind, compression="packbits"),
        ],
        "GIF": lambda: [
            encode(one, kind),
            encode(two, kind, save_all=True, append_images=[two.rotate(90)], loop=0),
            encode(clear, kind, transparency=0, comment=b"made"),
            encode(two.convert("L"), kind, interlace=1),
        ],
        "AVIF": lambda: [
            encode(one, kind, speed=9, exif=turned()),
            encode(clear, kind, speed=9),
            encode(two, kind, speed=9, save_all=True, append_images=[two.rotate(90)]),
        ],
        "BMP": lambda: [
            encode(one, kind),
            encode(two.convert("P"), kind),
            encode(two.convert("1"), kind),
            encode(clear, kind),
            run_lengths(two.convert("P")),
        ],
    }
    found = sorted(folder.rglob("*")) if folder else []
    shown = [Image.open(path).convert("RGB") for path in found if path.suffix in (".jpg", ".jpeg")]
    return made[kind]() + [encode(image.reduce(2), kind) for image in shown[:4]]


def run_lengths(image: Image.Image) -> bytes:
    """Make a BMP of 8 bits, run-length coded, in which each run is one pixel long."""
    plain = bytearray(encode(image, "BMP"))
    rows = np.asarray(image)[::-1]
    coded = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in rows)
    (begin,) = struct.unpack_from("<I", plain, 10)
    struct.pack_into("<I", plain, 30, 1)
    struct.pack_into("<I", plain, 34, len(coded) + 2)
    return bytes(plain[:begin]) + coded + b"\0\1"
