"""A cache of decoded images in shared memory, so that a small data set is decoded only once."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor

# Linux keeps the memory that processes share here. In containers it is often very small.
_SHARED = Path("/dev/shm")


class DecodedCache:
    """Decoded images by index. Images that do not fit are decoded again each time.

    Args:
        images: The number of indices.
        megabytes: The size of the cache, in 10^6 bytes. It is allocated at once, so that a lack of
            memory is an error here, and does not kill a worker with SIGBUS during an epoch.
    """

    def __init__(self, images: int, megabytes: int) -> None:
        self._pixels = torch.empty(megabytes * 10**6, dtype=torch.uint8).share_memory_()
        # Each row is offset, channels, height and width; -1 if the image is not in the cache.
        self._places = torch.full((images, 4), -1).share_memory_()
        self._used = torch.zeros((), dtype=torch.int64).share_memory_()
        self._lock = multiprocessing.get_context().Lock()

    def get(self, index: int) -> Tensor | None:
        """Return an image, uint8 (C, H, W), which must not be changed; None if it is not cached."""
        with self._lock:
            offset, channels, height, width = self._places[index].tolist()
        if offset < 0:
            return None
        length = channels * height * width
        return self._pixels[offset : offset + length].view(height, width, channels).permute(2, 0, 1)

    def put(self, index: int, pixels: Tensor) -> None:
        """Store an image, uint8 (C, H, W), if there is room left."""
        length = pixels.numel()
        with self._lock:
            offset = int(self._used)
            if self._places[index, 0] >= 0 or offset + length > len(self._pixels):
                return
            # The offset is written last, so that a reader that finds it also finds the pixels. A
            # process may be killed between any two of these lines; its part of the memory is then
            # lost, but no image is wrong.
            self._used += length
            self._pixels[offset : offset + length] = pixels.permute(1, 2, 0).reshape(-1)
            self._places[index, 1:] = torch.tensor(pixels.shape)
            self._places[index, 0] = offset

    def renew_lock(self) -> None:
        """Replace the lock, which a killed process may hold. No other process may use the cache."""
        self._lock = multiprocessing.get_context().Lock()


def affordable(megabytes: int, *, batches: int = 0, ranks: int = 1) -> tuple[int, str]:
    """Limit the size of a cache to the free shared memory.

    Args:
        megabytes: The requested size, in 10^6 bytes.
        batches: The shared memory that the rank's workers need for batches, in bytes.
        ranks: The number of ranks on this machine. Each has its own cache.

    Returns:
        The size for this rank, in 10^6 bytes; and a message if it is smaller than requested, else
        "".
    """
    free = shutil.disk_usage(_SHARED).free if _SHARED.is_dir() else None
    if free is None or megabytes * 10**6 <= 0.9 * free / ranks - batches:
        return megabytes, ""
    used = max(0, int((0.9 * free / ranks - batches) / 10**6))
    left = f"{free // 10**6} MB left" + (f" for {ranks} ranks" if ranks > 1 else "")
    what = f"{used} used" if used else "no cache is used, since the workers' batches need it"
    return (
        used,
        f"cache_mb = {megabytes}: {_SHARED} has {left}; {what}. In a container, raise --shm-size.",
    )
