"""Shard the weights, gradients and moments of a model over the ranks.

This is PyTorch's FSDP2 (`torch.distributed.fsdp.fully_shard`). Each rank keeps 1 / ranks of every
tensor along its first axis. The weights of a block are gathered before its forward or backward
pass and freed after it. Gradients are averaged and sharded in one collective (reduce-scatter).

A sharded parameter is a DTensor. The optimizer, the moving average and checkpoints work on the
shards. Sources: S. Rajbhandari and others, ZeRO, 2020 (stage 3); Y. Zhao and others, PyTorch FSDP,
2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

from convnextv2.checkpoint_shards import Allocate
from convnextv2.distributed import Place
from convnextv2.model.layers import Block


def shares_model(shard: bool, place: Place) -> bool:
    """Return whether the model is to be sharded, which needs the knob and several ranks."""
    return shard and place.world_size > 1


def skeleton(shard: bool, place: Place) -> AbstractContextManager[object]:
    """Build a network without memory for its weights if this rank gets them from rank 0.

    Args:
        shard: The knob `shard`.
        place: This rank.

    Returns:
        A context in which new tensors are on the meta device, if the model is going to be sharded
        and this is not rank 0.
    """
    is_empty = shares_model(shard, place) and not place.is_main
    return torch.device("meta") if is_empty else nullcontext()


def shard_model(model: nn.Module, place: Place) -> None:
    """Shard the parameters of a model over the ranks, with the values of rank 0.

    Values are sent tensor by tensor, so that only rank 0 ever holds the whole model. All ranks must
    call this together. An optimizer and an average must be built afterwards, because this replaces
    the parameters by new objects.

    Args:
        model: The model. On ranks other than the first, it may be on the meta device.
        place: This rank.
    """
    from torch.distributed.fsdp import fully_shard

    values = _values(model) if place.is_main else {}
    model.to("meta")
    if place.device.type != "cpu":  # otherwise the mesh chooses a device by itself
        torch.accelerator.set_device_index(place.device)
    mesh = _mesh(place.device.type, place.world_size)
    for module in _units(model):
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to_empty(device=place.device)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        with torch.no_grad():
            # The layout in memory is that of the model, so that the same kernels run.
            whole = torch.empty(tensor.shape, dtype=tensor.dtype, device=place.device)
            if place.is_main:
                whole.copy_(values.pop(name))
            dist.broadcast(whole, 0)
            tensor.copy_(placed_like(tensor, whole))


def is_sharded(model: nn.Module) -> bool:
    """Return whether `shard_model` was called on a model."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor, or the tensor itself if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def placed_like(tensor: Tensor, value: Tensor) -> Tensor:
    """Shard a value in the same way as a tensor, so that one can be copied to the other.

    Args:
        tensor: A tensor of the model, which may be sharded.
        value: A tensor of the same shape. If it is not sharded, every rank must have all of it.
    """
    if not isinstance(tensor, DTensor) or isinstance(value, DTensor):
        return value
    value = value.to(tensor.device)
    return distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None)


def gathered(tensors: Mapping[str, Tensor], place: Place) -> dict[str, Tensor]:
    """Gather sharded tensors on the CPU of rank 0. All ranks must call this together.

    Args:
        tensors: The tensors by name.
        place: This rank.

    Returns:
        Whole tensors on rank 0; an empty dictionary on the others.
    """
    whole = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if place.is_main:
            whole[name] = tensor.cpu()
    return whole


def scalar(tensor: Tensor) -> Tensor:
    """Return a number computed from sharded tensors as a scalar. All ranks must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def whole_model(model: nn.Module) -> Iterator[None]:
    """Hold all weights on every rank for the `with` block, in which no gradients are computed.

    Ranks may evaluate different numbers of images. If weights were gathered block by block, a rank
    with one image more would wait for the others forever.

    Args:
        model: Any model. One that is not sharded is left as it is.
    """
    from torch.distributed.fsdp import FSDPModule

    if not isinstance(model, FSDPModule):
        yield
        return
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for buffer in model.buffers():  # each rank has statistics of its own images
        dist.broadcast(buffer, 0)
    model.set_reshard_after_forward(False)
    for unit in units:
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
        model.set_reshard_after_forward(True)
        model.set_reshard_after_forward(False, recurse=False)


class CpuShards:
    """Makes copies of sharded tensors on the CPU that are sharded in the same way."""

    def __init__(self) -> None:
        self._mesh: DeviceMesh | None = None

    def part_of(self, tensor: Tensor) -> Tensor:
        """Return this rank's part of a tensor, without its gradient."""
        return local(tensor.detach())

    def as_part_of(self, tensor: Tensor, part: Tensor) -> Tensor:
        """Return a part on the CPU as the DTensor that it belongs to.

        Args:
            tensor: The tensor, on any device. If it is not sharded, the part is all of it.
            part: A copy of this rank's part.
        """
        if not isinstance(tensor, DTensor):
            return part
        mesh = tensor.device_mesh
        if mesh.device_type != "cpu":
            self._mesh = mesh = self._mesh or _mesh("cpu", mesh.size())
        # Without the shape, PyTorch would guess it from this part, wrongly if parts are unequal.
        return DTensor.from_local(
            part, mesh, tensor.placements, run_check=False, shape=tensor.shape,
            stride=tensor.stride(),
        )  # fmt: skip


def allocator_for(model: nn.Module) -> Allocate | None:
    """Return a function that allocates the tensors into which a checkpoint of a model is read.

    Args:
        model: The model.

    Returns:
        A function of the key of a tensor in a checkpoint, its shape and its dtype. Tensors of the
        same shape as their parameter are sharded like it. None if the model is not sharded.
    """
    if not is_sharded(model):
        return None
    parameters = dict(model.named_parameters())

    def allocate(key: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
        parameter = parameters.get(key.partition("/")[2].partition("|")[0])
        if isinstance(parameter, DTensor) and parameter.shape == size:
            return torch.empty_like(parameter.detach(), dtype=dtype)
        return torch.empty(size, dtype=dtype)

    return allocate


def _units(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that are gathered one at a time, the blocks.

    The rest, such as the stem and the head, is gathered once for forward and backward.
    """
    return (module for module in model.modules() if isinstance(module, Block))


def _values(model: nn.Module) -> dict[str, Tensor]:
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor.detach() for name, tensor in tensors}


def _mesh(device_type: str, ranks: int) -> DeviceMesh:
    return init_device_mesh(device_type, (ranks,))
