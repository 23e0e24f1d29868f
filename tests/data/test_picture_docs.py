"""Every row about pictures in docs/how-to/data.md: they are read, or refused as it says."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pages import documented
from PIL import Image, PngImagePlugin

from convnextv2.data.decode import decode
from convnextv2.errors import DataError

DAMAGED = Path(__file__).parent / "decode" / "damaged"


def photograph() -> Image.Image:
    y, x = np.mgrid[:48, :64]
    return Image.fromarray(np.stack([4 * x, 5 * y, x + y], -1).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


JPEG = encoded(photograph(), "JPEG", quality=90)
PNG = encoded(photograph(), "PNG")


def with_text_of_wrong_checksum() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "hello")
    data = bytearray(encoded(photograph(), "PNG", pnginfo=text))
    at = data.index(b"tEXt")
    length = struct.unpack(">I", data[at - 4 : at])[0]
    data[at + 4 + length] ^= 255
    return bytes(data)


def with_long_text() -> bytes:
    content = b"Raw\0\0" + zlib.compress(b"x" * (3 << 20))
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + content))
    return PNG[:33] + chunk + PNG[33:]


def turned() -> tuple[bytes, np.ndarray]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photograph(), "TIFF", exif=exif), np.rot90(np.asarray(photograph()), -1)


def floats(*, no_data: str | None = None) -> tuple[bytes, np.ndarray]:
    """0, 0.5 and 1, with one value that is not a number or no data."""
    values = np.array([[0, 0.5, 1.0, np.nan if no_data is None else float(no_data)]], np.float32)
    options = {"tiffinfo": {42113: no_data}} if no_data else {}
    expected = np.array([[0, 128, 255, 0]], np.uint8)[..., None].repeat(3, -1)
    return encoded(Image.fromarray(values), "TIFF", **options), expected


def array() -> tuple[bytes, np.ndarray]:
    file = io.BytesIO()
    np.save(file, np.asarray(photograph()))
    return file.getvalue(), np.asarray(photograph())


def sixteen_bits() -> tuple[bytes, np.ndarray]:
    values = np.array([[0, 257, 65535]], np.uint16)
    return encoded(Image.fromarray(values), "PNG"), np.array([[0, 1, 255]], np.uint8)[
        ..., None
    ].repeat(3, -1)


def transparent() -> tuple[bytes, np.ndarray]:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    return encoded(Image.fromarray(pixels), "PNG"), np.array([[[10, 20, 30], [255] * 3]], np.uint8)


def noise() -> Image.Image:
    """Every row of it takes about as many bytes as any other."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (800, 64, 3), np.uint8))


def half_of(data: bytes) -> bytes:
    return data[: len(data) // 2]


READ: dict[str, Callable[[], tuple[bytes, np.ndarray]]] = {
    "scan-header": lambda: (
        (data := (DAMAGED / "wrong-scan-header.jpg").read_bytes()),
        plain(data),
    ),
    "stray-bytes": lambda: (JPEG[:-2] + b"\x12\x34" + JPEG[-2:], plain(JPEG)),
    "end-marker": lambda: (JPEG[:-2], plain(JPEG)),
    "exif": lambda: ((DAMAGED / "exif-garbage.webp").read_bytes(),) * 2,
    "text-checksum": lambda: (with_text_of_wrong_checksum(), plain(PNG)),
    "long-text": lambda: (with_long_text(), plain(PNG)),
    "tiff-orientation": turned,
    "sixteen-bits": sixteen_bits,
    "nan": floats,
    "no-data": lambda: floats(no_data="-9999"),
    "transparent": transparent,
    "npy": array,
}
REFUSED: dict[str, Callable[[], bytes]] = {
    "cut": lambda: half_of(encoded(noise(), "JPEG")),
    "heic": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "text-file": lambda: b"this is not a photograph\n",
    "empty": lambda: b"",
    "too-large": lambda: encoded(Image.new("L", (2000, 1000)), "PNG"),
    "nothing-finite": lambda: encoded(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"),
}


def test_every_row_of_the_page_is_tested() -> None:
    assert list(documented("picture")) == [*READ, *REFUSED]


@pytest.mark.parametrize("slug", READ)
def test_pictures_are_read(slug: str) -> None:
    data, expected = READ[slug]()
    if isinstance(expected, bytes):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about the EXIF
            expected = plain(expected)
    pixels = decode(data, name="x", max_pixels=10**6).permute(1, 2, 0).numpy()
    difference = np.abs(pixels.astype(int) - expected)
    assert pixels.shape == expected.shape and difference.max() == 0


@pytest.mark.parametrize("slug", REFUSED)
def test_pictures_are_refused_as_the_page_says(slug: str) -> None:
    with pytest.raises(DataError) as caught:
        decode(REFUSED[slug](), name="photo.jpg", max_pixels=10**6)
    assert [str(caught.value)] == documented("picture")[slug]
