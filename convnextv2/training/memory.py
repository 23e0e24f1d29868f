"""Estimate how much memory a training step needs, and warn if it is too much."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from convnextv2.device import available_memory
from convnextv2.distributed import Place

_PROBES = (2, 4)
"""Images in the two steps that are measured. Memory is extrapolated linearly from them."""

USABLE = 0.9
"""Share of the free memory that a batch found by the search may take at its peak."""

ALLOCATOR = 2.2
"""Upper bound of the bytes that a step takes on the CPU for each byte of its tensors.

With glibc, whose allocator keeps freed memory that it cannot join, 0.9 to 1.7 bytes were measured,
and 2.1 with grad_checkpoint.
"""

_EXHAUSTED = re.compile(
    "out of memory|not enough memory|can't allocate memory|CU\\w+_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)


class _Watch(TorchDispatchMode):
    """Counts the bytes of all live tensors after each operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._seen: dict[int, tuple[StorageWeakRef, int]] = {}
        self._at_most = 0  # bytes of all storages in `_seen`, of which some may be freed

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        # The result of an operation may share its storage with the arguments.
        for tensor in tree_leaves((args, result)):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._seen:
                    self._seen[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                    self._at_most += storage.nbytes()
        # Looking for tensors that are gone takes long, so it is done only if the peak may be new.
        if self._at_most > self.peak:
            self._seen = {key: held for key, held in self._seen.items() if not held[0].expired()}
            self._at_most = sum(size for _, size in self._seen.values())
            self.peak = max(self.peak, self._at_most)
        return result


def peak_of_step(model: nn.Module, forward: Callable[[nn.Module], Tensor]) -> int:
    """Count the bytes of all live tensors at the peak of a forward and a backward pass.

    Both passes run on the meta device, where nothing is computed. Weights and their gradients are
    included, but not the state of an optimizer. PyTorch's kernels are assumed; our own CPU kernels
    take less.

    Args:
        model: Any model. A copy of it is used.
        forward: Runs the copy on meta tensors and returns a scalar.
    """
    on_meta = copy.deepcopy(model).to("meta").train()
    with _Watch() as watch:
        forward(on_meta).backward()
    return watch.peak


@dataclass(frozen=True)
class Need:
    """Estimated memory that training takes on one rank, in bytes.

    Attributes:
        fixed: Weights, gradients, the two moments of AdamW and the average.
        per_image: Memory for each image at the peak of a step.
    """

    fixed: int
    per_image: float


def estimate(
    model: nn.Module,
    forward: Callable[[nn.Module, int], Tensor],
    *,
    averaged: bool,
    precision: torch.dtype,
) -> Need:
    """Estimate the memory of training without computing anything.

    Args:
        model: The model that is trained.
        forward: Takes the model on the meta device and a number of images, and returns a scalar.
        averaged: Whether a moving average of the weights is kept.
        precision: The precision of the forward pass.
    """
    few, more = (peak_of_step(model, partial(_with_images, forward, images)) for images in _PROBES)
    per_image = (more - few) / (_PROBES[1] - _PROBES[0])
    weights = sum(parameter.nbytes for parameter in model.parameters())
    moments = weights * (3 if averaged else 2)
    beside_images = max(0, few - _PROBES[0] * per_image)
    scale = precision.itemsize / torch.float32.itemsize
    return Need(fixed=moments + int(beside_images), per_image=per_image * scale)


def _need_at_most(
    model: nn.Module, forward: Callable[[nn.Module, int], Tensor], batch_size: int, averaged: bool
) -> float:
    """Return an upper bound of the bytes that `estimate` finds, from one step instead of two."""
    few = peak_of_step(model, partial(_with_images, forward, _PROBES[0]))
    weights = sum(parameter.nbytes for parameter in model.parameters())
    beside_weights = (few - weights) * max(1, batch_size / _PROBES[0])
    return weights * (4 if averaged else 3) + beside_weights


def _with_images(
    forward: Callable[[nn.Module, int], Tensor], images: int, model: nn.Module
) -> Tensor:
    return forward(model, images)


def largest_batch_by_estimate(
    model: nn.Module,
    forward: Callable[[nn.Module, int], Tensor],
    *,
    averaged: bool,
    precision: torch.dtype,
    place: Place,
    extra_per_image: int = 0,
) -> int | None:
    """Estimate how many images each rank can take at once.

    Args:
        model: The model that is trained.
        forward: See `estimate`.
        averaged: Whether a moving average of the weights is kept.
        precision: The precision of the forward pass.
        place: This rank. On the CPU, all ranks of the machine share its memory.
        extra_per_image: Bytes for each image that training takes outside the network.

    Returns:
        The number of images with which all ranks of this machine stay below 90 % of the free
        memory. It is 0 if not even one fits, and None if the device does not report its free
        memory.
    """
    free = available_memory(place.device)
    if free is None:
        return None
    need = estimate(model, forward, averaged=averaged, precision=precision)
    taken = need.per_image * (ALLOCATOR if place.device.type == "cpu" else 1)
    share = USABLE * free / _ranks_here(place) - need.fixed
    return max(0, int(share / (taken + extra_per_image)))


def memory_notes(
    model: nn.Module,
    forward: Callable[[nn.Module, int], Tensor],
    *,
    batch_size: int,
    averaged: bool,
    precision: torch.dtype,
    place: Place,
    shards: int = 1,
) -> list[str]:
    """Warn if a batch is estimated to need more memory than the device has.

    Args:
        model: The model that is trained.
        forward: See `estimate`.
        batch_size: Images in a batch.
        averaged: Whether a moving average of the weights is kept.
        precision: The precision of the forward pass.
        place: This rank.
        shards: The number of ranks that share weights, gradients and moments.

    Returns:
        A line that names a batch size that fits, or no line if `batch_size` fits.
    """
    free = available_memory(place.device)
    if free is None:
        return []
    ranks_here = _ranks_here(place)
    if ranks_here * _need_at_most(model, forward, batch_size, averaged) <= free:
        return []
    found = estimate(model, forward, averaged=averaged, precision=precision)
    fixed, per_image = found.fixed / shards, found.per_image
    if ranks_here * (fixed + batch_size * per_image) <= free:
        return []
    fits = int((free / ranks_here - fixed) / per_image)
    need, have = (fixed + batch_size * per_image) * ranks_here / 2**30, free / 2**30
    remedy = (
        f"a batch_size of {fits} would fit; batch_size auto keeps the global batch by accumulation"
        if fits >= 1
        else "even one image will not fit; use a smaller model"
    )
    return [
        f"batch_size = {batch_size}: about {need:.1f} GiB of memory are needed and {have:.1f} GiB "
        f"are free: {remedy}."
    ]


def _ranks_here(place: Place) -> int:
    """Return how many ranks share the memory of this one."""
    return place.local_world_size if place.device.type == "cpu" else 1


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of the device or the machine is used up.

    PyTorch has an error class for this only on CUDA and XPU. Elsewhere, the message is examined.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _EXHAUSTED.search(str(error)) is not None


def out_of_memory_text(
    error: BaseException, *, batch_size: int, accumulate: int, device: torch.device
) -> str:
    """Return one line that says that a batch does not fit, and what to do.

    Args:
        error: An error for which `out_of_memory` is true.
        batch_size: Images in the batch that did not fit.
        accumulate: Batches in a step.
        device: The device whose memory is used up.
    """
    asked = re.search(r"tried to allocate ([\d.]+ ?\w+)", str(error), re.IGNORECASE)
    detail = f" ({asked[1]} more were requested)" if asked else ""
    remedies = "Use --grad_checkpoint True, which takes less memory and more time."
    if batch_size > 1:
        smaller = max(size for size in range(1, batch_size // 2 + 1) if batch_size % size == 0)
        remedies = (
            "Use --batch_size auto, which finds what fits and keeps the images of a step; or "
            f"--batch_size {smaller} --accumulate {batch_size // smaller * accumulate}, which "
            "keeps them too; or --grad_checkpoint True, which takes less memory and more time."
        )
    return f"batch_size = {batch_size}: the memory of {device} is used up{detail}. {remedies}"
