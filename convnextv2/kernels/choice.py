"""Which kernels this process runs on the CPU: those of the compiled library, or PyTorch's operations.

Without a compiler, where the library does not agree, and on every device but the CPU, the plain PyTorch forms run.
"""

from __future__ import annotations

import sys
from typing import Literal

import torch
from torch import Tensor

from convnextv2.errors import DeviceError
from convnextv2.kernels.library import load

Choice = Literal["auto", "native", "plain"]

_choice: Choice = "auto"


def choose(choice: Choice) -> str:
    """Set for this process which kernels run on the CPU; returns what that comes to, in words.

    "auto": native where they can be compiled. "native": the same, and DeviceError with the reason where they cannot. "plain":
    PyTorch's operations only. Where that is a change, what torch.compile has made in this process so far is made anew: compiled
    graphs hold the kernels of the time when they were traced."""
    global _choice
    changed = (choice == "plain") != (_choice == "plain")
    _choice = choice
    if changed and "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
    if choice == "plain":
        return "plain"
    found = load()
    if isinstance(found, str):
        if choice == "native":
            raise DeviceError(
                f"kernels = native: {found}. Install a C++ compiler, set CONVNEXTV2_CACHE to a "
                "folder of your own, or use auto or plain."
            )
        return f"plain ({found})"
    return "native"


def chosen() -> Choice:
    """What `choose` has set, for processes that are to do the same."""
    return _choice


def in_use() -> str:
    """Which kernels run on the CPU, "native" or "plain": what the choice comes to on this machine."""
    return "native" if are_on() else "plain"


def are_used_for(x: Tensor) -> bool:
    """Whether the native kernels take this tensor: on the CPU, float32 or bfloat16, in autocast too, and not while a graph is
    exported."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and (
            not torch.is_autocast_enabled("cpu")
            or torch.get_autocast_dtype("cpu") in (torch.float32, torch.bfloat16)
        )
        and are_on()
        and not _is_traced()
    )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def are_on() -> bool:
    """Whether the library is there and is to be used, whatever the tensor."""
    return _choice != "plain" and not isinstance(load(), str)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_traced() -> bool:
    # Asked here, not where torch.compile reads on: there, PyTorch 2.9 and 2.10 take every compilation
    # for an export. The state is that of torch.jit.trace, by which OpenVINO reads a model.
    return torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None
