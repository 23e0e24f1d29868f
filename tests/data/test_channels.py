"""Images of any number of channels: each channel fares as it would alone, as a grey image."""

from functools import partial

import numpy as np
import pytest
import torch
from fields import field, save_tiff
from PIL import Image

from convnextv2.data.auto_augment import build_policy
from convnextv2.data.auto_augment.operations import OPERATIONS, Canvas
from convnextv2.data.build_transforms import build_batch_transform, build_train_transform
from convnextv2.data.cache import DecodedCache
from convnextv2.data.loader import EvaluationLoader, TrainingLoader, build_training_loader
from convnextv2.data.mixup import Erasing, Mixing
from convnextv2.data.randomness import generator_for
from convnextv2.data.resize import resize
from convnextv2.data.sampler import EpochSampler
from convnextv2.data.source import Source
from convnextv2.data.transforms import BatchTransform, EvalTransform, TrainTransform, color_jitter
from convnextv2.distributed import Place
from convnextv2.errors import MissingPackageError, RecipeError
from convnextv2.kernels import choice
from convnextv2.kernels import pixels as native
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe

COUNTS = (2, 4, 5, 13)
POLICIES = ("randaug-m9-mstd0.5-inc1", "rand-m7-n3-w0", "augmix-m5", "trivialaugwide")


