import math

import numpy as np
import pytest
import torch

from convnextv2.data.mixup import Erasing, Mixing, cut_box
from convnextv2.data.randomness import generator_for

CLASSES = 5


@pytest.fixture
def images():
    return torch.randn(6, 3, 20, 30)


@pytest.fixture
def targets():
    return torch.tensor([0, 1, 2, 3, 4, 0])


def test_mixup_blends_images_and_targets_by_the_same_share(images, targets):
    before = images.clone()
    mixed, soft = Mixing(mixup=0.8)(images, targets, CLASSES, generator_for("mixup"))
    share = soft[0, 0].item() if targets[0] != targets[-1] else soft[1, 1].item()
    assert 0 < share < 1
    assert torch.allclose(mixed, share * before + (1 - share) * before.flip(0), atol=1e-6)
    one_hot = torch.eye(CLASSES)[targets]
    assert torch.allclose(soft, share * one_hot + (1 - share) * one_hot.flip(0), atol=1e-6)


def test_cutmix_takes_its_share_from_the_area_that_it_really_pastes(images, targets):
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 20, 30)
    shares = []
    for seed in range(50):
        mixed, soft = Mixing(cutmix=1.0)(images, targets, CLASSES, generator_for(seed))
        kept = (mixed[1] == 1).float().mean().item()  # image 1 is paired with image 4
        assert soft[1].tolist() == pytest.approx([0, kept, 0, 0, 1 - kept], abs=1e-6)
        assert set(mixed.unique().tolist()) <= set(range(6))
        shares.append(kept)
    assert np.std(shares) > 0.15


def test_soft_targets_sum_to_one_and_are_not_smoothed(images, targets):
    for seed in range(20):
        _, soft = Mixing(0.8, 1.0)(images, targets, CLASSES, generator_for(seed))
        assert torch.allclose(soft.sum(1), torch.ones(6)) and soft[2].count_nonzero() <= 2


def test_probabilities_decide_between_cutmix_mixup_and_nothing(images, targets):
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 20, 30).contiguous()
    seen = {"none": 0, "cutmix": 0, "mixup": 0}
    mixing = Mixing(0.8, 1.0, prob=0.75, switch_prob=1 / 3)
    for seed in range(300):
        mixed, soft = mixing(images, targets, CLASSES, generator_for(seed))
        assert soft.shape == (6, CLASSES)
        whole = bool((mixed == mixed.round()).all())
        seen["none" if torch.equal(mixed, images) else "cutmix" if whole else "mixup"] += 1
    assert seen["none"] == pytest.approx(75, abs=25) and seen["cutmix"] == pytest.approx(75, abs=25)


def test_one_kind_alone_is_always_that_kind(images, targets):
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 20, 30)
    for seed in range(20):
        mixed, _ = Mixing(mixup=0.0, cutmix=1.0, switch_prob=0.0)(
            images, targets, CLASSES, generator_for(seed)
        )
        assert bool((mixed == mixed.round()).all())
    assert not Mixing(0.8, 1.0, prob=0).is_on and not Mixing().is_on and Mixing(cutmix=1.0).is_on


def test_the_box_has_its_share_of_the_area_unless_an_edge_cuts_it():
    areas = []
    for seed in range(300):
        rows, columns = cut_box(100, 200, 0.25, generator_for(seed))
        assert 0 <= rows.start <= rows.stop <= 100 and 0 <= columns.start <= columns.stop <= 200
        areas.append((rows.stop - rows.start) * (columns.stop - columns.start) / 20000)
    assert max(areas) == pytest.approx(0.25) and min(areas) < 0.15


def test_mixing_follows_from_the_generator(images, targets):
    first, again, other = (
        Mixing(0.8, 1.0)(images, targets, CLASSES, generator_for(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def rectangle(changed):
    """Rows and columns of the changed area of one image, which must be a full rectangle."""
    rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
    assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return len(rows), len(columns)


def test_erasing_respects_probability_area_and_aspect():
    sizes = []
    for seed in range(40):
        images = torch.full((8, 3, 60, 80), 9.0)
        erased = Erasing(0.25, (0.05, 0.2), (0.5, 2.0), value=0.0)(images, generator_for(seed))
        sizes += [rectangle(image[0] == 0) for image in erased if (image[0] == 0).any()]
    assert len(sizes) == pytest.approx(80, abs=25)
    # One pixel of rounding on either side.
    assert all(
        0.04 <= height * width / 4800 <= 0.22 and 0.42 <= height / width <= 2.4
        for height, width in sizes
    )
    assert np.mean([math.log(height / width) for height, width in sizes]) == pytest.approx(
        0, abs=0.2
    )


def test_erased_pixels_are_standard_normal_noise_of_their_own():
    images = torch.full((64, 3, 64, 64), 9.0)
    noise = Erasing(1.0, (0.2, 0.3), (0.8, 1.2))(images, generator_for("noise"))
    noise = noise[noise != 9]
    assert noise.mean().item() == pytest.approx(
        0, abs=0.02
    ) and noise.std().item() == pytest.approx(1, abs=0.02)
    assert len(noise.unique()) > 0.9 * len(noise)


def test_erasing_fills_with_one_value_per_channel():
    images = Erasing(1.0, value=(1.0, 2.0, 3.0))(torch.zeros(2, 3, 32, 32), generator_for(0))
    assert [sorted(channel.unique().tolist()) for channel in images[0]] == [[0, 1], [0, 2], [0, 3]]


def test_a_rectangle_that_never_fits_leaves_the_image_whole():
    images = torch.zeros(4, 3, 4, 4)
    assert not Erasing(1.0, (1.0, 1.0), (1.0, 1.0), value=1.0)(images, generator_for(0)).any()
    assert not Erasing(0.0, value=1.0)(images, generator_for(0)).any()


def test_erasing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    Erasing(1.0)(torch.zeros(2, 3, 16, 16), generator_for(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_several_labels_are_mixed_where_both_are_known(images):
    targets = torch.tensor([[1, 0, -1], [1, 1, 0], [0, 0, 0], [0, 1, 1], [0, -1, 0], [0, 1, 1]])
    mixed, soft = Mixing(mixup=0.8)(images, targets, 3, generator_for("mixup"))
    share = soft[0, 0].item()  # image 0 is paired with image 5
    assert 0 < share < 1 and torch.allclose(mixed[0], images[0].lerp(images[5], 1 - share))
    nan, rest = math.nan, 1 - share
    expected = [[share, rest, nan], [share, nan, 0], [0, rest, rest], [0, share, share]]
    expected += [[rest, nan, 0], [rest, share, nan]]
    assert soft.tolist() == [pytest.approx(row, abs=1e-6, nan_ok=True) for row in expected]
