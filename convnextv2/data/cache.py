"""Decoded images in shared memory, so that a set that fits is read and decoded once."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor

_SHARED = Path(
    "/dev/shm"
)  # where Linux keeps memory that processes share; containers often get very little


class DecodedCache:
    """Images by index, as many as fit; the others are decoded again each time.

    Args:
        images: The number of indices.
        megabytes: Memory in 10^6 bytes. It is allocated up front, so that a shortage fails here instead
            of killing a worker with SIGBUS in mid-epoch.
    """

    def __init__(self, images: int, megabytes: int) -> None:
        self._pixels = torch.empty(megabytes * 10**6, dtype=torch.uint8).share_memory_()
        self._places = torch.full(
            (images, 4), -1
        ).share_memory_()  # offset, channels, height, width; -1: not there
        self._used = torch.zeros((), dtype=torch.int64).share_memory_()
        self._lock = multiprocessing.get_context().Lock()

    def get(self, index: int) -> Tensor | None:
        """uint8 (C, H, W), not to be changed; or None."""
        with self._lock:
            offset, channels, height, width = self._places[index].tolist()
        if offset < 0:
            return None
        length = channels * height * width
        return self._pixels[offset : offset + length].view(height, width, channels).permute(2, 0, 1)

    def put(self, index: int, pixels: Tensor) -> None:
        """Keep pixels, uint8 (C, H, W), where there is room left."""
        length = pixels.numel()
        with self._lock:
            offset = int(self._used)
            if self._places[index, 0] >= 0 or offset + length > len(self._pixels):
                return
            # Written under the lock: whoever finds the place also finds the pixels. In this order,
            # since a process may be killed between any two of these lines: its part is lost then.
            self._used += length
            self._pixels[offset : offset + length] = pixels.permute(1, 2, 0).reshape(-1)
            self._places[index, 1:] = torch.tensor(pixels.shape)
            self._places[index, 0] = offset

    def renew_lock(self) -> None:
        """Forget who holds the lock: a process that was killed. No other one may use the cache."""
        self._lock = multiprocessing.get_context().Lock()


def affordable(megabytes: int, *, batches: int = 0, ranks: int = 1) -> tuple[int, str]:
    """How many of so many MB a rank can share here, and a line to announce where that is fewer.

    batches: bytes that the rank's workers need there beside it. ranks: on this machine, each with a cache of its own."""
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
