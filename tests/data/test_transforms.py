from pathlib import Path

import numpy as np
import pytest
import timm.data
import torch
from levels import as_image, as_pixels, assert_within_a_level
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import ColorJitter, RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from convnextv2.data.build_transforms import (
    build_batch_transform,
    build_train_transform,
)
from convnextv2.data.decode import decode
from convnextv2.data.randomness import generator_for
from convnextv2.data.transforms import (
    BatchTransform,
    EvalTransform,
    TrainTransform,
    color_jitter,
    crop_box,
)
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe

FIXTURES = Path(__file__).parents[1] / "fixtures" / "mindcv"


def cubic_without_antialias(row, length, a=-0.75):
    """Cubic convolution of one row of numbers from its definition, edges repeated."""
    out = []
    for i in range(length):
        centre = (i + 0.5) * len(row) / length - 0.5
        total = 0.0
        for j in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            d = abs(centre - j)
            inner, outer = (
                (a + 2) * d**3 - (a + 3) * d**2 + 1,
                a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a,
            )
            total += (inner if d <= 1 else outer if d < 2 else 0.0) * row[
                min(max(j, 0), len(row) - 1)
            ]
        out.append(total)
    return out


def test_mindcv_preset_resizes_without_antialias_and_rounds_offsets_down(picture):
    # Rows of one colour, so one dimension tells all: 150 rows become floor(64 / 0.95) = 67, of
    # which 64 stay, from 3 // 2 on.
    column = picture[0, :, 130].double()
    pixels = column.round().to(torch.uint8)[None, :, None].expand(3, 150, 200).contiguous()
    expected = np.clip(np.round(cubic_without_antialias(column.tolist(), 67)), 0, 255)[1:65]
    prepared = EvalTransform(Preprocessing((64, 64), eval_preset="mindcv", crop_pct=0.95))(pixels)
    assert np.abs(prepared[0, :, 5].numpy() - expected).max() <= 1
    assert (
        np.abs(
            EvalTransform(Preprocessing((64, 64), crop_pct=0.95))(pixels)[0, :, 5].numpy()
            - expected
        ).max()
        > 10
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tiny_recipe", {"interpolation": "bicubic", "crop_pct": 0.95}),
        ("default", {"interpolation": "bilinear", "crop_pct": 0.875}),
    ],
)
def test_mindcvs_published_preprocessing_within_one_level_at_every_pixel(name, settings):
    pixels = decode((FIXTURES / "eval_sample.jpg").read_bytes(), name="sample", max_pixels=10**6)
    prepared = EvalTransform(Preprocessing((224, 224), eval_preset="mindcv", **settings))(pixels)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    expected = torch.from_numpy(np.load(FIXTURES / "eval_recipe.npz")[name])
    levels = expected * std.view(3, 1, 1) + mean.view(3, 1, 1)
    difference = (prepared - levels).abs()
    assert difference.max() <= 1.01 and (difference > 0.01).float().mean() < 0.15
    images = BatchTransform((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).normalise(prepared[None])[
        0
    ]
    assert (images - expected).abs().max() < 0.0181


def test_the_back_end_of_the_resize_can_be_chosen(picture):
    settings = {"image_size": (64, 64), "crop_pct": 0.95}
    smooth = EvalTransform(Preprocessing(eval_preset="mindcv", antialias=True, **settings))(picture)
    assert not torch.equal(
        smooth, EvalTransform(Preprocessing(eval_preset="mindcv", **settings))(picture)
    )
    recipe = Recipe(image_size=64, interpolation="bicubic", eval_preset="mindcv")
    assert not build_train_transform(recipe).antialias
    assert build_train_transform(recipe.model_copy(update={"antialias": True})).antialias


def test_splits_are_the_crop_as_it_is_and_augmented_copies(picture):
    recipe = Recipe(
        image_size=48, aug_splits=3, auto_augment="augmix-m9", loss="jsd", erase_prob=1.0
    )
    versions = build_train_transform(recipe)(picture, generator_for(1))
    plain = build_train_transform(Recipe(image_size=48))(picture, generator_for(1))
    assert versions.shape == (3, 3, 48, 48)
    assert torch.equal(versions[0], plain)
    assert not torch.equal(versions[1], versions[0]) and not torch.equal(versions[1], versions[2])
    prepare = build_batch_transform(recipe, 4)
    images, targets = prepare(versions, torch.tensor([2, 2, 2]), generator_for(2))
    assert torch.equal(images[0], prepare.normalise(versions)[0])  # the clean one is not erased
    assert not torch.equal(images[1:], prepare.normalise(versions)[1:])
    assert targets.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("size", "crop_pct", "interpolation"),
    [
        ((112, 112), 0.875, "bicubic"),
        ((57, 57), 0.95, "bilinear"),
        ((96, 160), 0.9, "bicubic"),
        ((128, 96), 0.9, "bicubic"),
        ((80, 80), 1, "bilinear"),
    ],
)
def test_timm_preset_agrees_with_timm(picture, size, crop_pct, interpolation):
    reference = create_transform(
        (3, *size), interpolation=interpolation, crop_pct=crop_pct, normalize=False
    )
    prepared = EvalTransform(Preprocessing(size, interpolation=interpolation, crop_pct=crop_pct))(
        picture
    )
    assert_within_a_level(prepared, torch.as_tensor(reference(as_image(picture))))


