"""Statistics against NumPy's, over all values at once."""

import json

import numpy as np
import pytest
from fields import field, save_tiff, write_fields
from PIL import Image

from convnextv2.cli import main
from convnextv2.data.folders import unlabelled
from convnextv2.data.source import Source
from convnextv2.data.statistics import measure
from convnextv2.errors import DataError, MissingPackageError, RecipeError, StorageError
from convnextv2.recipe.read import read_recipe
from convnextv2.verbs.statistics import statistics


def as_pixels(values, low, high):
    """Levels by the rule of the decoder, in float64."""
    return ((values.astype(np.float64) - low) * (255 / (high - low))).round().clip(0, 255)


def save_all(folder, arrays):
    for i, array in enumerate(arrays):
        np.save(folder / f"{i:03}.npy", array)
    return unlabelled(folder)


def assert_levels(found, pixels):
    """pixels: (values, C), of all images."""
    assert found.mean == pytest.approx(pixels.mean(0) / 255, abs=1e-12)
    assert found.std == pytest.approx(pixels.std(0) / 255, abs=1e-9)


@pytest.mark.parametrize("ending", ["npy", "tif"])
@pytest.mark.parametrize("workers", [0, 2])
def test_deep_values_are_numpys(tmp_path, ending, workers):
    root = write_fields(tmp_path / "fields", ending, train=3, val=0) / "train"
    every = np.concatenate([field(kind, i).reshape(-1, 5) for kind in range(3) for i in range(3)])
    found = measure(unlabelled(root), 5, workers=workers)
    assert (found.tally.images, found.tally.kinds, found.tally.bands) == (9, {"uint16": 9}, {5: 9})
    assert found.tally.sizes == [(40, 46)] * 9 and found.is_exact
    for share, values in ((0.001, found.low), (0.999, found.high)):
        assert values == tuple(np.quantile(every, share, axis=0, method="inverted_cdf"))
    assert np.array_equal(found.tally.low, every.min(0)) and np.array_equal(
        found.tally.high, every.max(0)
    )
    low, high = found.value_range
    assert (low, high) == (min(found.low), max(found.high))
    assert_levels(found, as_pixels(every, low, high))

    given = measure(unlabelled(root), 5, value_range=(100, 5000), workers=workers)
    assert given.value_range == (100, 5000) and given.low == found.low
    assert_levels(given, as_pixels(every, 100, 5000))


@pytest.mark.parametrize("dtype", [np.int16, np.int8, np.int32, np.float32, np.float64])
def test_values_of_every_type_are_numpys(tmp_path, dtype):
    draw = np.random.default_rng(3)
    arrays = [draw.normal(-20, 30, (20 + i, 30, 2)).clip(-128, 127).astype(dtype) for i in range(5)]
    every = np.concatenate([array.reshape(-1, 2) for array in arrays])
    found = measure(save_all(tmp_path, arrays), 2)
    assert found.is_exact == (np.dtype(dtype).itemsize <= 2)
    exact = [np.quantile(every, share, axis=0, method="inverted_cdf") for share in (0.001, 0.999)]
    for values, expected in zip((found.low, found.high), exact, strict=True):
        assert values == pytest.approx(expected, rel=0 if found.is_exact else 0.004)
    assert np.array_equal(found.tally.low, every.min(0)) and np.array_equal(
        found.tally.high, every.max(0)
    )
    assert_levels(found, as_pixels(every, *found.value_range))


def test_images_of_8_bits_are_taken_as_they_are(tmp_path):
    draw = np.random.default_rng(0)
    every = []
    for i in range(4):
        pixels = draw.integers(0, 256, (10 + i, 20, 4)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        every.append(pixels.reshape(-1, 4))
    found = measure(unlabelled(tmp_path), 4)
    assert found.value_range is None and found.low == () and found.tally.deep == 0
    assert_levels(found, np.concatenate(every).astype(float))
    assert found.tally.sizes == [(10 + i, 20) for i in range(4)]


def test_nan_no_data_and_infinities_are_counted_and_are_black_or_white(tmp_path):
    values = np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 15, 2)
    values[0, :3] = np.nan
    values[1, 0], values[1, 1] = np.inf, -np.inf
    np.save(tmp_path / "a.npy", values)
    found = measure(unlabelled(tmp_path), 2, value_range=(-1, 1))
    assert found.tally.empty.tolist() == [3, 3] and found.tally.infinite.tolist() == [2, 2]
    assert found.tally.high.tolist() == [np.nanmax(values[2:, :, c]) for c in (0, 1)]
    levels = as_pixels(np.nan_to_num(values, nan=-1), -1, 1).reshape(-1, 2)
    assert_levels(found, levels)

    whole = field(0, 0)
    whole[:4] = 0
    (tmp_path / "b").mkdir()
    save_tiff(tmp_path / "b" / "b.tif", whole, extratags=[(42113, "s", 0, "0", True)])
    found = measure(unlabelled(tmp_path / "b"), 5)
    assert found.tally.empty.tolist() == [4 * 46] * 5
    counted = whole[4:].reshape(-1, 5)
    assert np.array_equal(found.tally.low, counted.min(0))
    assert_levels(
        found, np.concatenate([as_pixels(counted, *found.value_range), np.zeros((4 * 46, 5))])
    )


