import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from convnextv2.data.dense.label_maps import IGNORED, Coding, read_values
from convnextv2.errors import DataError

VALUES = np.array([[0, 1, 2], [3, 255, 1]], np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def read(data: bytes, coloured: bool = False, name: str = "map.png") -> np.ndarray:
    return read_values(data, name=name, max_pixels=10_000, coloured=coloured)


def test_values_are_those_that_were_written_in_every_form() -> None:
    grey = Image.fromarray(VALUES)
    palette = Image.fromarray(VALUES)
    palette.putpalette([7, 200, 30] * 256)
    deep = Image.fromarray(VALUES.astype(np.uint16))
    alike = Image.fromarray(np.stack([VALUES] * 3, -1))
    opaque = Image.merge(
        "LA", [Image.fromarray(each) for each in (VALUES, np.full_like(VALUES, 255))]
    )
    for image in (grey, palette, deep, alike, opaque):
        assert read(encoded(image)).tolist() == VALUES.tolist(), image.mode
    for format in ("BMP", "TIFF", "GIF", "PPM"):
        assert read(encoded(grey, format)).tolist() == VALUES.tolist(), format
    binary = Image.fromarray(VALUES > 0)
    assert read(encoded(binary)).tolist() == [[0, 1, 1], [1, 1, 1]]


def test_values_of_16_bits_are_not_cut() -> None:
    deep = np.array([[0, 300], [40_000, 65_535]], np.uint16)
    assert read(encoded(Image.fromarray(deep))).tolist() == deep.tolist()


def png_of_bits(values: list[list[int]], bits: int) -> bytes:
    """Encode grey values of 2 or 4 bits, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    rows = b""
    for row in values:
        digits = "".join(f"{value:0{bits}b}" for value in row)
        digits += "0" * (-len(digits) % 8)
        rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    header = struct.pack(">IIBBBBB", len(values[0]), len(values), bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


@pytest.mark.parametrize("bits", [2, 4])
def test_values_of_fewer_bits_than_8_are_not_scaled(bits: int) -> None:
    values = [[0, 1, 2, 3, 2], [2**bits - 1, 2, 1, 0, 3]]
    for coloured in (False, True):
        found = read(png_of_bits(values, bits), coloured)
        scale = 255 // (2**bits - 1) * 0x010101 if coloured else 1
        assert found.tolist() == (np.array(values) * scale).tolist()


def test_colours_are_packed_also_those_of_a_palette() -> None:
    colours = np.array([[[255, 0, 0], [0, 128, 7]]], np.uint8)
    expected = [[255 << 16, 128 << 8 | 7]]
    assert read(encoded(Image.fromarray(colours)), coloured=True).tolist() == expected
    palette = Image.fromarray(np.array([[0, 1]], np.uint8))
    palette.putpalette([255, 0, 0, 0, 128, 7])
    assert read(encoded(palette), coloured=True).tolist() == expected
    assert read(encoded(palette)).tolist() == [[0, 1]]


def test_what_cannot_hold_classes_is_refused_with_its_name() -> None:
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8))
    clear = Image.fromarray(np.zeros((4, 4, 4), np.uint8))
    floats = encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF")
    for data, what in (
        (encoded(colours), "class table with colours"),
        (encoded(colours, "JPEG"), "JPEG"),
        (encoded(clear), "transparent"),
        (floats, "mode F"),
        (encoded(colours)[:60], "cannot be read"),
        (b"", "cannot be read"),
        (encoded(Image.new("L", (200, 200))), "max_image_pixels"),
    ):
        with pytest.raises(DataError, match=what) as error:
            read(data, name="folder/map.png")
        assert str(error.value).startswith("folder/map.png:")


def test_formats_that_may_be_lossy_are_read_only_where_they_are_not() -> None:
    blocks = Image.fromarray(np.kron(VALUES, np.ones((16, 16), np.uint8)))
    expected = np.asarray(blocks).tolist()
    assert read(encoded(blocks, "WEBP", lossless=True)).tolist() == expected
    assert read(encoded(blocks, "TIFF", compression="tiff_lzw")).tolist() == expected
    lossy = {"WebP": encoded(blocks, "WEBP"), "TIFF": encoded(blocks, "TIFF", compression="jpeg")}
    lossy["WebP "] = encoded(blocks, "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0")
    for format, data in lossy.items():
        with pytest.raises(DataError, match=f"map.png: is a .*{format.strip()}.*, which changes"):
            read(data)


@pytest.mark.parametrize("format", ["TIFF", "GIF", "PNG", "WEBP"])
def test_a_file_of_several_maps_is_refused(format: str) -> None:
    first, second = Image.fromarray(VALUES), Image.fromarray(VALUES[::-1].copy())
    options = {"save_all": True, "append_images": [second], "lossless": True}
    with pytest.raises(DataError, match="holds several pictures of one size"):
        read(encoded(first, format, **options))


def test_an_overview_of_a_map_does_no_harm() -> None:
    first, overview = Image.fromarray(VALUES), Image.fromarray(VALUES[:1, :1].copy())
    data = encoded(first, "TIFF", save_all=True, append_images=[overview])
    assert read(data).tolist() == VALUES.tolist()


def test_exif_does_not_turn_a_map() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read(encoded(Image.fromarray(VALUES), exif=exif)).tolist() == VALUES.tolist()


def test_a_coding_translates_sparse_values_and_ignores_others() -> None:
    coding = Coding((1, 3, 2), (0, 1, 7), (0, 255))
    expected = [[IGNORED, 0, 7], [1, IGNORED, 0]]
    for kind in (np.uint8, np.int64):
        made = coding.encode(VALUES.astype(kind), "map.png")
        assert made.dtype == torch.int16 and made.tolist() == expected


def test_a_value_that_is_no_class_is_named_with_its_place() -> None:
    with pytest.raises(DataError, match=r"^map.png: holds the value 3 \(row 1, column 0\)"):
        Coding((0, 1, 2), (0, 1, 2)).encode(VALUES, "map.png")
    coloured = Coding((255 << 16,), (0,), (), coloured=True)
    with pytest.raises(DataError, match="the colour 0,128,7"):
        coloured.encode(np.array([[255 << 16, 128 << 8 | 7]]), "map.png")


def test_255_is_a_class_where_the_table_says_so() -> None:
    coding = Coding((0, 255), (0, 1), (255,))
    assert coding.encode(np.array([[0, 255]], np.uint8), "a").tolist() == [[0, 1]]
