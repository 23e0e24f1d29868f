"""Compute the gradients of a step.

They are summed in the fastest way, or in an order that does not depend on the number of ranks.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from convnextv2.distributed import Place
from convnextv2.training.elastic import GradientTree
from convnextv2.training.health import gradient_norm
from convnextv2.training.shard import scalar
from convnextv2.training.task import Task


def backward(
    model: nn.Module,
    task: Task,
    batches: list[Any],
    scaler: torch.amp.GradScaler,
    dtype: torch.dtype,
    place: Place,
    generator: torch.Generator,
) -> list[Tensor]:
    """Add the mean gradient of some batches to the gradients of the parameters.

    Args:
        model: The network, wrapped if gradients are averaged over ranks.
        task: The task, which computes the loss.
        batches: Batches with images.
        scaler: The scaler of gradients in float16.
        dtype: The precision of the forward pass.
        place: This rank.
        generator: The source of all random numbers of the loss.

    Returns:
        The loss of each batch, a scalar that the device may still compute.
    """
    losses = []
    for i, batch in enumerate(batches):
        with nullcontext() if i == len(batches) - 1 else no_sync(model):
            with place.autocast(dtype):
                loss = task.loss(model, batch, generator)
            scaler.scale(loss / len(batches)).backward()
        losses.append(loss.detach())
    return losses


def backward_in_order(
    model: nn.Module,
    task: Task,
    batches: list[Any],
    scaler: torch.amp.GradScaler,
    dtype: torch.dtype,
    place: Place,
    tree: GradientTree,
    *,
    seed: int,
    step: int,
) -> list[Tensor]:
    """Compute the gradient of each batch, and let the tree add them in a fixed order.

    Args:
        model: The network.
        task: The task, which computes the loss.
        batches: All batches of the step. Some may have no images.
        scaler: The scaler of gradients in float16.
        dtype: The precision of the forward pass.
        place: This rank.
        tree: Adds the gradients.
        seed: The seed of the run.
        step: The number of steps before this one.

    Returns:
        The loss of each batch with images, a scalar that the device may still compute.
    """
    losses = []
    for i, batch in enumerate(batches):
        has_images = task.size(batch) > 0
        if has_images:
            generator = tree.generator(seed, step, i)
            seed_from(generator)
            with place.autocast(dtype):
                loss = task.loss(model, batch, generator)
            scaler.scale(loss).backward()
            losses.append(loss.detach())
        tree.take(has_images=has_images)
    return losses


def seed_from(generator: torch.Generator) -> None:
    """Seed PyTorch's own random numbers, such as those of drop path, from a step's generator."""
    torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))


def clip(model: nn.Module, largest: float | None) -> Tensor:
    """Scale the gradient down to a maximum norm, if one is given.

    Args:
        model: The model that has the gradient.
        largest: The maximum norm; None for no limit.

    Returns:
        The norm of the gradient before it was scaled, a scalar.
    """
    if largest is None:
        return scalar(gradient_norm(model.parameters()))
    return scalar(torch.nn.utils.clip_grad_norm_(model.parameters(), largest))


def no_sync(model: nn.Module) -> Any:
    """Return a context in which gradients are accumulated on this rank without being averaged.

    The gradients of a sharded model are always averaged. Keeping them would take the memory of a
    whole model, which sharding avoids.
    """
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return nullcontext()
