"""Refuses second derivatives, which the kernels do not support."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch.autograd.function import once_differentiable

Result = TypeVar("Result")


def first_derivatives_only(backward: Callable[..., Result]) -> Callable[..., Result]:
    """Make a backward pass refuse to be differentiated, because kernels have no graph.

    PyTorch's `once_differentiable` refuses only if the incoming gradient has a graph. That of a
    mean, for example, has none, and the second derivatives would be silently wrong.

    Args:
        backward: The backward pass of a `torch.autograd.Function`.

    Returns:
        A backward pass that raises RuntimeError under `create_graph=True`.
    """
    once = once_differentiable(backward)

    @wraps(backward)
    def checked(ctx: Any, *gradients: torch.Tensor) -> Result:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "the kernels have no second derivatives (create_graph=True). Use kernels = plain, "
                "or convnextv2.kernels.choice.choose('plain')."
            )
        return once(ctx, *gradients)

    return checked
