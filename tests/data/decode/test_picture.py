import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from convnextv2.data.decode import decode, open_picture
from convnextv2.data.decode import jpeg as module
from convnextv2.errors import DataError

LIMIT = 10**8


def photograph(width: int = 61, height: int = 43) -> Image.Image:
    """Smooth colours with some texture, so that a wrong orientation or channel order shows."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 12, (height, width))
    return Image.fromarray(np.stack([4 * x, 5 * y, 100 + noise], -1).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes, channels: int = 3) -> np.ndarray:
    pixels = decode(data, name="x", channels=channels, max_pixels=LIMIT)
    assert pixels.dtype == torch.uint8 and pixels.permute(1, 2, 0).is_contiguous()
    return pixels.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("with_simplejpeg", [True, False])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpeg_equals_pillow(
    with_simplejpeg: bool, subsampling: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_simplejpeg:
        monkeypatch.setattr(module, "_simplejpeg", None)
    data = encoded(photograph(), "jpeg", quality=90, subsampling=subsampling)
    assert np.abs(read(data) - np.asarray(Image.open(io.BytesIO(data)), dtype=int)).max() <= 2
    assert (
        np.abs(
            read(data, 1)[..., 0] - np.asarray(Image.open(io.BytesIO(data)).convert("L"), dtype=int)
        ).max()
        <= 2
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_exif_orientation_is_undone(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(), kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), dtype=int)
    assert read(data).shape == expected.shape
    assert np.abs(read(data) - expected).max() <= 2


def test_grey_palette_and_bilevel_load_as_colour_and_as_grey() -> None:
    for mode in ("L", "P", "1"):
        image = photograph().convert(mode)
        data = encoded(image, "png")
        assert (read(data) == np.asarray(image.convert("RGB"), dtype=int)).all()
        assert (read(data, 1)[..., 0] == np.asarray(image.convert("L"), dtype=int)).all()


def test_transparency_is_laid_on_white() -> None:
    colour = np.zeros((2, 3, 4), dtype=np.uint8)
    colour[..., 0], colour[0, :, 3], colour[1, :, 3] = 200, 255, 0
    pixels = read(encoded(Image.fromarray(colour), "png"))
    assert (pixels[0] == [200, 0, 0]).all() and (pixels[1] == 255).all()
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    assert (read(encoded(palette, "png", transparency=0))[0, 0] == 255).all()


def test_cmyk_jpeg_loads_as_pillow_converts_it() -> None:
    data = encoded(photograph().convert("CMYK"), "jpeg", quality=95)
    assert (read(data) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int)).all()


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for kind in ("png", "tiff"):
        pixels = read(encoded(Image.fromarray(values), kind))
        assert np.abs(pixels[..., 0] - np.round(values / 257)).max() <= 1
        assert (pixels[..., 0] == pixels[..., 2]).all()


def test_float_tiff_is_scaled_by_its_range() -> None:
    values = np.linspace(-3, 5, 64, dtype=np.float32).reshape(8, 8)
    pixels = read(encoded(Image.fromarray(values), "tiff"), 1)[..., 0]
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    assert (
        read(encoded(frames[0], "gif", save_all=True, append_images=frames[1:]))[0, 0]
        == [255, 0, 0]
    ).all()


def test_one_pixel_is_an_image() -> None:
    for kind in ("jpeg", "png"):
        assert read(encoded(Image.new("RGB", (1, 1), "white"), kind)).tolist() == [
            [[255, 255, 255]]
        ]


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header declares more pixels than anyone should decode."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("with_simplejpeg", [True, False])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"this is a text file, whatever it is called", "not an image"),
        (encoded(photograph(), "jpeg")[:-400], "damaged or truncated"),
        (encoded(photograph(), "png")[:-400], "damaged or truncated"),
        (bomb(60_000, 60_000), "max_image_pixels"),
    ],
    ids=["empty", "text", "truncated-jpeg", "truncated-png", "bomb"],
)
def test_what_cannot_be_read_is_named(
    data: bytes, message: str, with_simplejpeg: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_simplejpeg:
        monkeypatch.setattr(module, "_simplejpeg", None)
    with pytest.raises(DataError, match=rf"^photo\.jpg: .*{message}") as error:
        decode(data, name="photo.jpg", max_pixels=LIMIT)
    assert "\n" not in str(error.value)


def with_scans(many: int, between: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan comes again and again, until there are so many."""
    data = encoded(Image.new("CMYK", (64, 64), (10, 60, 90, 0)), "jpeg", progressive=True)
    begin = data.rfind(b"\xff\xc4", 0, data.rfind(b"\xff\xda"))  # with its Huffman table
    return data[:-2] + (between + data[begin:-2]) * (many - data.count(b"\xff\xda")) + data[-2:]


@pytest.mark.parametrize(
    "between", [b"", b"\xff\x01"], ids=["", "TEM"]
)  # a marker that no length follows
def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded(between: bytes) -> None:
    assert read(with_scans(100, between)).shape == (64, 64, 3)
    with pytest.raises(DataError, match="more than 100 scans"):
        open_picture(with_scans(101, between), name="x", max_pixels=LIMIT)


def test_what_follows_a_photograph_is_not_taken_for_scans() -> None:
    film = b"\xff\xda" * 1000
    assert (read(encoded(photograph(), "jpeg") + film) == read(encoded(photograph(), "jpeg"))).all()


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of memory"
)
def test_a_large_deep_image_takes_little_more_memory_than_its_pixels() -> None:
    def memory(key: str) -> int:
        return (
            int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
        )

    data = encoded(Image.fromarray(np.zeros((4990, 5000), np.uint16)), "png")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = memory("VmRSS")
    pixels = decode(data, name="x", max_pixels=25_000_000)
    assert pixels.shape == (3, 4990, 5000)
    assert memory("VmHWM") - before < 8 * 4990 * 5000
