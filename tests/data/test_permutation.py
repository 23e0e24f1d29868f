import itertools
import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from convnextv2.data.permutation import Permutation
from convnextv2.data.randomness import generator_for


def order(length: int, *key: int) -> list[int]:
    return Permutation(length, generator_for(*key))(np.arange(length)).tolist()


def test_every_small_length_is_a_bijection():
    for length, seed in itertools.product(range(1, 300), range(3)):
        assert sorted(order(length, seed)) == list(range(length))


@settings(max_examples=50, deadline=None)
@given(length=st.integers(1, 100_000), seed=st.integers(0, 2**31))
def test_every_length_is_a_bijection(length, seed):
    counts = np.bincount(
        Permutation(length, generator_for(seed))(np.arange(length)), minlength=length
    )
    assert (counts == 1).all() and len(counts) == length


@settings(max_examples=30, deadline=None)
@given(length=st.integers(2**40, 2**62), start=st.integers(0, 2**39), seed=st.integers(0, 99))
def test_no_two_entries_of_a_huge_order_are_equal(length, start, seed):
    entries = Permutation(length, generator_for(seed))(np.arange(start, start + 5000))
    assert entries.min() >= 0 and entries.max() < length
    assert len(np.unique(entries)) == 5000


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 5000), world_size=st.integers(1, 64), batch=st.integers(1, 300))
def test_any_number_of_ranks_sees_each_entry_once(length, world_size, batch):
    permutation = Permutation(length, generator_for(length))
    seen = np.zeros(length, np.int64)
    for rank in range(world_size):
        places = np.arange(rank, length, world_size)
        for start in range(0, len(places), batch):
            np.add.at(seen, permutation(places[start : start + batch]), 1)
    assert (seen == 1).all()


def test_an_entry_does_not_depend_on_what_is_asked_with_it():
    permutation = Permutation(1_300_000_000, generator_for(1, "order", 2))
    places = np.array([0, 1_299_999_999, 5, 700_000_000])
    together = permutation(places)
    assert together.tolist() == [int(permutation(place[None])[0]) for place in places]
    assert (places == [0, 1_299_999_999, 5, 700_000_000]).all()  # the argument is left alone


def test_keys_give_orders_of_their_own():
    assert order(1000, 1) == order(1000, 1)
    shared = np.mean(np.array(order(100_000, 1)) == np.array(order(100_000, 2)))
    assert shared < 1e-3  # two random orders share one entry on average


def test_all_orders_of_four_occur():
    found = {tuple(order(4, seed)) for seed in range(2000)}
    assert len(found) == math.factorial(4)


@pytest.mark.parametrize("length", [1000, 65_536, 1_000_003])
def test_an_order_looks_random(length):
    """Neighbours are unrelated, and each stretch of the order is spread over the whole set."""
    entries = Permutation(length, generator_for(7, length))(np.arange(length))
    assert stats.spearmanr(entries[:-1], entries[1:]).pvalue > 1e-4
    assert stats.spearmanr(np.arange(length), entries).pvalue > 1e-4
    first = entries[: length // 10]
    assert stats.kstest(first / length, "uniform").pvalue > 1e-4
    # The steps between neighbours follow the triangular distribution of two uniform numbers.
    steps = np.diff(entries) / length
    assert stats.kstest(steps[::2], stats.triang(0.5, -1, 2).cdf).pvalue > 1e-4


def test_a_billion_entries_take_neither_memory_nor_time():
    tracemalloc.start()
    started = time.process_time()
    permutation = Permutation(1_300_000_000, generator_for(3))
    permutation(np.arange(1_000_000_000, 1_000_000_256))
    seconds = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6 and seconds < 1