def test_official_preset_crops_below_384_and_warps_from_there_and_up_to_32(picture):
    cropped = EvalTransform(Preprocessing((64, 64), eval_preset="official"))(picture)
    assert_within_a_level(
        cropped,
        F.center_crop(
            as_pixels(as_image(picture).resize((97, 73), Image.Resampling.BICUBIC)), [64, 64]
        ),
    )
    for side in (32, 384):
        warped = EvalTransform(Preprocessing((side, side), eval_preset="official"))(picture)
        assert_within_a_level(
            warped, as_pixels(as_image(picture).resize((side, side), Image.Resampling.BICUBIC))
        )
    small = picture[:, :32, :32]
    assert torch.equal(EvalTransform(Preprocessing((32, 32), eval_preset="official"))(small), small)


@pytest.mark.parametrize("preset", ["timm", "official", "mindcv"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9000), (9000, 1), (7, 3)])
def test_any_image_fills_the_crop(preset, shape):
    for size in ((64, 64), (40, 96)):
        prepared = EvalTransform(Preprocessing(size, eval_preset=preset))(
            torch.full((3, *shape), 77, dtype=torch.uint8)
        )
        assert prepared.shape == (3, *size) and (prepared == 77).all()


def test_normalising_agrees_with_timm(picture):
    reference = create_transform((3, 64, 64), interpolation="bicubic")(as_image(picture))
    transform = EvalTransform(Preprocessing((64, 64)))
    images = BatchTransform(transform.preprocessing.mean, transform.preprocessing.std).normalise(
        transform(picture)[None]
    )
    assert images.dtype == torch.float32
    assert (images[0] - reference).abs().max() <= 1.01 / 255 / 0.224
    exact = (
        transform(picture) / 255 - torch.tensor(timm.data.IMAGENET_DEFAULT_MEAN).view(3, 1, 1)
    ) / torch.tensor(timm.data.IMAGENET_DEFAULT_STD).view(3, 1, 1)
    assert torch.allclose(images[0], exact, atol=1e-5)


def test_random_crops_are_distributed_as_torchvisions():
    scale, ratio = (0.1, 0.8), (0.5, 2.0)
    torch.manual_seed(0)
    reference = np.array(
        [
            RandomResizedCrop.get_params(torch.empty(3, 90, 120), list(scale), list(ratio))
            for _ in range(2000)
        ]
    )
    ours = np.array(
        [crop_box(90, 120, scale, ratio, generator_for("crop", i)) for i in range(2000)]
    )
    assert np.abs(ours.mean(0) - reference.mean(0)).max() < 3
    assert np.abs(ours.std(0) - reference.std(0)).max() < 2
    assert (
        ((ours[:, 0] + ours[:, 2]) <= 90).all()
        and ((ours[:, 1] + ours[:, 3]) <= 120).all()
        and ours.min() >= 0
    )


def test_where_no_crop_fits_it_is_the_central_one():
    assert crop_box(10, 100, (1.0, 1.0), (0.75, 4 / 3), generator_for(0)) == (0, 43, 10, 13)
    assert crop_box(100, 10, (1.0, 1.0), (0.75, 4 / 3), generator_for(0)) == (43, 0, 13, 10)
    assert crop_box(1, 1, (0.08, 0.1), (0.75, 4 / 3), generator_for(0)) == (0, 0, 1, 1)


def test_training_transform_crops_then_flips(picture):
    for seed in range(4):
        plain, mirrored, upside_down = (
            TrainTransform((48, 64), hflip=h, vflip=v)(picture, generator_for(seed))
            for h, v in ((0, 0), (1, 0), (0, 1))
        )
        top, left, height, width = crop_box(
            150, 200, (0.08, 1.0), (3 / 4, 4 / 3), generator_for(seed)
        )
        box = (left, top, left + width, top + height)
        expected = as_pixels(as_image(picture).crop(box).resize((64, 48), Image.Resampling.BICUBIC))
        assert_within_a_level(plain, expected)
        assert torch.equal(mirrored, plain.flip(-1)) and torch.equal(upside_down, plain.flip(-2))


