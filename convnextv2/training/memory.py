"""How much memory a training step will want, before it is tried."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from convnextv2.distributed import Place, available_memory


def saved_for_backward(model: nn.Module, forward: Callable[[nn.Module], Tensor]) -> int:
    """Bytes of distinct tensors that autograd keeps for the backward pass, counted on the meta device: nothing is computed.
    PyTorch's kernels are counted; our own on the CPU keep less.

    forward: runs a copy of the model on meta tensors and returns a scalar."""
    on_meta = copy.deepcopy(model).to("meta").train()
    parameters = {parameter.untyped_storage()._cdata for parameter in on_meta.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = forward(on_meta)
    total = sum(tensor.untyped_storage().nbytes() for storage, tensor in kept.items() if storage not in parameters)
    del loss
    return total


def memory_notes(
    model: nn.Module,
    forward: Callable[[nn.Module, int], Tensor],
    *,
    batch_size: int,
    averaged: bool,
    precision: torch.dtype,
    place: Place,
) -> list[str]:
    """A line that names the batch that fits, where the estimate for `batch_size` is above what the device has; else nothing.

    The estimate: activations kept for the backward pass, and weights, gradients, AdamW's two moments and the average."""
    free = available_memory(place.device)
    if free is None:
        return []
    probe = 2
    per_image = (
        saved_for_backward(model, lambda on_meta: forward(on_meta, probe)) / probe * precision.itemsize / torch.float32.itemsize
    )
    fixed = sum(parameter.nbytes for parameter in model.parameters()) * (5 if averaged else 4)
    ranks_here = place.local_world_size if place.device.type == "cpu" else 1
    if ranks_here * (fixed + batch_size * per_image) <= free:
        return []
    fits = int((free / ranks_here - fixed) / per_image)
    need, have = (fixed + batch_size * per_image) * ranks_here / 2**30, free / 2**30
    remedy = (
        f"a batch_size of {fits} would fit; use --accumulate to keep the global batch"
        if fits >= 1
        else "even one image will not fit; use a smaller model"
    )
    return [f"batch_size = {batch_size}: about {need:.1f} GiB of memory are needed and {have:.1f} GiB are free: {remedy}."]
