"""The choice of kernels in this process: our own, or PyTorch's operations.

Our own kernels are written in C++ for the CPU and in Triton for NVIDIA GPUs. PyTorch's operations
are used if our kernels are not available or do not agree with PyTorch, and on every other device.
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
    """Let torch.compile call a function once, while tracing, and keep its result as a constant.

    This does the same as torch.compiler.assume_constant_result. That function would import all of
    torch.compile, which takes as long as torch itself, at the start of every command.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def choose(choice: Choice, device: torch.device | None = None) -> str:
    """Set which kernels run in this process.

    A change makes torch.compile compile again, because compiled graphs contain the kernels that
    were chosen when they were traced.

    Args:
        choice: "auto" uses our kernels if they are available, "native" requires them, and "plain"
            uses only PyTorch's operations.
        device: The device that this process computes on; None for the CPU.

    Returns:
        The kernels that run on this device: "native", "plain", or "plain" with the reason.

    Raises:
        DeviceError: The choice is "native", but the kernels cannot be used, or the device has none.
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
    """Return why our kernels cannot run on a device other than the CPU; "" if they can."""
    if device.type != "cuda":
        return f"there are none for {device.type}"
    index = torch.cuda.current_device() if device.index is None else device.index
    return reason_against(index, torch.float32)


def chosen() -> Choice:
    """Return the choice that `choose` has set, to pass it on to other processes."""
    return _choice


def in_use(device: torch.device | None = None) -> str:
    """Return the name of the kernels that run on a device, or on the CPU if it is None.

    On the CPU they are "native", "native (x86-64-v3)" or another level if they come from a wheel,
    or "plain". Elsewhere they are "Triton" or "PyTorch's".
    """
    if device is not None and device.type != "cpu":
        return "PyTorch's" if _choice == "plain" or _against(device) else "Triton"
    if not are_on():
        return "plain"
    return f"native ({level()})" if level() else "native"


def are_used_for(x: Tensor) -> bool:
    """Return whether our own kernels compute with a tensor.

    They support float32 and bfloat16 on the CPU and also float16 on a GPU, with or without autocast
    to one of these. They are not used while a graph is exported, because the program that reads the
    graph does not have them.
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
    """Return whether the CPU library is available and may be used."""
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
    # torch.compile must not trace this function: inside a trace, PyTorch 2.9 and 2.10 report every
    # compilation as an export. The second condition holds within torch.jit.trace, with which
    # OpenVINO reads a model.
    return torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None
