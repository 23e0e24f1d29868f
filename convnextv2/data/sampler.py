"""Samplers, which decide which images are in which batch, on each rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from convnextv2.data.class_sampling import draw_epoch
from convnextv2.data.permutation import Permutation
from convnextv2.data.randomness import generator_for
from convnextv2.data.source import Targets

MAX_LISTED = 50_000_000
"""Up to this number of images, the order of an epoch is listed by `torch.randperm`, in 8 bytes for
each image. Beyond it, the order is a `Permutation`, which takes no memory."""

Indices = NDArray[np.int64]
Order = Callable[[Indices], tuple[Indices, Indices]]
"""Maps places in an epoch, int64 (K,), to images and to the number of times that each of them
occurs earlier in the epoch, both int64 (K,)."""


class Position(NamedTuple):
    """The place in a run at which an image is used. With the seed, it determines the augmentation.

    Attributes:
        epoch: The epoch, from 0.
        index: The index of the image.
        copy: The number of this repetition within the epoch, from 0.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index
    copy: int


class EpochSampler(Sampler[list[Position]]):
    """The batches of one rank, epoch by epoch.

    All ranks share one order, which follows from (seed, epoch). Each rank takes every world_size-th
    entry of it, so that ranks are disjoint and have the same number of batches.

    Args:
        length: The number of images in the data set.
        batch_size: Images in a batch of one rank.
        seed: The seed of the run.
        rank: This rank, from 0.
        world_size: The number of ranks.
        shuffle: Whether to shuffle the order in every epoch.
        drop_last: Drop the final partial batch. If False, keep it, and wrap around to the start of
            the order so that every rank has the same number of batches.
        repeats: If n > 0, put each image n times in a row, as copies 0 to n - 1, which go to
            different ranks. An epoch keeps its length and sees about 1 / n of the images. Source:
            Hoffer et al. 2020, as in MindCV.
        micro_batches: If n > 0, cut the order into steps of n batches, of which each rank takes
            neighbours. The batches then do not depend on the number of ranks. Images that do not
            fill a step are dropped.
        targets: int64 (length,), the class of each image, if classes are drawn in proportion to
            n ** power; see `class_sampling.draw_epoch`. An image that is drawn again gets the next
            copy numbers. With None, each image is used once in an epoch.
        power: The power. It has no effect without targets.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        repeats: int = 0,
        drop_last: bool = True,
        micro_batches: int = 0,
        targets: Targets | None = None,
        power: float = 1.0,
    ) -> None:
        assert micro_batches % world_size == 0
        assert targets is None or (shuffle and len(targets) == length)
        assert 0 <= rank < world_size and batch_size > 0 and repeats >= 0
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.shuffle, self.repeats, self.drop_last = shuffle, repeats, drop_last
        self.micro_batches = micro_batches
        self.targets, self.power = targets, power
        self._epoch = self._first_batch = 0

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Iterate over this epoch next, starting with batch number first_batch."""
        self._epoch, self._first_batch = epoch, first_batch

    @property
    def images_per_rank(self) -> int:
        """Images that a rank draws from in an epoch, including those that drop_last drops."""
        if self.micro_batches:
            return len(self) * self.batch_size
        # With repeats the order is longer than an epoch, so rounding up leaves nothing to fill.
        return (
            self.length // self.world_size
            if self.drop_last and not self.repeats
            else math.ceil(self.length / self.world_size)
        )

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch."""
        if self.micro_batches:
            steps = self.length // (self.batch_size * self.micro_batches)
            return steps * self.micro_batches // self.world_size
        batches = self.images_per_rank / self.batch_size
        return math.floor(batches) if self.drop_last else math.ceil(batches)

    def __iter__(self) -> Iterator[list[Position]]:
        epoch, copies = self._epoch, max(1, self.repeats)
        order = self._order(epoch)
        for batch in range(self._first_batch, len(self)):
            places, copy = np.divmod(self._entries(batch, copies), copies)
            images, before = order(places)
            yield [
                Position(epoch, *each)
                for each in zip(images.tolist(), (copy + copies * before).tolist(), strict=True)
            ]

    def _order(self, epoch: int) -> Order:
        """Return the order of the images of an epoch."""
        if not self.shuffle:
            return lambda places: (places, np.zeros_like(places))
        generator = generator_for(self.seed, "order", epoch)
        if self.targets is not None:
            drawn, before = (
                part.numpy() for part in draw_epoch(self.targets, self.power, generator)
            )
            return lambda places: (drawn[places], before[places])
        if self.length > MAX_LISTED:
            permutation = Permutation(self.length, generator)
            return lambda places: (permutation(places), np.zeros_like(places))
        listed = torch.randperm(self.length, generator=generator).numpy()
        return lambda places: (listed[places], np.zeros_like(places))

    def _entries(self, batch: int, copies: int) -> Indices:
        """Return the places in the order of the epoch that form a batch of this rank, int64."""
        if self.micro_batches:
            each = self.micro_batches // self.world_size
            step, i = divmod(batch, each)
            first = (step * self.micro_batches + self.rank * each + i) * self.batch_size
            return np.arange(first, first + self.batch_size)
        last = min((batch + 1) * self.batch_size, self.images_per_rank)
        places = np.arange(batch * self.batch_size, last)
        return (self.rank + places * self.world_size) % (self.length * copies)


class ExactBatches:
    """The batches of one rank in evaluation, built when they are needed.

    Over all ranks, each image occurs exactly once, in order. The numbers of images of two ranks may
    differ by one.

    Args:
        length: The number of images.
        batch_size: Images in a batch; the last one may be shorter.
        rank: This rank, from 0.
        world_size: The number of ranks.
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self._indices, self._batch_size = range(rank, length, world_size), batch_size

    def __len__(self) -> int:
        return -(-len(self._indices) // self._batch_size)

    def rest(self, done: int = 0) -> Iterator[list[Position]]:
        """Yield the batches from number `done` on."""
        for number in range(done, len(self)):
            start = number * self._batch_size
            chosen = self._indices[start : start + self._batch_size]
            yield [Position(0, index, 0) for index in chosen]
