"""Stacks tensors in memory that a worker process shares with the main process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from convnextv2.errors import StorageError


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors. In a worker process, the result lies in shared memory.

    Args:
        tensors: Tensors of one shape and dtype; at least one.

    Returns:
        (N, ...), in the memory layout of the tensors.

    Raises:
        StorageError: /dev/shm has no room.
    """
    if get_worker_info() is None:
        return torch.stack(list(tensors))
    # Otherwise torch would move the batch to shared memory in a thread. If no memory is left, the
    # error would be lost in that thread, and the main process would wait forever.
    batch = torch.empty(len(tensors), *tensors[0].shape, dtype=tensors[0].dtype)
    try:
        batch.share_memory_()
    except RuntimeError as error:
        size = f"{batch.numel() * batch.element_size() / 1e6:.1f} MB"
        raise StorageError(
            f"/dev/shm has no room for a batch of {size} ({error}). Use fewer workers or a smaller "
            "cache_mb, or raise a container's --shm-size."
        ) from None
    return torch.stack(list(tensors), out=batch)
