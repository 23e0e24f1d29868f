"""Draws by class against the formula, and against what ranks and positions must have in common."""

import numpy as np
import pytest
import torch

from convnextv2.data.class_sampling import class_shares, draw_epoch
from convnextv2.data.loader import build_sampler
from convnextv2.data.randomness import generator_for
from convnextv2.data.sampler import EpochSampler
from convnextv2.distributed import Place
from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe

COUNTS = (400, 90, 9, 1)
TARGETS = np.random.default_rng(1).permutation(np.repeat(np.arange(4), COUNTS))


def taken(power: float, **options) -> list[list[tuple[int, int]]]:
    """The batches of an epoch, as pairs of image and copy."""
    epoch, first = options.pop("epoch", 0), options.pop("first_batch", 0)
    sampler = EpochSampler(500, 10, seed=7, targets=TARGETS, power=power, **options)
    sampler.set_epoch(epoch, first)
    return [[(position.index, position.copy) for position in batch] for batch in sampler]


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        (1.0, [0.8, 0.18, 0.018, 0.002]),
        (0.0, [0.25] * 4),
        (0.5, np.sqrt(COUNTS) / np.sqrt(COUNTS).sum()),
    ],
)
def test_shares_follow_the_formula(power, expected):
    np.testing.assert_allclose(class_shares(np.array(COUNTS), power), expected, rtol=1e-12)
    with_a_gap = class_shares(np.array([400, 0, 90, 9, 1]), power)
    np.testing.assert_allclose(with_a_gap, np.insert(expected, 1, 0), rtol=1e-12)


@pytest.mark.parametrize("power", [0.0, 0.5, 0.3])
def test_an_epoch_keeps_its_length_and_its_classes_have_their_shares(power):
    weights = np.array(COUNTS, dtype=float) ** power
    expected = 500 * weights / weights.sum()
    drawn = np.zeros(4)
    for epoch in range(200):
        order, before = draw_epoch(TARGETS, power, generator_for(7, "order", epoch))
        assert len(order) == len(before) == 500
        counts = np.bincount(TARGETS[order.numpy()], minlength=4)
        assert np.all(np.abs(counts - expected) < 1)  # rounded up or down
        drawn += counts
    np.testing.assert_allclose(drawn / 200, expected, atol=0.12)  # on average, not rounded at all


def test_no_image_comes_again_before_all_others_of_its_class():
    order, before = draw_epoch(TARGETS, 0.0, generator_for(1))
    for k, count in enumerate(COUNTS):
        of_class = np.bincount(order.numpy(), minlength=500)[TARGETS == k]
        assert of_class.max() - of_class.min() <= 1, count
    pairs = set(zip(order.tolist(), before.tolist(), strict=True))
    assert len(pairs) == 500  # a repetition is another copy, and is augmented anew
    assert max(before[TARGETS[order.numpy()] == 3].tolist()) == 124  # one image, 125 times


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_draws_of_one_process(world_size):
    alone = [pair for batch in taken(0.5) for pair in batch]
    ranks = [
        [pair for batch in taken(0.5, rank=rank, world_size=world_size) for pair in batch]
        for rank in range(world_size)
    ]
    together = [pair for group in zip(*ranks, strict=True) for pair in group]
    assert together == alone[: len(together)] and len(together) > 450


def test_an_epoch_of_draws_can_be_entered_in_the_middle_and_differs_from_the_next():
    assert taken(0.0, epoch=3)[20:] == taken(0.0, epoch=3, first_batch=20)
    assert taken(0.0, epoch=3) == taken(0.0, epoch=3) != taken(0.0, epoch=4)


def test_repeated_augmentation_numbers_its_copies_on():
    pairs = [pair for batch in taken(0.0, repeats=2, drop_last=False) for pair in batch]
    assert len(pairs) == len(set(pairs)) == 500
    rare = sorted(copy for index, copy in pairs if TARGETS[index] == 3)
    assert rare and all(copy + 1 in rare for copy in rare if copy % 2 == 0)


def test_natural_sampling_is_the_permutation_that_it_was():
    sampler = EpochSampler(9, 3, seed=5)
    order = torch.randperm(9, generator=generator_for(5, "order", 0)).tolist()
    assert [position.index for batch in sampler for position in batch] == order
    assert {position.copy for batch in sampler for position in batch} == {0}


def test_the_recipe_says_how_classes_are_drawn_if_images_have_one_class():
    place = Place(torch.device("cpu"))
    sampler = build_sampler(Recipe(sampling="sqrt", batch_size=10, seed=7), 500, place, TARGETS)
    drawn = [[(one.index, one.copy) for one in batch] for batch in sampler]
    assert drawn == taken(0.5)
    plain = build_sampler(Recipe(sampling=1.0, batch_size=10), 500, place, TARGETS)
    assert plain.targets is None
    with pytest.raises(RecipeError, match="sampling = sqrt: draws images by their class"):
        build_sampler(Recipe(sampling="sqrt"), 4, place, np.eye(4, dtype=np.int64))
