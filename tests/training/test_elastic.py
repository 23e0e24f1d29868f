"""The tree in which gradients are added, against one written out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from convnextv2.data.sampler import EpochSampler
from convnextv2.distributed import Place
from convnextv2.errors import RecipeError
from convnextv2.training.elastic import GradientTree, check_micro_batches

PLACE = Place(torch.device("cpu"))


def test_gradients_are_added_in_pairs_and_pairs_of_pairs() -> None:
    model = nn.Linear(300, 1, bias=False)
    rng = np.random.default_rng(0)
    parts = (rng.standard_normal((4, 1, 300)) * 10.0 ** rng.integers(-3, 4, (4, 1, 300))).astype(
        "f4"
    )
    tree = GradientTree(model, 4, PLACE)
    for part in parts:
        model.weight.grad = torch.from_numpy(part.copy())
        tree.take(has_images=True)
        assert model.weight.grad is None
    assert tree.add() == 4
    expected = ((parts[0] + parts[1]) + (parts[2] + parts[3])) / np.float32(4)
    one_after_the_other = (((parts[0] + parts[1]) + parts[2]) + parts[3]) / np.float32(4)
    assert np.array_equal(model.weight.grad.numpy(), expected)
    assert not np.array_equal(expected, one_after_the_other)  # else this would test nothing


def test_a_micro_batch_without_images_counts_neither_in_the_sum_nor_in_the_mean() -> None:
    model = nn.Linear(2, 1, bias=False)
    tree = GradientTree(model, 2, PLACE)
    tree.take(has_images=False)
    model.weight.grad = torch.tensor([[3.0, 5.0]])
    tree.take(has_images=True)
    assert tree.add() == 1 and model.weight.grad.tolist() == [[3.0, 5.0]]
    for _ in range(2):
        model.weight.grad = None
        tree.take(has_images=False)
    assert tree.add() == 0 and model.weight.grad is None


@pytest.mark.parametrize("repeats", [0, 3])
def test_micro_batches_do_not_depend_on_the_number_of_ranks(repeats: int) -> None:
    def steps(ranks: int) -> list[list[list[tuple[int, ...]]]]:
        """Steps, their micro-batches in order, and the images of these."""
        each = 4 // ranks
        batches = [
            list(
                EpochSampler(
                    70, 3, seed=1, rank=rank, world_size=ranks, repeats=repeats, micro_batches=4
                )
            )
            for rank in range(ranks)
        ]
        assert {len(own) for own in batches} == {5 * each}  # 70 // (3 x 4) whole steps
        cut = [[own[step * each : (step + 1) * each] for step in range(5)] for own in batches]
        return [[batch for own in cut for batch in own[step]] for step in range(5)]

    assert steps(1) == steps(2) == steps(4)
    flat = [position for step in steps(1) for batch in step for position in batch]
    assert len(flat) == len(set(flat)) == 60


@pytest.mark.parametrize(("accumulate", "ranks"), [(1, 3), (3, 1), (2, 6)])
def test_a_number_that_is_no_binary_tree_is_refused(accumulate: int, ranks: int) -> None:
    with pytest.raises(RecipeError, match=f"= {accumulate * ranks} micro-batches"):
        check_micro_batches(accumulate, ranks)
    check_micro_batches(2, 4)
