"""Which kernels this process runs on the CPU: the compiled library's, or PyTorch's operations.

The plain PyTorch forms run if there is no compiler, if the library does not agree with PyTorch, and
on every device but the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor

from convnextv2.errors import DeviceError
from convnextv2.kernels.library import level, load

Choice = Literal["auto", "native", "plain"]
Answer = TypeVar("Answer", bound=Callable[..., object])

_choice: Choice = "auto"


def _constant(function: Answer) -> Answer:
    """Let torch.compile ask a function once, while it traces.

    This is torch.compiler.assume_constant_result, which would import all of torch.compile for it:
    as much again as torch itself, at the start of every command.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def choose(choice: Choice) -> str:
    """Set which kernels run on the CPU in this process.

    A change makes torch.compile start anew, because compiled graphs hold the kernels of the time
    when they were traced.

    Args:
        choice: "auto" takes the native kernels if they can be compiled. "native" insists on them.
            "plain" takes PyTorch's operations only.

    Returns:
        What the choice comes to on this machine: "native", "plain", or "plain" and the reason.

    Raises:
        DeviceError: The choice is "native", and the kernels cannot be compiled.
    """
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
    """Return what `choose` has set, for other processes that are to do the same."""
    return _choice


def in_use() -> str:
    """Return which kernels run on the CPU of this machine.

    They are "native", "native (x86-64-v3)" or another level if a wheel brought them, or "plain".
    """
    if not are_on():
        return "plain"
    return f"native ({level()})" if level() else "native"


def are_used_for(x: Tensor) -> bool:
    """Say whether the native kernels take a tensor.

    They take float32 and bfloat16 on the CPU, under autocast to one of these too. They do not while
    a graph is exported, because its reader does not have them.
    """
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


@_constant
def are_on() -> bool:
    """Say whether the library is there and is to be used, whatever the tensor."""
    return _choice != "plain" and not isinstance(load(), str)


@_constant
def _is_traced() -> bool:
    # This is asked here and not where torch.compile reads on: there, PyTorch 2.9 and 2.10 take
    # every compilation for an export. The state is that of torch.jit.trace, with which OpenVINO
    # reads a model.
    return torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None
