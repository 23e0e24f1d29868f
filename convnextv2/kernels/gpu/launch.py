"""Choose block sizes for the kernels, and the device to launch them on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

PROGRAMS = 1024
"""About how many programs keep a large GPU busy: two or more waves on each of its processors.

It is a constant, and not the number of processors of this GPU, so that the order of all sums, and
with it their last bits, follows from the sizes of the tensors alone.
"""


def ceil_div(number: int, divisor: int) -> int:
    """Divide and round up."""
    return -(-number // divisor)


def channel_block(channels: int, largest: int) -> int:
    """Choose how many channels a program takes: a power of two from 16 to `largest`.

    It is the one that leaves the fewest lanes without a channel, and of several such the largest.
    """
    sizes = [size for size in (128, 64, 32, 16) if size <= largest]
    return min(sizes, key=lambda size: ceil_div(channels, size) * size)


def chunk(positions: int, programs: int, block: int) -> int:
    """Choose how many positions a program adds up.

    Args:
        positions: How many there are.
        programs: How many programs there are for each part of the positions.
        block: How many positions a program takes at once.

    Returns:
        A multiple of `block`. There are about `PROGRAMS` programs, or as many as there are blocks.
    """
    parts = max(1, min(ceil_div(PROGRAMS, programs), ceil_div(positions, block)))
    return ceil_div(ceil_div(positions, parts), block) * block


def on_device(x: Tensor) -> AbstractContextManager[object]:
    """Make the device of a tensor the current one, on which Triton launches its kernels."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
