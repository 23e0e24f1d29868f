"""The inverse of the places of runs, which the kernels for GPUs read."""

from __future__ import annotations

import torch
from torch import Tensor


def run_table(places: Tensor, images: int, size: tuple[int, int], run: int) -> Tensor:
    """Invert the places of runs: find the run at each place.

    Nothing here waits for the device. A place outside all canvases is an error on each device, as
    it is for PyTorch's own indexing.

    Args:
        places: int64 (images * runs,), each run's place among the images * height * (width // run)
            of all canvases.
        images: The number of canvases.
        size: Height and width of a canvas, in positions.
        run: Positions in a run.

    Returns:
        int32 (images * height * (width // run),): the number of the run, counted within its image,
        or -1 where there is none.
    """
    cells, runs = images * size[0] * (size[1] // run), places.numel() // max(1, images)
    table = torch.full((cells,), -1, dtype=torch.int32, device=places.device)
    numbers = torch.arange(runs, dtype=torch.int32, device=places.device)
    return table.index_copy_(0, places, numbers.repeat(images))
