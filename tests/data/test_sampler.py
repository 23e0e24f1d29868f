import math

import pytest
import torch

from convnextv2.data import sampler as sampler_module
from convnextv2.data.randomness import generator_for
from convnextv2.data.sampler import EpochSampler, ExactBatches, Position


def positions(length, batch_size, epoch=0, first_batch=0, **options):
    sampler = EpochSampler(length, batch_size, seed=5, **options)
    sampler.set_epoch(epoch, first_batch)
    batches = list(sampler)
    assert len(batches) == len(sampler) - first_batch
    return batches


def indices(batches):
    return [position.index for batch in batches for position in batch]


def test_an_epoch_visits_each_image_once_in_an_order_of_its_own():
    first, second = (positions(10, 3, epoch, drop_last=False) for epoch in (0, 1))
    assert [len(batch) for batch in first] == [3, 3, 3, 1]
    assert sorted(indices(first)) == sorted(indices(second)) == list(range(10))
    assert indices(first) != indices(second)
    assert first == positions(10, 3, 0, drop_last=False)
    assert second[0][0] == Position(1, indices(second)[0], 0)


def test_without_shuffling_the_order_is_that_of_the_source():
    assert indices(positions(7, 2, shuffle=False, drop_last=False)) == list(range(7))


def test_drop_last_leaves_out_the_short_batch():
    assert [len(batch) for batch in positions(10, 3)] == [3, 3, 3]
    assert positions(2, 3) == []


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(("length", "world_size"), [(20, 2), (23, 4), (5, 8)])
def test_ranks_share_an_epoch_in_equally_many_batches(length, world_size, drop_last):
    ranks = [
        positions(length, 2, rank=rank, world_size=world_size, drop_last=drop_last)
        for rank in range(world_size)
    ]
    assert len({tuple(len(batch) for batch in rank) for rank in ranks}) == 1
    used = [index for rank in ranks for index in indices(rank)]
    if drop_last:
        assert len(used) == len(set(used)) and length - len(used) < 2 * world_size + world_size
    else:
        assert set(used) == set(range(length)) and len(used) == world_size * math.ceil(
            length / world_size
        )


def test_an_epoch_can_be_entered_in_the_middle():
    options = dict(rank=1, world_size=2, repeats=3)
    assert positions(40, 4, 2, **options)[2:] == positions(40, 4, 2, first_batch=2, **options)


def slow_repeats(length, repeats, rank, world_size, order):
    """Repeated augmentation by its definition: list all, take every world_size-th, cut."""
    entries = [(index, copy) for index in order for copy in range(repeats)]
    while len(entries) < world_size * math.ceil(length / world_size):
        entries += entries
    return entries[rank::world_size][: math.ceil(length / world_size)]


@pytest.mark.parametrize(
    ("length", "repeats", "world_size"), [(12, 3, 1), (10, 3, 4), (10, 1, 4), (9, 2, 2), (3, 1, 8)]
)
def test_repeats_follow_their_definition(length, repeats, world_size):
    order = indices(positions(length, 1, epoch=4, drop_last=False))
    for rank in range(world_size):
        batches = positions(
            length, 2, 4, rank=rank, world_size=world_size, repeats=repeats, drop_last=False
        )
        taken = [(position.index, position.copy) for batch in batches for position in batch]
        assert taken == slow_repeats(length, repeats, rank, world_size, order)


def test_copies_of_an_image_land_on_different_ranks():
    ranks = [positions(12, 2, rank=rank, world_size=3, repeats=3) for rank in range(3)]
    assert [indices(rank) for rank in ranks] == [indices(ranks[0])] * 3
    assert [{position.copy for batch in rank for position in batch} for rank in ranks] == [
        {0},
        {1},
        {2},
    ]


@pytest.mark.parametrize(("length", "world_size"), [(10, 1), (10, 3), (2, 4), (0, 1)])
def test_evaluation_takes_each_image_exactly_once(length, world_size):
    shares = [ExactBatches(length, 2, rank, world_size) for rank in range(world_size)]
    batches = [list(share.rest()) for share in shares]
    assert [len(share) for share in shares] == [len(rank) for rank in batches]
    assert all(0 < len(batch) <= 2 for rank in batches for batch in rank)
    assert sorted(index for rank in batches for index in indices(rank)) == list(range(length))
    counts = [len(indices(rank)) for rank in batches]
    assert max(counts) - min(counts) <= 1
    assert list(shares[0].rest(2)) == batches[0][2:]


def test_the_order_of_a_set_that_is_listed_is_that_of_randperm():
    order = torch.randperm(1000, generator=generator_for(5, "order", 3)).tolist()
    assert indices(positions(1000, 7, 3, drop_last=False)) == order


@pytest.mark.parametrize("world_size", [1, 4])
def test_an_order_that_is_not_listed_visits_each_image_once(monkeypatch, world_size):
    monkeypatch.setattr(sampler_module, "MAX_LISTED", 100)
    ranks = [positions(1000, 10, 3, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(index for rank in ranks for index in indices(rank)) == list(range(1000))
    entered = positions(1000, 10, 3, first_batch=17, rank=0, world_size=world_size)
    assert entered == ranks[0][17:]
    assert indices(ranks[0]) != indices(positions(1000, 10, 4, world_size=world_size))


def test_the_order_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    positions(10, 2)
    assert torch.equal(torch.get_rng_state(), before)
