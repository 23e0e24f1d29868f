"""The references with which the tests of the kernels compare."""

from collections.abc import Callable

import torch
from torch import Tensor

from convnextv2.kernels import choice

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2}


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).abs().max() / expected.abs().max())


def gradients(y: Tensor, weights: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad((y * weights.to(y.dtype)).sum(), leaves))


def both_kernels(run: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Return the result of the native kernels, and that of PyTorch's operations."""
    try:
        choice.choose("plain")
        expected = run()
    finally:
        choice.choose("auto")
    return run(), expected
