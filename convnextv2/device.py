"""The device of this process, the precision that it computes in, and the memory that it has."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import Tensor

from convnextv2.errors import DeviceError, RecipeError
from convnextv2.machine import available_cores, free_host_memory

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str | torch.device, local_rank: int = 0) -> torch.device:
    """Return the device that a user means.

    Args:
        name: "auto" for the accelerator if there is one, else the CPU; "gpu" for cuda; "ascend" for
            npu; or a device of PyTorch.
        local_rank: Which accelerator of the host, if the name has no number.

    Raises:
        DeviceError: The device does not exist. Nothing falls back to the CPU silently.
    """
    name = str(name).lower()
    name = {"gpu": "cuda", "ascend": "npu"}.get(name, name)
    if find_spec("torch_npu"):
        import torch_npu  # type: ignore[import-not-found]  # noqa: F401  # registers the "npu" device
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        name = accelerator.type if accelerator else "cpu"
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda", "npu", "mps", "xpu"):
        raise DeviceError(f"device = {name!r}: expected auto, cpu, cuda, npu, mps or xpu.")
    if kind == "cpu":
        bound_threads()
        return torch.device("cpu")
    if accelerator is None or accelerator.type != kind:
        has = (
            f"this machine has {accelerator.type}" if accelerator else "this machine has only a CPU"
        )
        raise DeviceError(f"device = {name!r}: not available, {has}. Use device auto or cpu.")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device = {name!r}: expected {kind} or {kind}:NUMBER.") from error
    index = local_rank if device.index is None else device.index
    count = torch.accelerator.device_count()
    if index >= count:
        raise DeviceError(
            f"device = {name!r}: there is no device {index}, this machine has {count}. "
            "Start fewer ranks on it."
        )
    torch.accelerator.set_device_index(index)
    return torch.device(device.type, index)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device, in training without waiting for a GPU.

    A copy from ordinary memory makes the host wait until the GPU has finished all earlier work. A
    copy from pinned memory is queued, and PyTorch keeps that memory until the copy is done.

    Args:
        tensor: Pinned by the loader, or small.
        device: Where the copy is needed.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
    return pinned.to(device, non_blocking=True)


def choose_precision(setting: str, device: torch.device) -> torch.dtype:
    """Return the dtype of autocast.

    Args:
        setting: A dtype by name, or "auto": bfloat16 if the device computes with it natively,
            float16 on GPUs whose tensor cores support only that (Volta, Turing), else float32.
        device: The device of this rank.

    Raises:
        RecipeError: There is no such setting.
    """
    if setting in _DTYPES:
        return _DTYPES[setting]
    if setting != "auto":
        raise RecipeError(f"precision = {setting}: expected one of auto, {', '.join(_DTYPES)}.")
    if device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    elif device.type == "cuda":
        generation = torch.cuda.get_device_capability(device)[0]
        if generation == 7:
            return torch.float16
        native = generation >= 8
    else:
        native = device.type in ("npu", "xpu")
    return torch.bfloat16 if native else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return a context in which the forward pass computes in `dtype`.

    With float32, an autocast around it is switched off.
    """
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def bound_threads(local_ranks: int = 1) -> None:
    """Let PyTorch start no more threads than there are cores for this process.

    PyTorch counts the cores of the machine. If more threads compute than a container's quota
    allows, the system suspends them in the middle of each operation. OMP_NUM_THREADS takes
    precedence.

    Args:
        local_ranks: How many processes share the cores.
    """
    share = max(1, available_cores() // local_ranks)
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > share:
        torch.set_num_threads(share)


def available_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a device, or None if it does not report them."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_host_memory() if device.type == "cpu" else None
