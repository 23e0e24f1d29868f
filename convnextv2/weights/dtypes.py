"""The floating-point types that weights are stored in, and what can be computed in them."""

from __future__ import annotations

import torch
from torch import Tensor


def is_readable(dtype: torch.dtype) -> bool:
    """Return whether each element of a tensor of this type is one floating-point number.

    Numbers of four bits share an element with another one, and PyTorch cannot convert them.
    """
    return dtype.is_floating_point and dtype != torch.float4_e2m1fn_x2


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which to compute with numbers of a type: at least float32.

    `torch.promote_types` would say the same, but raises an error for numbers of eight bits, for
    which PyTorch has hardly any operation.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor holds neither NaN nor infinite numbers."""
    # PyTorch has no isfinite for floating-point numbers of eight bits.
    eight_bits = tensor.is_floating_point() and tensor.itemsize == 1
    return bool((tensor.float() if eight_bits else tensor).isfinite().all())
