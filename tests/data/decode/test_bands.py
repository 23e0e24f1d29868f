"""Images of any number of channels, from TIFF, PNG and .npy files."""

import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from convnextv2.data.decode import decode, open_picture
from convnextv2.errors import DataError, ImageSizeError, MissingPackageError

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")


def stack(bands: int, kind: type = np.uint8, size: tuple[int, int] = (21, 34)) -> np.ndarray:
    """(H, W, C), of the type's whole range."""
    generator = np.random.default_rng(bands)
    if kind is np.float32:
        return generator.uniform(-2, 3, (*size, bands)).astype(kind)
    return generator.integers(0, np.iinfo(kind).max + 1, (*size, bands)).astype(kind)


def tiff(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def interleaved(array: np.ndarray, **options: object) -> bytes:
    return tiff(array, photometric="minisblack", planarconfig="contig", **options)


def planar(array: np.ndarray, **options: object) -> bytes:
    first = array.transpose(2, 0, 1)
    return tiff(first, photometric="minisblack", planarconfig="separate", **options)


def pages(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for band in array.transpose(2, 0, 1):
            writer.write(band, photometric="minisblack", contiguous=False, **options)
    return file.getvalue()


def expected(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return (array / 257).round()
    return ((array - array.min()) / (array.max() - array.min()) * 255).round()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("bands", [2, 4, 5, 13])
@pytest.mark.parametrize("write", [interleaved, planar, pages, npy])
def test_bands_are_taken_as_they_are(write, bands, kind, read) -> None:
    array = stack(bands, kind)
    assert np.abs(read(write(array), bands) - expected(array)).max() <= 0.5001


@pytest.mark.parametrize(
    "options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 4}, {"bigtiff": True}]
)
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "packbits"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_however_a_tiff_is_laid_out(order, compression, options, read) -> None:
    array = stack(5, np.uint16)
    for write in (interleaved, planar):
        data = write(array, compression=compression, byteorder=order, **options)
        assert (read(data, 5) == (array / 257).round()).all()


def test_axes_of_an_array(read) -> None:
    array = stack(5)
    first = array.transpose(2, 0, 1)
    assert (read(npy(array), 5) == array).all()
    assert (read(npy(first), 5) == array).all()
    assert (read(npy(np.asfortranarray(array)), 5) == array).all()
    # If both axes could be the bands, the last one is taken.
    square = stack(5, size=(5, 7))
    assert (read(npy(square), 5) == square).all()


@pytest.mark.parametrize("write", [npy, tiff])
def test_one_and_three_channels_from_arrays(write, read, photograph) -> None:
    colours = np.asarray(photograph)
    luma = np.asarray(photograph.convert("L"))
    assert (read(write(colours)) == colours).all()
    assert (read(write(colours), 1)[..., 0] == luma).all()
    assert (read(write(luma)) == luma[..., None]).all()
    assert (read(write(luma), 1)[..., 0] == luma).all()


def test_colours_of_16_bits_and_floats_where_the_range_is_given(read) -> None:
    array = stack(3, np.uint16)
    data = tiff(array, photometric="rgb")
    given = ((array.clip(1000, 9000) - 1000.0) / 8000 * 255).round()
    assert (read(data, value_range=(1000, 9000)) == given).all()
    floats = stack(3, np.float32)
    shown = read(tiff(floats, photometric="rgb"), value_range=(-1, 1))
    assert np.abs(shown - (floats.clip(-1, 1) + 1) / 2 * 255).max() <= 0.5001
    assert np.abs(read(tiff(floats, photometric="rgb")) - expected(floats)).max() <= 0.5001


def test_a_range_is_that_of_all_bands_without_what_is_no_data(read) -> None:
    array = np.array([[[0.0, 100.0], [-9999.0, np.nan], [40.0, np.inf]]], np.float32)
    extra = [(42113, "s", 0, "-9999", True)]
    for data in (interleaved(array, extratags=extra), planar(array, extratags=extra)):
        assert read(data, 2).tolist() == [[[0, 255], [0, 0], [102, 255]]]


def test_orientation_of_a_stack(read) -> None:
    array = stack(5)
    data = interleaved(array, extratags=[(274, "H", 1, 6, True)])
    picture = open_picture(data, name="x", channels=5, max_pixels=10**6)
    assert (picture.height, picture.width) == (34, 21)
    assert (picture.decode().permute(1, 2, 0).numpy() == np.rot90(array, -1)).all()


def test_transparency_is_a_channel_where_four_are_asked_for(encoded, read) -> None:
    array = stack(4)
    assert (read(encoded(Image.fromarray(array), "png"), 4) == array).all()
    assert (read(encoded(Image.fromarray(array), "tiff"), 4) == array).all()
    grey = array[..., :2].copy()
    with_alpha = Image.merge("LA", [Image.fromarray(grey[..., i]) for i in (0, 1)])
    assert (read(encoded(with_alpha, "png"), 2) == grey).all()
    palette = Image.frombytes("P", array.shape[1::-1], array[..., 0].tobytes())
    palette.putpalette(bytes(range(256)) * 3)
    colours = np.array(palette.convert("RGBA"))
    colours[..., 3] = np.where(array[..., 0] == 7, 0, 255)
    assert (read(encoded(palette, "png", transparency=7), 4) == colours).all()


def test_all_16_bits_of_four_channels_of_a_png(read) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    array = stack(4, np.uint16)
    data = bytes(imagecodecs.png_encode(array))
    assert (read(data, 4) == (array / 257).round()).all()


@pytest.mark.parametrize(
    ("data", "channels", "message"),
    [
        (interleaved(stack(3)), 5, r"has 3 channels, expected 5 \(in_channels\)"),
        (pages(stack(3)), 5, "has 3 channels, expected 5"),
        (pages(stack(6)), 5, "has 6 channels, expected 5"),
        (npy(stack(4)), 5, "has 4 channels, expected 5"),
        (npy(stack(5)), 3, "has 5 channels, expected 3"),
        (npy(stack(1)[..., 0]), 5, "has 1 channel, expected 5"),
        (npy(stack(5)[None]), 5, "array of shape"),
        (npy(np.zeros((0, 4, 5))), 5, "array of shape"),
        (npy(stack(5).astype(np.complex64)), 5, "array of complex64"),
        (npy(np.array([["a"]])), 1, "array of <U1"),
        (npy(stack(5))[:-1785], 5, "is cut short: about 50 % of its values"),
        (npy(stack(5))[:40], 5, "is damaged or truncated"),
        (interleaved(stack(5))[:-1785], 5, "is damaged or truncated"),
        (planar(stack(5), compression="zlib")[:-100], 5, "is damaged or truncated"),
    ],
)
def test_what_does_not_fit_is_named(data, channels, message) -> None:
    with pytest.raises(DataError, match=rf"^x: .*{message}") as error:
        open_picture(data, name="x", channels=channels, max_pixels=10**6).decode()
    assert "\n" not in str(error.value)


def test_a_png_of_three_channels_does_not_do_for_five(photograph, encoded, read) -> None:
    for kind in ("png", "jpeg", "webp", "bmp", "gif"):
        with pytest.raises(DataError, match=r"has [13] channels?, expected 5 \(in_channels\)"):
            read(encoded(photograph, kind), 5)


def test_arrays_run_no_code() -> None:
    file = io.BytesIO()
    np.save(file, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="object"):
        open_picture(file.getvalue(), name="x", max_pixels=10**6)


def test_limits_of_stacks(read) -> None:
    wide = {"max_pixels": 1000}
    for data in (npy(stack(5)), interleaved(stack(5)), pages(stack(5))):
        assert read(data, 5, max_pixels=21 * 34 * 2).shape == (21, 34, 5)
        with pytest.raises(ImageSizeError, match="3570 values, more than 3 . max_image_pixels"):
            read(data, 5, **wide)
    header = npy(np.zeros((1, 1), np.float64)).replace(b"(1, 1)", b"(99999, 99999)")
    with pytest.raises(ImageSizeError, match="99999 x 99999"):
        read(header, 1)
    tiled = interleaved(stack(5), tile=(2048, 2048), compression="zlib")
    with pytest.raises(ImageSizeError, match="states 34 x 21 px, but its tiles of 2048 x 2048 px"):
        read(tiled, 5, max_pixels=10**6)


def test_pages_must_be_alike_and_previews_do_not_count(read) -> None:
    array = stack(3)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for band in array.transpose(2, 0, 1)[:2]:
            writer.write(band, contiguous=False)
        writer.write(array[::2, ::2, 0].copy(), subfiletype=1, contiguous=False)
    assert (read(file.getvalue(), 2) == array[..., :2]).all()
    with tifffile.TiffWriter(file := io.BytesIO()) as writer:
        writer.write(array[..., 0].copy(), contiguous=False)
        writer.write(array[::2, :, 0].copy(), contiguous=False)
    with pytest.raises(DataError, match="page 2 is 34 x 11 px of uint8, but the first 34 x 21"):
        read(file.getvalue(), 2)


def test_what_to_install_is_said(monkeypatch, read) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(MissingPackageError, match=r"pip install .*tifffile.*\[bands\]"):
        read(interleaved(stack(5)), 5)


def test_a_tiff_of_colours_is_its_first_page(photograph, read) -> None:
    """Pages are not taken for bands unless another number of channels is asked for."""
    file = io.BytesIO()
    photograph.save(file, "tiff", save_all=True, append_images=[photograph.rotate(90)])
    assert (read(file.getvalue()) == np.asarray(photograph)).all()


def test_bits_that_cannot_be_read_are_damage() -> None:
    """tifffile takes an entry that points nowhere for absent, and the pixels for one bit each."""
    file = io.BytesIO()
    tifffile.imwrite(
        file, np.zeros((8, 8, 5), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    data = bytearray(file.getvalue())
    at = data.index(struct.pack("<HHI", 258, 3, 5))  # BitsPerSample, five numbers, where they lie
    data[at + 8 : at + 12] = struct.pack("<I", len(data) - 2)
    with pytest.raises(DataError, match="the number of bits per value|is damaged"):
        decode(bytes(data), name="x", channels=5, max_pixels=10**6)
