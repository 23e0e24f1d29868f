"""The device, the sizes and the timing of the measurements on a GPU."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from convnextv2.kernels import choice
from convnextv2.model.convnext import ConvNeXtV2, create_model
from convnextv2.model.fcmae import draw_masks

Row = dict[str, Any]
Work = Callable[[], object]
RATIO = 0.6
"""Share of the tiles that is masked, as in the paper."""


@dataclass
class Bench:
    """The device of the measurements, and the sizes of networks and batches.

    Attributes:
        device: The GPU, or the CPU for the self-test.
        interpret: Whether this is the self-test.
        seconds: The time for which each contestant is measured, in seconds.
        copy_gb_s: The bandwidth of a copy in GB/s; 0 until it is measured.
    """

    device: torch.device
    interpret: bool
    seconds: float
    copy_gb_s: float = 0.0

    def synchronise(self) -> None:
        """Wait until the device has finished all its work."""
        if not self.interpret:
            torch.cuda.synchronize(self.device)

    def network(self, size: str, num_classes: int | None) -> ConvNeXtV2:
        """Build a network on the device; a very small one for the self-test."""
        torch.manual_seed(0)
        if self.interpret:
            return ConvNeXtV2((1, 1, 1, 1), (8, 8, 8, 8), num_classes=num_classes)
        return create_model(f"convnextv2_{size}", num_classes=num_classes).to(self.device)

    def batch(self, images: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, float32 (N, 3, H, W), and their visible and masked tiles."""
        images, side = (2, 64) if self.interpret else (images, 224)
        grid = side // 32, side // 32
        masks = draw_masks(images, grid, RATIO, torch.Generator().manual_seed(0))
        pixels = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(1))
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        visible, masked = (tiles.to(self.device) for tiles in masks)
        return pixels.to(self.device), visible, masked

    def noise(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw numbers from N(0, 1)."""
        return torch.randn(*shape, device=self.device).to(dtype)

    def timed(self, work: Work, times: int) -> float:
        """Return the median seconds of one call, in rounds of `times` calls without waiting."""
        times = 1 if self.interpret else times
        for _ in range(1 if self.interpret else 3):
            work()
        rounds: list[float] = []
        end = time.perf_counter() + self.seconds
        while len(rounds) < 3 or time.perf_counter() < end:
            self.synchronise()
            start = time.perf_counter()
            for _ in range(times):
                work()
            self.synchronise()
            rounds.append((time.perf_counter() - start) / times)
        return median(rounds)

    @contextmanager
    def peak(self) -> Iterator[list[float]]:
        """Measure the largest memory of tensors in the `with` block, in GiB; nothing on a CPU."""
        found: list[float] = []
        gc.collect()
        if not self.interpret:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        yield found
        if not self.interpret:
            found.append(torch.cuda.max_memory_allocated(self.device) / 2**30)


def choose(bench: Bench, kernels: str) -> None:
    """Choose the kernels. With the interpreter they are plain, since a step would take hours.

    Args:
        bench: The device of the measurements.
        kernels: "native" (an error if the GPU cannot use them), "plain" or "auto".
    """
    name: Any = "plain" if bench.interpret else kernels
    choice.choose(name, bench.device)


def first_line(error: BaseException) -> str:
    """Return the kind and the first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160] if text else ''}"
