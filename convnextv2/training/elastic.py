"""Gradients that are bit for bit the same on any number of ranks.

Floating-point addition is not associative, so a sum depends on where it is cut into parts. Here, a
step has a fixed number of micro-batches of a fixed size. Each micro-batch has its own random
numbers, and gradients are added in a binary tree over the numbers of the micro-batches. A rank owns
a whole subtree. The levels above it run between ranks that are neighbours, then between neighbours
of those. Every addition thus has the same two summands wherever it is computed, and a + b equals
b + a in floating point too.

Ranks add by recursive halving and doubling: Thakur, Rabenseifner and Gropp, Optimization of
Collective Communication Operations in MPICH, 2005, section 4.5. It moves as many bytes as a ring.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn

from convnextv2.data.randomness import generator_for
from convnextv2.distributed import Place
from convnextv2.errors import RecipeError
from convnextv2.text import counted


def check_micro_batches(accumulate: int, ranks: int) -> None:
    """Refuse a number of micro-batches that is not a binary tree with a subtree for each rank.

    Raises:
        RecipeError: accumulate x ranks is not a power of two.
    """
    count = accumulate * ranks
    if count & (count - 1):
        raise RecipeError(
            f"elastic = True: a step has accumulate x ranks = {accumulate} x {ranks} = {count} "
            "micro-batches, expected a power of two. Change accumulate or the number of ranks."
        )


def fix_threads(device: torch.device) -> str:
    """Compute with one thread, because sums depend on the number of threads too.

    OMP_NUM_THREADS takes precedence if it is set. Nothing is done on an accelerator.

    Returns:
        A line to announce; empty on an accelerator.
    """
    if device.type != "cpu":
        return ""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    threads = torch.get_num_threads()
    return (
        f"elastic: {counted(threads, 'thread(s)')} in each rank. Keep that number "
        "(OMP_NUM_THREADS) for the same bits; for speed, start a rank for each core."
    )


def broadcast_weights(model: nn.Module) -> None:
    """Give all ranks the weights of rank 0, as DistributedDataParallel does."""
    if dist.is_initialized():
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


class GradientTree:
    """Adds the gradients of a step's micro-batches in a fixed binary tree.

    A step calls `take` for each micro-batch of this rank, in order, and then `add`.

    Args:
        model: The model. The gradients of its trainable parameters are added.
        accumulate: Micro-batches of this rank in a step; a power of two.
        place: This rank. The number of ranks is a power of two.
    """

    def __init__(self, model: nn.Module, accumulate: int, place: Place) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._accumulate, self._place = accumulate, place
        self._waiting: list[tuple[int, list[Tensor]]] = []
        self._with_images = 0

    def generator(self, seed: int, step: int, i: int) -> torch.Generator:
        """Return the random generator of this rank's i-th micro-batch in a step."""
        return generator_for(seed, "micro-batch", step, self._place.rank * self._accumulate + i)

    def take(self, *, has_images: bool) -> None:
        """Take the gradients of the next micro-batch away from the parameters.

        Args:
            has_images: Whether the micro-batch had images. One without images counts as zeros.
        """
        part = []
        for parameter in self._parameters:
            gradient = parameter.grad
            part.append(torch.zeros_like(parameter) if gradient is None else gradient)
            parameter.grad = None
        self._with_images += has_images
        height = 0
        while self._waiting and self._waiting[-1][0] == height:
            left = self._waiting.pop()[1]
            torch._foreach_add_(left, part)
            part, height = left, height + 1
        self._waiting.append((height, part))

    def add(self) -> int:
        """Give the parameters the mean gradient of the step, on all ranks.

        Returns:
            The number of micro-batches, over all ranks, that had images. If it is 0, the parameters
            have no gradient.
        """
        ((_, total),) = self._waiting
        with_images = int(self._place.sum_numbers(self._with_images)[0])
        self._waiting, self._with_images = [], 0
        if not with_images:
            return 0
        if self._place.world_size > 1:
            flat = torch.cat([gradient.reshape(-1) for gradient in total])
            add_over_ranks(flat, self._place.rank, self._place.world_size)
            parts = flat.split([gradient.numel() for gradient in total])
            total = [part.view_as(old) for part, old in zip(parts, total, strict=True)]
        torch._foreach_div_(total, float(with_images))
        for parameter, gradient in zip(self._parameters, total, strict=True):
            parameter.grad = gradient
        return with_images


def add_over_ranks(flat: Tensor, rank: int, world_size: int) -> None:
    """Add a one-dimensional tensor over ranks, in place and in a fixed order.

    Ranks exchange half of the tensor with their neighbour, a quarter with the rank two places away,
    and so on. Then they return the sums in the opposite order.

    Args:
        flat: The tensor, of the same length on all ranks.
        rank: This rank.
        world_size: The number of ranks, a power of two.
    """
    begin, end = 0, len(flat)
    way = []
    for distance in (2**i for i in range(world_size.bit_length() - 1)):
        middle = (begin + end) // 2
        low, high = slice(begin, middle), slice(middle, end)
        kept, given = (high, low) if rank & distance else (low, high)
        theirs = torch.empty_like(flat[kept])
        _exchange(flat[given], theirs, rank ^ distance)
        flat[kept] += theirs
        way.append((rank ^ distance, kept, given))
        begin, end = kept.start, kept.stop
    for other, kept, given in reversed(way):
        _exchange(flat[kept], flat[given], other)


def _exchange(mine: Tensor, theirs: Tensor, other: int) -> None:
    """Send a tensor to another rank, and receive one from it."""
    operations = [dist.P2POp(dist.isend, mine, other), dist.P2POp(dist.irecv, theirs, other)]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
