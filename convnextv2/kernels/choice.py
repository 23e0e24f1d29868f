"""Which kernels this process runs: our own, or PyTorch's operations.

Our own are the compiled library's on the CPU, and Triton's on an NVIDIA GPU. The plain PyTorch
forms run if there is no compiler, if the kernels do not agree with PyTorch, and on every other
device.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor

from convnextv2.errors import DeviceError
from convnextv2.kernels.gpus import reason_against
from convnextv2.kernels.library import level, load
from convnextv2.kernels.selfcheck import CPU, GPU

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


def choose(choice: Choice, device: torch.device | None = None) -> str:
    """Set which kernels run in this process.

    A change makes torch.compile start anew, because compiled graphs hold the kernels of the time
    when they were traced.

    Args:
        choice: "auto" takes the native kernels if they can be compiled. "native" insists on them.
            "plain" takes PyTorch's operations only.
        device: The device that this process computes on; None for the CPU.

    Returns:
        What the choice comes to on this device: "native", "plain", or "plain" and the reason.

    Raises:
        DeviceError: The choice is "native", and the kernels cannot be compiled, or the device has
            none.
    """
    global _choice
    changed = (choice == "plain") != (_choice == "plain")
    _choice = choice
    if changed and "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
    if choice == "plain":
        return "plain"
    if device is not None and device.type != "cpu":
        reason, remedy = _against(device), ""
    else:
        found = load()
        reason = found if isinstance(found, str) else ""
        remedy = "Install a C++ compiler, set CONVNEXTV2_CACHE to a folder of your own, or "
    if reason and choice == "native":
        raise _missing(reason, remedy)
    return f"plain ({reason})" if reason else "native"


def _missing(reason: str, remedy: str) -> DeviceError:
    use = "use auto or plain." if remedy else "Use auto or plain."
    return DeviceError(f"kernels = native: {reason}. {remedy}{use}")


def _against(device: torch.device) -> str:
    """Say why a device that is no CPU does without the kernels; "" if it has them."""
    if device.type != "cuda":
        return f"there are none for {device.type}"
    index = torch.cuda.current_device() if device.index is None else device.index
    return reason_against(index, torch.float32)


def chosen() -> Choice:
    """Return what `choose` has set, for other processes that are to do the same."""
    return _choice


def in_use(device: torch.device | None = None) -> str:
    """Return which kernels run on a device; None for the CPU.

    On the CPU they are "native", "native (x86-64-v3)" or another level if a wheel brought them, or
    "plain". Elsewhere they are "Triton" or "PyTorch's".
    """
    if device is not None and device.type != "cpu":
        return "PyTorch's" if _choice == "plain" or _against(device) else "Triton"
    if not are_on():
        return "plain"
    return f"native ({level()})" if level() else "native"


def are_used_for(x: Tensor) -> bool:
    """Say whether our own kernels take a tensor.

    They take float32 and bfloat16 on the CPU, float16 too on a GPU, also under autocast to one of
    these. They do not while a graph is exported, because its reader does not have them.
    """
    kind = x.device.type
    if kind not in ("cpu", "cuda"):
        return False
    dtypes = CPU if kind == "cpu" else GPU
    cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    if x.dtype not in dtypes or cast not in dtypes:
        return False
    if kind == "cpu":
        return are_on() and not _is_traced()
    index = x.device.index
    return _are_on_gpu(index, x.dtype) and _are_on_gpu(index, cast) and not _is_traced()


@_constant
def are_on() -> bool:
    """Say whether the library is there and is to be used, whatever the tensor."""
    return _choice != "plain" and not isinstance(load(), str)


@_constant
def _are_on_gpu(index: int, dtype: torch.dtype) -> bool:
    if _choice == "plain":
        return False
    reason = reason_against(index, dtype)
    if reason and _choice == "native":
        raise _missing(reason, "")
    return not reason


@_constant
def _is_traced() -> bool:
    # This is asked here and not where torch.compile reads on: there, PyTorch 2.9 and 2.10 take
    # every compilation for an export. The state is that of torch.jit.trace, with which OpenVINO
    # reads a model.
    return torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None