def test_files_of_other_bands_and_damaged_ones_are_left_out_and_counted(tmp_path):
    save_all(tmp_path, [np.full((8, 8, 5), 9, np.uint8), np.full((8, 8, 4), 200, np.uint8)])
    (tmp_path / "damaged.tif").write_bytes(b"II*\0nothing")
    found = measure(unlabelled(tmp_path), 5)
    assert (found.tally.images, found.tally.bands) == (1, {5: 1, 4: 1})
    assert "001.npy: has 4 channels, expected 5" in found.tally.wrong_bands[0]
    assert "damaged.tif" in found.tally.unreadable[0] and found.mean == pytest.approx([9 / 255] * 5)
    with pytest.raises(DataError, match="none of the 3 images can be measured"):
        measure(unlabelled(tmp_path), 7)


def test_grey_and_rgb_of_16_bits_are_measured_for_each_other(tmp_path):
    grey = np.random.default_rng(0).integers(0, 5000, (12, 9)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    found = measure(unlabelled(tmp_path), 3)
    assert found.low == (np.quantile(grey, 0.001, method="inverted_cdf"),) * 3
    assert_levels(found, np.repeat(as_pixels(grey, *found.value_range).reshape(-1, 1), 3, axis=1))

    (tmp_path / "rgb").mkdir()
    colours = np.random.default_rng(0).integers(0, 5000, (12, 9, 3)).astype(np.uint16)
    save_tiff(tmp_path / "rgb" / "a.tif", colours)
    found = measure(
        unlabelled(tmp_path / "rgb"), 1
    )  # luma is mixed of the levels, so it is measured apart
    levels = as_pixels(colours, *found.value_range) @ [0.299, 0.587, 0.114]
    assert found.mean[0] == pytest.approx(levels.mean() / 255, abs=0.5 / 255)


def test_images_that_are_in_memory_are_measured():
    arrays = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    found = measure(Source([str(i) for i in range(5)], arrays=arrays), 3)
    assert_levels(found, arrays.reshape(-1, 3).astype(float))


def test_a_missing_package_is_one_line_also_from_a_worker(tmp_path, monkeypatch):
    root = write_fields(tmp_path / "fields", "tif", train=2, val=0)

    def missing():
        raise MissingPackageError("tifffile", "bands")

    monkeypatch.setattr("convnextv2.data.decode.stacks._tifffile", missing)
    for workers in (0, 2):
        with pytest.raises(MissingPackageError, match=r"tifffile is not installed.*'\.\[bands\]'"):
            measure(unlabelled(root), 5, workers=workers)


def test_the_verb_prints_what_a_recipe_takes(tmp_path, capsys):
    root = write_fields(tmp_path / "fields", "npy")
    found = statistics(root)
    printed = capsys.readouterr()
    assert "in_channels 5, as" in printed.err and "12 of 12 training images" in printed.out
    recipe_lines = printed.out[printed.out.index("# for a recipe") :]
    (tmp_path / "mine.yaml").write_text(f"data_dir: {root}\n{recipe_lines}")
    recipe, _ = read_recipe({}, config=tmp_path / "mine.yaml")
    assert recipe.in_channels == 5 and recipe.value_range == tuple(found["value_range"])
    assert recipe.mean == pytest.approx(found["mean"], rel=1e-3) and recipe.std == pytest.approx(
        found["std"], rel=1e-3
    )
    assert "measured on 12 images" in recipe_lines  # of train/ alone


def test_the_verb_writes_json_and_takes_a_sample(tmp_path, capsys):
    root = write_fields(tmp_path / "fields", "npy", train=3, val=0)
    options = ["--in_channels", "5", "--value_range", "0,4000", "--max_images", "4", "--json"]
    assert main(["statistics", str(root), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["in_channels"], found["value_range"]) == (4, 5, [0, 4000])
    assert found["width"] == {"min": 46, "median": 46.0, "max": 46} and found["bands"] == {"5": 4}
    for wrong in (
        {"in_channels": 0},
        {"in_channels": "many"},
        {"max_images": 0},
        {"value_range": "9,1"},
    ):
        with pytest.raises(RecipeError):
            statistics(root, **wrong)


def test_a_channel_that_never_varies_gets_a_deviation_that_a_recipe_takes(tmp_path, capsys):
    save_all(
        tmp_path, [np.stack([np.full((8, 8), 7), np.arange(64).reshape(8, 8)], -1).astype(np.uint8)]
    )
    statistics(tmp_path)
    assert "# std is set to 1 for constant channels: 1" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_that_is_away_is_not_taken_for_bad_images(tmp_path, workers):
    (tmp_path / "a").mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / "a" / f"{i}.png")
    source = unlabelled(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(StorageError, match=r"^\S+0\.png: is out of reach"):
        measure(source, 3, workers=workers)
