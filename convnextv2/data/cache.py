"""Decoded images in shared memory, so that a set that fits is read and decoded once."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor

# Linux keeps memory that processes share here. Containers often get very little.
_SHARED = Path("/dev/shm")


class DecodedCache:
    """Images by index, as many as fit; the others are decoded again each time.

    Args:
        images: The number of indices.
        megabytes: Memory in 10^6 bytes. It is allocated up front, so that a shortage fails here
            instead of killing a worker with SIGBUS in mid-epoch.
    """

    def __init__(self, images: int, megabytes: int) -> None:
        self._pixels = torch.empty(megabytes * 10**6, dtype=torch.uint8).share_memory_()
        # Each row has offset, channels, height and width; -1 for an image that is not there.
        self._places = torch.full((images, 4), -1).share_memory_()
        self._used = torch.zeros((), dtype=torch.int64).share_memory_()
        self._lock = multiprocessing.get_context().Lock()

    def get(self, index: int) -> Tensor | None:
        """Return an image, uint8 (C, H, W), which must not be changed; None if it is not there."""
        with self._lock:
            offset, channels, height, width = self._places[index].tolist()
        if offset < 0:
            return None
        length = channels * height * width
        return self._pixels[offset : offset + length].view(height, width, channels).permute(2, 0, 1)

    def put(self, index: int, pixels: Tensor) -> None:
        """Keep pixels, uint8 (C, H, W), if there is room left."""
        length = pixels.numel()
        with self._lock:
            offset = int(self._used)
            if self._places[index, 0] >= 0 or offset + length > len(self._pixels):
                return
            # This is written under the lock, so whoever finds the place also finds the pixels. The
            # order matters, because a process may be killed between any two of these lines. Its
            # part is lost then.
            self._used += length
            self._pixels[offset : offset + length] = pixels.permute(1, 2, 0).reshape(-1)
            self._places[index, 1:] = torch.tensor(pixels.shape)
            self._places[index, 0] = offset

    def renew_lock(self) -> None:
        """Forget that a process which was killed holds the lock. No other one may use the cache."""
        self._lock = multiprocessing.get_context().Lock()


def affordable(megabytes: int, *, batches: int = 0, ranks: int = 1) -> tuple[int, str]:
    """Limit a cache to what shared memory has room for.

    Args:
        megabytes: The size that is asked for, in 10^6 bytes.
        batches: Bytes that the rank's workers need in shared memory beside it.
        ranks: The number of ranks on this machine, each with a cache of its own.

    Returns:
        The size that a rank can have, and a line to announce if it is smaller.
    """
    free = shutil.disk_usage(_SHARED).free if _SHARED.is_dir() else None
    if free is None or megabytes * 10**6 <= 0.9 * free / ranks - batches:
        return megabytes, ""
    used = max(0, int((0.9 * free / ranks - batches) / 10**6))
    left = f"{free // 10**6} MB left" + (f" for {ranks} ranks" if ranks > 1 else "")
    what = f"{used} used" if used else "no cache is used, since the workers' batches need them"
    return (
        used,
        f"cache_mb = {megabytes}: {_SHARED} has {left}; {what}. In a container, raise --shm-size.",
    )
