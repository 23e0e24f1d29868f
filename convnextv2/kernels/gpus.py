"""Finds out, before their first use, whether the kernels for GPUs run on a GPU of this machine.

Triton then compiles them for this very GPU, and caches the result (TRITON_CACHE_DIR). Each kernel
is compared with PyTorch once per process, but only in the dtypes that are used, since compiling
takes seconds for each dtype.
"""

from __future__ import annotations

import sys
from functools import cache, partial
from importlib.util import find_spec

import torch

from convnextv2.kernels.selfcheck import GPU, disagreement

MIN_CAPABILITY = (8, 0)
"""Older GPUs lack bfloat16 arithmetic, and newer versions of Triton do not support all of them."""


@cache
def reason_against(index: int, dtype: torch.dtype) -> str:
    """Return why a GPU cannot use the kernels.

    A failure of the compiler or a wrong result is also printed to stderr, since it is unexpected.
    The answer is cached, so that kernels are compared once for each GPU and dtype.

    Args:
        index: The index of the GPU in PyTorch.
        dtype: The dtype of the activations.

    Returns:
        The reason; "" if the GPU can use them.
    """
    if torch.version.cuda is None:
        return "PyTorch is not built for CUDA"
    if find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(index)
    if capability < MIN_CAPABILITY:
        own, least = (".".join(map(str, pair)) for pair in (capability, MIN_CAPABILITY))
        return f"the GPU has compute capability {own}, and the kernels need {least}"
    try:
        from convnextv2.kernels.gpu.call import call

        device = torch.device("cuda", index)
        reason = disagreement(partial(call, device), {dtype: GPU[dtype]}, on_gpu=True)
    except Exception as error:  # raised by Triton, the compiler or the driver
        text = str(error).strip().splitlines() or [type(error).__name__]
        reason = f"Triton did not build them: {text[0][:200]}"
    if reason:
        print(f"Kernels of the GPU: plain ({reason}).", file=sys.stderr)
    return reason