def test_training_transform_follows_from_the_generator_and_leaves_the_global_one_alone(picture):
    transform = build_train_transform(Recipe(image_size=64, color_jitter=0.4))
    before = torch.get_rng_state()
    first, again, other = (transform(picture, generator_for(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_colour_jitter_draws_from_torchvisions_ranges(picture):
    picture = picture[:, ::3, ::3]
    for strengths in ((0.4, 0, 0, 0), (0, 0.4, 0, 0), (0, 0, 0.4, 0), (0, 0, 0, 0.1)):
        which = next(i for i, strength in enumerate(strengths) if strength)
        jitter = ColorJitter(*strengths)
        low, high = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)[which]
        change = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)[which]
        lows, highs = change(picture, low).float(), change(picture, high).float()
        changed = [
            color_jitter(picture, strengths, generator_for(seed)).float() for seed in range(4)
        ]
        assert all(not torch.equal(one, changed[0]) for one in changed[1:])
        if which < 3:  # each pixel moves between the two ends
            least, most = torch.minimum(lows, highs), torch.maximum(lows, highs)
            assert all(((least - 1 <= one) & (one <= most + 1)).all() for one in changed)
    assert torch.equal(color_jitter(picture, (0, 0, 0, 0), generator_for(0)), picture)


def test_auto_augment_takes_the_place_of_colour_jitter(picture):
    jittered, both, policy = (
        build_train_transform(Recipe(image_size=64, color_jitter=jitter, auto_augment=text))
        for jitter, text in ((0.4, None), (0.4, "trivialaugwide"), (0.0, "trivialaugwide"))
    )
    assert all(
        torch.equal(both(picture, generator_for(seed)), policy(picture, generator_for(seed)))
        for seed in range(5)
    )
    assert any(
        not torch.equal(both(picture, generator_for(seed)), jittered(picture, generator_for(seed)))
        for seed in range(5)
    )
    assert policy.augment.policy.canvas.fill == (124, 116, 104)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_augmentation_works_on_grey_and_colour(picture, channels):
    for options in (
        {"color_jitter": (0.4, 0.4, 0.4, 0.1)},
        {"auto_augment": "randaug-m9-n4-mstd0.5-inc1"},
        {"auto_augment": "augmix"},
    ):
        transform = build_train_transform(
            Recipe(image_size=(40, 56), in_channels=channels, **options)
        )
        for seed in range(10):
            pixels = transform(picture[:channels], generator_for(seed))
            assert pixels.shape == (channels, 40, 56) and pixels.dtype == torch.uint8


def test_batch_transform_returns_plain_targets_or_soft_ones():
    pixels, targets = (
        torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8),
        torch.tensor([0, 1, 2, 0]),
    )
    plain = build_batch_transform(Recipe(), num_classes=3)
    images, same = plain(pixels, targets, generator_for(0))
    assert torch.equal(same, targets) and torch.equal(images, plain.normalise(pixels))
    mixing = build_batch_transform(
        Recipe(mixup=0.8, cutmix=1.0, erase_prob=1.0, erase_value=(9.0, 9.0, 9.0)), num_classes=3
    )
    images, soft = mixing(pixels, targets, generator_for(0))
    assert soft.shape == (4, 3) and soft.dtype == torch.float32 and images.max() > 5
    assert torch.equal(mixing(pixels, targets, generator_for(0))[0], images)
    sometimes = build_batch_transform(Recipe(mixup=0.8, mix_prob=0.5), num_classes=3)
    assert {
        tuple(sometimes(pixels, targets, generator_for(seed))[1].shape) for seed in range(10)
    } == {(4, 3)}


def test_batch_transform_of_grey_images():
    batch = build_batch_transform(
        Recipe(in_channels=1, erase_prob=1.0, erase_value=(3.0, 6.0, 9.0)), num_classes=2
    )
    images, _ = batch(
        torch.zeros(2, 1, 16, 16, dtype=torch.uint8), torch.tensor([0, 1]), generator_for(0)
    )
    assert images.shape == (2, 1, 16, 16)
    assert sorted(images.unique().tolist()) == pytest.approx([-0.449 / 0.226, 6.0])


def test_padding_shifts_the_whole_image_before_it_is_resized() -> None:
    image = torch.arange(1, 1 + 8 * 8, dtype=torch.uint8).view(1, 8, 8)
    recipe = Recipe(image_size=8, crop_padding=2, hflip=0.0, in_channels=1, mean=(0.5,), std=(0.5,))
    shifts = set()
    for seed in range(200):
        shifted = build_train_transform(recipe)(image, generator_for(seed))[0]
        place = (shifted == 28).nonzero()  # row 3, column 3 of the image, which no shift loses
        row, column = place[0].tolist()
        expected = torch.nn.functional.pad(image, [2] * 4)[
            0, 5 - row : 13 - row, 5 - column : 13 - column
        ]
        assert torch.equal(shifted, expected)
        shifts.add((row, column))
    assert shifts == {(row, column) for row in range(1, 6) for column in range(1, 6)}
    tall = build_train_transform(recipe.model_copy(update={"image_size": 16}))(
        torch.full((1, 30, 20), 9).byte(), generator_for(0)
    )
    assert tall.shape == (1, 16, 16) and tall.float().mean() > 7
