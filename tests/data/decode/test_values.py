"""Values of more than 8 bits become pixels by one rule; what is not finite never spreads."""

import io

import numpy as np
import pytest
from PIL import Image

from convnextv2.data.decode import from_pillow
from convnextv2.errors import DataError

NAN, INF = float("nan"), float("inf")
NO_DATA = 42113


def tiff(values: np.ndarray, no_data: str | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    info = {NO_DATA: no_data} if no_data is not None else {}
    Image.fromarray(values).save(file, "tiff", tiffinfo=info, **options)
    return file.getvalue()


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.mark.parametrize("write", [tiff, npy])
@pytest.mark.parametrize(
    ("values", "pixels"),
    [
        ([[0.0, 0.5, 1.0, NAN]], [[0, 128, 255, 0]]),
        ([[10.0, 20.0, 30.0, NAN]], [[0, 128, 255, 0]]),
        ([[-1.0, 1.0, INF, -INF]], [[0, 255, 255, 0]]),
        ([[0.25, 0.75, INF, NAN]], [[64, 191, 255, 0]]),  # within 0 to 1: that is the range
        ([[7.0, 7.0, 7.0, NAN]], [[0, 0, 0, 0]]),
    ],
)
def test_what_is_not_finite_leaves_the_rest_alone(write, values, pixels, read) -> None:
    found = read(write(np.array(values, np.float32)), 1)[..., 0]
    assert found.tolist() == pixels
    assert (read(write(np.array(values, np.float32)))[..., 2] == found).all()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("text", ["-9999", "-9999.0", " -9999 "])
def test_no_data_is_black_and_no_end_of_the_range(compression, text, read) -> None:
    values = np.array([[-9999, 100, 140, 200]], np.float32)
    assert read(tiff(values, text, compression=compression), 1).ravel().tolist() == [0, 0, 102, 255]
    assert read(tiff(values, None), 1).ravel().tolist() == [0, 252, 253, 255]


def test_no_data_of_whole_numbers(read) -> None:
    assert read(tiff(np.array([[65535, 257, 0]], np.uint16), "65535"), 1).ravel().tolist() == [
        0,
        1,
        0,
    ]
    assert read(tiff(np.array([[-9, 100_000, 300_000]], np.int32), "-9"), 1).ravel().tolist() == [
        0,
        0,
        255,
    ]


def test_largest_negative_float_as_no_data(read) -> None:
    lowest = np.finfo(np.float32).min
    values = np.array([[lowest, 2, 4]], np.float32)
    assert read(tiff(values, repr(float(lowest))), 1).ravel().tolist() == [0, 0, 255]
    assert read(tiff(values, "-3.4028234663852886e+38"), 1).ravel().tolist() == [0, 0, 255]


def test_no_data_that_is_no_number_is_passed_over(read) -> None:
    values = np.array([[0, 2, 4]], np.float32)
    assert read(tiff(values, "none"), 1).ravel().tolist() == [0, 128, 255]
    assert read(tiff(np.array([[NAN, 2, 4]], np.float32), "nan"), 1).ravel().tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("values", "no_data"), [([[NAN, INF]], None), ([[-9999.0, NAN]], "-9999"), ([[5.0]], "5")]
)
def test_an_image_without_a_finite_value_is_refused(values, no_data, read) -> None:
    with pytest.raises(DataError, match="^x: has no finite value"):
        read(tiff(np.array(values, np.float32), no_data))


