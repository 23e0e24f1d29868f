"""Pieces of work that take turns, and the groups in which they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convnextv2.device import choose_precision
from convnextv2.kernels import choice

Work = Callable[[], object]
SIZE = 224
CPU_BATCH = {"atto": 32, "tiny": 16}


@dataclass(frozen=True)
class Group:
    """Contestants that take turns in one process.

    Attributes:
        work: What is done, such as "fcmae".
        build: Makes the contestants by name. With `only`, it makes the ones with these names.
        images: Images in one repetition.
        model: The size of the network; empty if the work has none.
        precision: The name of the dtype; empty if it is the same for all, or differs among them.
        case: What else distinguishes the group from others of the same work.
        x: The group's place on the axis of a curve; None if it belongs to no curve.
        contestants: The contestants that take part; empty for all.
        memory_of: The contestants whose memory is measured, each in a process of its own.
        needs: A package whose import does not count as a contestant's memory.
    """

    work: str
    build: Callable[..., dict[str, Work]]
    images: int
    model: str = ""
    precision: str = ""
    case: str = ""
    x: float | None = None
    contestants: tuple[str, ...] = ()
    memory_of: tuple[str, ...] = ()
    needs: str = ""

    @property
    def name(self) -> str:
        """The name of the group, by which it is asked for and its file is called."""
        parts = (self.work, self.model, self.precision, self.case)
        return " ".join(part for part in parts if part)

    def all_works(self) -> dict[str, Work]:
        """Make the contestants that take part."""
        return self.build(only=self.contestants) if self.contestants else self.build()


def batches(device: torch.device) -> dict[str, int]:
    """Return the batch of each size of network. An accelerator is fed more."""
    times = 1 if device.type == "cpu" else 4
    return {size: batch * times for size, batch in CPU_BATCH.items()}


def precisions(device: torch.device) -> list[torch.dtype]:
    """Return float32, and bfloat16 if the device computes with it."""
    if choose_precision("auto", device) == torch.bfloat16:
        return [torch.float32, torch.bfloat16]
    return [torch.float32]


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype without its module."""
    return str(dtype).removeprefix("torch.")


def random_images(batch: int, device: torch.device, image_size: int = SIZE) -> Tensor:
    """Draw images, the same for every contestant."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, image_size, image_size)
    return images.to(device, memory_format=torch.channels_last)


def has_kernels(device: torch.device) -> bool:
    """Return whether there are kernels of our own for a device, beside PyTorch's."""
    return device.type in ("cpu", "cuda")


def choose(kernels: str, device: torch.device) -> None:
    """Choose our kernels.

    Args:
        kernels: "native" or "plain". With "", the choice stays, for models that are not ours.
        device: Where they are to run.
    """
    if kernels:
        name: Any = kernels if has_kernels(device) else "plain"
        choice.choose(name, device)


def step(
    model: nn.Module,
    loss_of: Callable[[], Tensor],
    dtype: torch.dtype,
    kernels: str,
    device: torch.device,
) -> Work:
    """Make a whole step: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def work() -> None:
        choose(kernels, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return work
