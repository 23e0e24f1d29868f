"""Copies to a device."""

from typing import Any

import torch

from convnextv2.device import to_device


class HostMemory:
    """A stand-in for a CPU tensor that records calls, for a machine without a GPU to copy to."""

    device = torch.device("cpu")

    def __init__(self, pinned: bool) -> None:
        self._pinned = pinned
        self.calls: list[Any] = []

    def is_pinned(self) -> bool:
        return self._pinned

    def pin_memory(self) -> "HostMemory":
        self.calls.append("pin")
        return self

    def to(self, device: torch.device, non_blocking: bool = False) -> "HostMemory":
        self.calls.append((device.type, non_blocking))
        return self


def test_copies_to_a_gpu_are_queued_from_pinned_memory() -> None:
    for pinned in (True, False):
        memory = HostMemory(pinned)
        to_device(memory, torch.device("cuda", 0))  # type: ignore[arg-type]
        assert memory.calls == ["pin"] * (not pinned) + [("cuda", True)]


def test_other_copies_wait() -> None:
    memory = HostMemory(pinned=False)
    to_device(memory, torch.device("mps"))  # type: ignore[arg-type]
    assert memory.calls == [("mps", False)]
    x = torch.ones(3)
    assert to_device(x, torch.device("cpu")) is x