def test_the_range_is_that_of_the_whole_image_not_of_a_strip(read) -> None:
    values = np.zeros((3000, 1000), np.float32)
    values[0, 0], values[-1, -1], values[1500] = -5, 5, NAN
    found = read(tiff(values), 1)[..., 0]
    assert (found[0, 0], found[-1, -1], found[10, 10], found[1500].max()) == (0, 255, 128, 0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("write", [tiff, npy])
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_a_given_range_counts_for_every_image(kind, write, channels, read) -> None:
    for values in ([[0, 1000, 2000, 3000, 4000]], [[0, 0, 2000, 3500, 9000]]):
        expected = [[round(min(max((v - 1000) / 2000, 0), 1) * 255) for v in values[0]]]
        found = read(write(np.array(values, kind)), channels, value_range=(1000, 3000))
        assert found[..., -1].tolist() == expected


def test_a_given_range_leaves_8_bits_alone(photograph, encoded, read) -> None:
    for kind in ("png", "tiff", "bmp"):
        found = read(encoded(photograph, kind), value_range=(0, 10))
        assert (found == np.asarray(photograph)).all()


def test_whole_numbers_of_32_bits_without_a_sign(read) -> None:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, np.array([[0, 2**31, 2**32 - 1]], np.uint32))
    assert read(file.getvalue(), 1).ravel().tolist() == [0, 128, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_all_16_bits_of_a_png_of_colours_count_where_a_range_is_given(channels, read) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    values = np.random.default_rng(0).integers(0, 5000, (9, 7, 3)).astype(np.uint16)
    data = bytes(imagecodecs.png_encode(values))
    expected = (values.clip(1000, 4000) - 1000.0) / 3000 * 255
    if channels == 1:
        expected = expected @ [[0.299], [0.587], [0.114]]
    found = read(data, channels, value_range=(1000, 4000))
    assert np.abs(found - expected).max() <= 1
    # Without one, as Pillow does: the upper 8 bits.
    assert (read(data) == values >> 8).all()


@pytest.mark.parametrize("most", [255, 1000, 4095, 65535])
@pytest.mark.parametrize("bands", [1, 3])
def test_pnm_of_any_range(most, bands, read) -> None:
    values = np.random.default_rng(0).integers(0, most + 1, (11, 13, bands))
    head = f"P{5 if bands == 1 else 6}\n13 11\n{most}\n".encode()
    data = head + values.astype(">u2" if most > 255 else "u1").tobytes()
    oracle = np.asarray(Image.open(io.BytesIO(data))).reshape(values.shape)
    expected = (oracle / 257).round() if bands == 1 and most > 255 else oracle
    assert (read(data) == expected).all()
    if most == 4095:
        given = read(data, bands, value_range=(0, 4095))
        assert np.abs(given - values / 4095 * 255).max() <= 0.5001
    with pytest.raises(DataError, match="truncated"):
        read(data[:-5])


MODES = "1 L P RGB RGBA CMYK YCbCr LAB HSV I F LA PA RGBX RGBa La I;16 I;16L I;16B".split()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_is_converted(mode, channels) -> None:
    grey = Image.new("L", (5, 4), 200)
    if mode == "LAB":
        image = Image.new("LAB", (5, 4), (204, 128, 128))  # L* = 80: grey of 198 in sRGB
    elif mode in ("La", "RGBa"):
        image = grey.convert(mode[:-1].upper() + "A").convert(mode)
    elif mode == "PA":
        image = grey.convert("P").convert("PA")
    elif mode in ("RGBX", "HSV", "YCbCr", "CMYK"):
        image = grey.convert("RGB").convert(mode)
    elif mode.startswith("I;"):
        image = Image.new(mode, (5, 4), 200 * 257)
    elif mode == "I":
        image = Image.new("I", (5, 4), 200 * 257)
    elif mode == "F":
        image = Image.new("F", (5, 4), 200 / 255)
    else:
        image = (grey if mode != "1" else Image.new("L", (5, 4), 255)).convert(mode)
    assert image.mode == mode
    found = from_pillow(image, channels)
    expected = 255 if mode == "1" else 200
    assert found.shape == (channels, 4, 5)
    assert int((found.int() - expected).abs().max()) <= (3 if mode == "LAB" else 1)


def test_a_tiff_of_lab_gives_colours_and_luma(photograph, read) -> None:
    from PIL import ImageCms

    profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    lab = ImageCms.applyTransform(photograph, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    file = io.BytesIO()
    lab.save(file, "tiff")
    assert np.abs(read(file.getvalue()).astype(int) - np.asarray(photograph)).mean() < 3
    luma = np.asarray(photograph.convert("L")).astype(int)
    assert np.abs(read(file.getvalue(), 1)[..., 0] - luma).mean() < 3
