"""Chooses block sizes for the kernels, and the device to launch them on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

PROGRAMS = 1024
"""The approximate number of programs that keep a large GPU busy, in two or more waves.

It is a constant instead of the number of multiprocessors of this GPU, so that the order of all
sums, and with it their last bits, depends only on the sizes of the tensors.
"""


def ceil_div(number: int, divisor: int) -> int:
    """Divide and round up."""
    return -(-number // divisor)


def channel_block(channels: int, largest: int) -> int:
    """Choose how many channels a program processes: a power of two from 16 to `largest`.

    It leaves the fewest lanes without a channel. Of several such numbers, it is the largest.
    """
    sizes = [size for size in (128, 64, 32, 16) if size <= largest]
    return min(sizes, key=lambda size: ceil_div(channels, size) * size)


def chunk(positions: int, programs: int, block: int) -> int:
    """Choose how many positions a program adds up.

    Args:
        positions: The number of positions.
        programs: The number of programs for each part of the positions.
        block: The number of positions that a program processes at a time.

    Returns:
        A multiple of `block`. There are about `PROGRAMS` programs, or as many as there are blocks.
    """
    parts = max(1, min(ceil_div(PROGRAMS, programs), ceil_div(positions, block)))
    return ceil_div(ceil_div(positions, parts), block) * block


def on_device(x: Tensor) -> AbstractContextManager[object]:
    """Make the device of a tensor the current one, on which Triton launches its kernels."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