def image(channels: int, height: int = 75, width: int = 90, seed: int = 0) -> torch.Tensor:
    """uint8 (C, H, W) of slopes, waves and noise, in the channels-last memory of decoders."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [
        np.sin(x * draw.uniform(0.02, 0.9)) * np.cos(y * draw.uniform(0.02, 0.7))
        for _ in range(channels)
    ]
    levels = (
        120
        + 90 * np.stack(waves, -1)
        + draw.normal(0, 12, (height, width, channels))
        + x[..., None] * 0.2
    )
    return torch.from_numpy(levels.clip(0, 255).astype(np.uint8)).permute(2, 0, 1)


def apart(change, pixels: torch.Tensor) -> torch.Tensor:
    """The same change of each channel alone."""
    return torch.cat([change(band[None].contiguous(), i) for i, band in enumerate(pixels)])


@pytest.mark.parametrize("channels", COUNTS)
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "area"])
def test_resizing_treats_each_channel_as_alone(channels, interpolation, antialias):
    pixels = image(channels)
    for size in ((32, 40), (100, 130)):
        resized = resize(pixels, size, interpolation, antialias=antialias)
        assert resized.shape == (channels, *size) and resized.dtype == torch.uint8
        alone = partial(resize, size=size, interpolation=interpolation, antialias=antialias)
        expected = apart(lambda band, _, alone=alone: alone(band), pixels)
        # PyTorch's path for several channels adds in another order, which may round otherwise.
        assert (resized.int() - expected.int()).abs().max() <= 1 and (
            resized != expected
        ).float().mean() < 0.001


@pytest.mark.parametrize("channels", COUNTS)
def test_resizing_equals_pillows_band_by_band(channels):
    pixels = image(channels)
    for name, filter in (
        ("bilinear", Image.Resampling.BILINEAR),
        ("bicubic", Image.Resampling.BICUBIC),
    ):
        expected = np.stack(
            [np.asarray(Image.fromarray(band.numpy()).resize((40, 32), filter)) for band in pixels]
        )
        difference = np.abs(resize(pixels, (32, 40), name).numpy().astype(int) - expected)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.02


@pytest.mark.parametrize("channels", COUNTS)
@pytest.mark.parametrize("preset", ["timm", "official", "mindcv"])
def test_evaluation_prepares_each_channel_as_alone(channels, preset):
    pixels = image(channels)
    transform = EvalTransform(
        Preprocessing((48, 40), channels=channels, eval_preset=preset, interpolation="bilinear")
    )
    prepared, expected = transform(pixels), apart(lambda band, _: transform(band), pixels)
    assert (
        prepared.shape == (channels, 48, 40) and (prepared.int() - expected.int()).abs().max() <= 1
    )
    assert (prepared != expected).float().mean() < 0.001


@pytest.mark.parametrize("channels", COUNTS)
@pytest.mark.parametrize(
    "how",
    [{}, {"padding": 5}, {"vflip": 0.5, "interpolation": "lanczos"}, {"jitter": (0.5, 0.4, 0, 0)}],
)
def test_training_crops_flips_and_jitters_each_channel_as_alone(channels, how):
    pixels = image(channels)
    transform = TrainTransform((32, 32), **{"interpolation": "bilinear"} | how)
    for i in range(6):
        changed = transform(pixels, generator_for("test", i))
        expected = apart(lambda band, _, i=i: transform(band, generator_for("test", i)), pixels)
        assert changed.shape == (channels, 32, 32) and torch.equal(changed, expected)


@pytest.mark.parametrize("channels", COUNTS)
@pytest.mark.parametrize("factor", [0.3, 1.7])
def test_brightness_and_contrast_are_numpys(channels, factor, monkeypatch):
    monkeypatch.setattr("convnextv2.data.transforms.uniform", lambda *_: factor)
    pixels = image(channels)
    levels = pixels.numpy().astype(float)
    mean = levels.mean((1, 2), keepdims=True)  # the channel's own, not that of all
    expected = {
        (0.9, 0.0, 0.0, 0.0): levels * factor,
        (0.0, 0.9, 0.0, 0.0): mean + (levels - mean) * factor,
    }
    for strengths, values in expected.items():
        changed = color_jitter(pixels, strengths, generator_for(3)).numpy()
        assert (
            np.abs(changed - values.clip(0, 255)).max() <= 1
        )  # cut off, not rounded, as torchvision does


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("channels", COUNTS)
@pytest.mark.parametrize("text", POLICIES)
def test_policies_act_on_each_channel_as_on_a_grey_image(channels, text, plain, monkeypatch):
    if plain:
        monkeypatch.setattr(native, "can_take_pixels", lambda: False)
    pixels, fill = image(channels), tuple(range(10, 10 + 7 * channels, 7))
    policy = build_policy(text, fill=fill, interpolation="bilinear")
    # A policy for grey images that draws from the same operations, as it has no colours to change.
    alone = [
        build_policy(text, fill=(level, level), interpolation="bilinear").transforms[0]
        for level in fill
    ]
    changes = 0
    for i in range(8):
        generator = generator_for("policy", i)
        changed = policy(pixels, generator)
        assert torch.equal(
            changed, apart(lambda band, c, i=i: alone[c](band, generator_for("policy", i)), pixels)
        )
        after = generator_for("policy", i)
        alone[0](pixels[:1], after)
        assert torch.equal(
            generator.get_state(), after.get_state()
        )  # as many draws as for one channel
        changes += not torch.equal(changed, pixels)
    assert changes >= 4


@pytest.mark.parametrize("text", POLICIES)
def test_a_channel_of_a_policy_shows_what_pillow_makes_of_it(text, monkeypatch):
    applied = []
    for name, operation in OPERATIONS.items():

        def recording(image, value, canvas, name=name, operation=operation):
            applied.append((name, value, canvas.fill, image.mode))
            return operation(image, value, canvas)

        monkeypatch.setitem(OPERATIONS, name, recording)
    policy = build_policy(text, fill=(1, 2, 3, 4))
    for i in range(60):
        policy(image(4), generator_for(i))
    assert {mode for *_, mode in applied} == {"L"} and {fill for _, _, fill, _ in applied} == {
        (1,),
        (2,),
        (3,),
        (4,),
    }
    assert len({name for name, *_ in applied}) >= 8 and "Color" not in {
        name for name, *_ in applied
    }


def test_a_moved_band_is_filled_with_its_own_level():
    levels = (50, 100, 150, 200)
    canvases = [
        transform.policy.canvas for transform in build_policy("rand-m10", fill=levels).transforms
    ]
    assert canvases == [Canvas((level,), Image.Resampling.BICUBIC) for level in levels]


def test_weighted_choice_without_colour_has_one_operation_less():
    build_policy("rand-n13-w0", fill=(1, 2, 3))
    build_policy("rand-n12-w0", fill=(1, 2))(image(2), generator_for(0))
    with pytest.raises(RecipeError, match="Use n12"):
        build_policy("rand-n13-w0", fill=(1, 2))


@pytest.mark.parametrize("kernels", ["native", "plain"])
@pytest.mark.parametrize("channels", COUNTS)
def test_normalisation_erasing_and_mixing_of_many_channels(channels, kernels):
    choice.choose(kernels)
    try:
        pixels = torch.stack([image(channels, 32, 32, seed) for seed in range(4)])
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        mean, std = (
            torch.linspace(0.2, 0.7, channels).tolist(),
            torch.linspace(0.1, 0.3, channels).tolist(),
        )
        images = BatchTransform(tuple(mean), tuple(std)).normalise(pixels)
        expected = (pixels.double() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[
            :, None, None
        ]
        assert torch.allclose(images.double(), expected, atol=1e-5)
    finally:
        choice.choose("auto")
    values = tuple(float(i) for i in range(channels))
    erased = Erasing(1.0, value=values)(images.clone(), generator_for(1))
    changed = (erased != images).any(1)
    assert 0.02 < changed.float().mean() < 0.6
    for c in range(channels):
        assert (erased[:, c][changed] == c).all()
    mixed, _ = Mixing(mixup=0.8)(images, torch.arange(4), 4, generator_for(2))
    alone = [
        Mixing(mixup=0.8)(images[:, c : c + 1], torch.arange(4), 4, generator_for(2))[0]
        for c in range(channels)
    ]
    assert torch.equal(mixed, torch.cat(alone, 1))
    cut, _ = Mixing(cutmix=1.0)(images, torch.arange(4), 4, generator_for(2))
    alone = [
        Mixing(cutmix=1.0)(images[:, c : c + 1], torch.arange(4), 4, generator_for(2))[0]
        for c in range(channels)
    ]
    assert torch.equal(cut, torch.cat(alone, 1))


class Arrays(Source):
    """Images of several channels that are there already."""

    def picture(self, index, channels=3, value_range=None):
        return image(channels, 40 + index, 50, index)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("channels", COUNTS)
def test_batches_and_the_cache_hold_any_number_of_channels(channels, workers):
    source = Arrays([str(i) for i in range(5)])
    transform = EvalTransform(Preprocessing((32, 32), channels=channels))
    batch = next(
        iter(EvaluationLoader(source, transform, batch_size=5, channels=channels, workers=workers))
    )
    assert batch.pixels.shape == (5, channels, 32, 32) and batch.pixels.is_contiguous(
        memory_format=torch.channels_last
    )
    assert all(
        torch.equal(batch.pixels[i], transform(source.picture(i, channels))) for i in range(5)
    )

    cache = DecodedCache(5, 1)
    for _ in range(2):
        sampler = EpochSampler(5, 5, seed=1)
        loader = TrainingLoader(
            source,
            TrainTransform((32, 32)),
            sampler,
            channels=channels,
            workers=workers,
            cache=cache,
        )
        found = next(iter(loader.batches(0)))
        bare = TrainingLoader(
            source, TrainTransform((32, 32)), EpochSampler(5, 5, seed=1), channels=channels
        )
        assert torch.equal(found.pixels, next(iter(bare.batches(0))).pixels)
    assert all(torch.equal(cache.get(i), source.picture(i, channels)) for i in range(5))


def test_the_recipe_builds_transforms_for_many_channels():
    five = {
        "in_channels": 5,
        "mean": (0.1, 0.2, 0.3, 0.4, 0.5),
        "std": (0.1,) * 5,
        "image_size": 32,
        "data_dir": "d",
    }
    recipe = Recipe(
        **five, auto_augment="randaug-m9", erase_prob=1.0, erase_value=(1.0, 2.0, 3.0, 4.0, 5.0)
    )
    changed = build_train_transform(recipe)(image(5), generator_for(0))
    assert changed.shape == (5, 32, 32)
    images, _ = build_batch_transform(recipe, 3)(changed[None], torch.tensor([1]), generator_for(0))
    assert images.shape == (1, 5, 32, 32)
    assert build_train_transform(Recipe(**five, color_jitter=(0.4, 0.4, 0.0)))(
        image(5), generator_for(0)
    ).shape == (5, 32, 32)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_package_stops_the_loader_in_one_line_and_is_never_skipped(
    workers, tmp_path, monkeypatch
):
    save_tiff(tmp_path / "a.tif", field(0, 0))

    def missing():
        raise MissingPackageError("tifffile", "bands")

    monkeypatch.setattr("convnextv2.data.decode.stacks._tifffile", missing)
    transform = EvalTransform(Preprocessing((32, 32), channels=5))
    how = {"batch_size": 1, "channels": 5, "workers": workers, "bad_images": "skip"}
    loader = EvaluationLoader(Source([str(tmp_path / "a.tif")]), transform, **how)
    with pytest.raises(MissingPackageError, match=r"tifffile is not installed.*'\.\[bands\]'"):
        list(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_range_of_values_reaches_every_loader(workers, tmp_path):
    values = field(0, 0, side=32)[:, :32]
    save_tiff(tmp_path / "a.tif", values)
    source = Source([str(tmp_path / "a.tif")])
    expected = (
        (values.astype(float) * (255 / 4000))
        .round()
        .clip(0, 255)
        .astype(np.uint8)
        .transpose(2, 0, 1)
    )
    transform = EvalTransform(
        Preprocessing((32, 32), channels=5, crop_pct=1.0, value_range=(0.0, 4000.0))
    )
    batch = next(
        iter(EvaluationLoader(source, transform, batch_size=1, channels=5, workers=workers))
    )
    assert np.array_equal(batch.pixels[0], expected)
    recipe = Recipe(
        data_dir="d", in_channels=5, mean=(0.5,), std=(0.2,), value_range=(0.0, 4000.0),
        image_size=32, batch_size=1, workers=workers, scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0,
    )  # fmt: skip
    for cache_mb in (0, 1):
        loader = build_training_loader(
            recipe.model_copy(update={"cache_mb": cache_mb}), source, Place(torch.device("cpu"))
        )
        assert np.array_equal(next(iter(loader.batches(0))).pixels[0], expected)
