"""Layers of ConvNeXt V2 that use the operations of the kernels, with their gradients.

Activations are channels-last, (N, ..., C), in float32 or bfloat16, or on a GPU also in float16.
Statistics and sums are float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convnextv2.kernels.operations  # noqa: F401 - registers torch.ops.convnextv2
from convnextv2.kernels.choice import are_used_for
from convnextv2.kernels.derivatives import first_derivatives_only


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        places: Tensor | None,
        runs: Tensor | None,
        shape: tuple[int, ...],
    ) -> Tensor:
        return torch.ops.convnextv2.depthwise(x, _by_tap(weight), bias, places, runs, shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, places, runs, shape = inputs
        ctx.save_for_backward(x, weight, places, runs)
        ctx.shape = shape

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, places, runs = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:  # the same convolution with the kernel rotated by 180 degrees
            of_x = torch.ops.convnextv2.depthwise(
                gradient, _by_tap(weight).flip(0), None, places, runs, ctx.shape
            )
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            both = torch.ops.convnextv2.depthwise_weight(x, gradient, places, runs, ctx.shape)
            of_weight, of_bias = both[:49].view(7, 7, 1, -1).permute(3, 2, 0, 1), both[49]
        return of_x, of_weight, of_bias, None, None, None


def _by_tap(weight: Tensor) -> Tensor:
    """Turn a weight (C, 1, 7, 7) into float32 (49, C), one row for each tap."""
    return weight.detach().permute(2, 3, 1, 0).reshape(49, -1).float()


def _in_autocast(x: Tensor) -> Tensor:
    """Cast as autocast casts the input of a convolution or linear layer."""
    if torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


def depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    places: Tensor | None,
    size: tuple[int, int],
    runs: Tensor | None = None,
) -> Tensor:
    """Convolve each channel of some positions by itself, with a 7 x 7 kernel.

    The positions come in runs, each within one row of a canvas that is 0 elsewhere and beyond its
    edges. The result is computed at the same positions.

    Args:
        x: (N, runs, run, C).
        weight: (C, 1, 7, 7).
        bias: (C,).
        places: int64 (N * runs,), each run's place among the N * height * (width // run) of all
            canvases. None if x is the whole canvas.
        size: Height and width of a canvas, in positions.
        runs: `run_table` of the places, which only a GPU needs.

    Returns:
        x's shape, in its dtype or in autocast's.

    Raises:
        IndexError: A place is outside its image's canvas (on the CPU; on a GPU, see `run_table`).
        ValueError: The runs do not fit on canvases of this size.
    """
    x = _in_autocast(x)
    images, count, run, channels = x.shape
    return _Depthwise.apply(x, weight, bias, places, runs, (images, count, run, *size, channels))


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ops.convnextv2.layer_norm(x, weight, bias, eps)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        x, weight, _, _ = inputs
        _, means, rstds = output
        ctx.mark_non_differentiable(means, rstds)
        ctx.save_for_backward(x, weight, means, rstds)

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, means, rstds = ctx.saved_tensors
        of_x, of_both = torch.ops.convnextv2.layer_norm_backward(x, gradient, weight, means, rstds)
        return of_x, of_both[0], of_both[1], None


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise over the channels, on a GPU.

    Args:
        x: (..., C).
        weight: (C,).
        bias: (C,).
        eps: Added to the variance before the square root is taken.

    Returns:
        x's shape and dtype.
    """
    y: Tensor = _LayerNorm.apply(x, weight, bias, eps)[0]
    return y


def _norm_and_scale(squares: Tensor, gamma: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    norm = squares.sqrt()
    return norm, 1 + gamma * (norm / (norm.mean(-1, keepdim=True) + eps))


class _GeluGRN(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, gamma: Tensor, beta: Tensor, images: int, eps: float, tanh: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        norm, scale = _norm_and_scale(
            torch.ops.convnextv2.gelu_squares(x, images, tanh), gamma, eps
        )
        return torch.ops.convnextv2.gelu_scale(x, scale, beta.float(), tanh), norm, scale

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        x, gamma, _, images, eps, tanh = inputs
        _, norm, scale = output
        ctx.mark_non_differentiable(norm, scale)
        ctx.save_for_backward(x, gamma, norm, scale)
        ctx.images, ctx.eps, ctx.tanh = images, eps, tanh

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, norm, scale = ctx.saved_tensors
        products, sums = torch.ops.convnextv2.gelu_products(
            x, gradient, ctx.images, ctx.tanh
        ).unbind(1)
        mean = norm.mean(-1, keepdim=True) + ctx.eps
        of_ratio = gamma * products
        of_norm = of_ratio / mean - (of_ratio * norm).mean(-1, keepdim=True) / mean.square()
        # A channel that is 0 everywhere has gradient 0.
        pull = torch.where(norm > 0, of_norm / norm, 0)
        of_x = torch.ops.convnextv2.gelu_backward(x, gradient, scale, pull, ctx.tanh)
        return of_x, (products * norm / mean).sum(0), sums.sum(0), None, None, None


def gelu_grn(
    x: Tensor, gamma: Tensor, beta: Tensor, *, images: int, eps: float, tanh: bool
) -> Tensor:
    """Compute GRN(GELU(x)). The backward pass keeps x and nothing else of its size.

    Args:
        x: (N, ..., C).
        gamma: (C,).
        beta: (C,).
        images: N for statistics of each image, 1 for those of all together.
        eps: Added to the mean norm before the division.
        tanh: Whether GELU has its tanh form instead of the exact one.

    Returns:
        x's shape and dtype.
    """
    y: Tensor = _GeluGRN.apply(x, gamma, beta, images, eps, tanh)[0]
    return y


def mlp_without_gradients(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *,
    images: int,
    eps: float,
    tanh: bool,
) -> Tensor:
    """Compute W2 GRN(GELU(W1 x)) without gradients, on the CPU.

    GELU is fused into the first linear layer where PyTorch supports that. If an image has more than
    twice as many positions as the second layer has outputs, GRN is folded into that layer's weight
    and bias.

    Args:
        x: float32 or bfloat16 (N, ..., I).
        weight1: (C, I).
        bias1: (C,).
        gamma: (C,).
        beta: (C,).
        weight2: (O, C).
        bias2: (O,).
        images: N for statistics of each image, 1 for those of all together.
        eps: Added to the mean norm before the division.
        tanh: Whether GELU has its tanh form instead of the exact one.

    Returns:
        (N, ..., O), in x's dtype or in autocast's.
    """
    x = _in_autocast(x)
    dtype, (outputs, channels) = x.dtype, weight2.shape
    with torch.autocast("cpu", enabled=False):
        y = torch.ops.convnextv2.linear_gelu(x, weight1.to(dtype), bias1.to(dtype), tanh)
        _, scale = _norm_and_scale(torch.ops.convnextv2.squares(y, images), gamma.float(), eps)
        y = y.view(images, y.numel() // max(1, images * channels), channels)
        if y.shape[1] > 2 * outputs:
            bias = F.linear(beta.float(), weight2.float(), bias2.float()).to(dtype)
            y = torch.baddbmm(bias, y, (weight2.float() * scale[:, None]).to(dtype).transpose(1, 2))
        else:
            y = torch.addcmul(beta.to(dtype), y, scale[:, None].to(dtype))
            y = F.linear(y, weight2.to(dtype), bias2.to(dtype))
        return y.view(*x.shape[:-1], outputs)


class ResponseNorm(Protocol):
    """The GRN in the middle of `mlp`: its parameters, and a call that computes its plain form."""

    gamma: nn.Parameter
    beta: nn.Parameter
    scope: str
    eps: float

    def __call__(self, x: Tensor) -> Tensor: ...  # noqa: D102


def mlp(
    x: Tensor,
    first: nn.Module,
    grn: ResponseNorm | None,
    second: nn.Module,
    *,
    gelu: str,
    pick: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Compute second(pick(grn(gelu(first(x))))) in the fastest applicable form.

    The form depends on the tensor, the layers, and whether gradients are needed.

    Args:
        x: (N, ..., I).
        first: A layer from I to C channels.
        grn: The layer between the two; None for none.
        second: A layer from C to O channels.
        gelu: "none" or "tanh", as `torch.nn.functional.gelu` takes it.
        pick: Selects the positions that the second layer sees; None for all.

    Returns:
        (N, ..., O).
    """
    if grn is None:
        y = F.gelu(first(x), approximate=gelu)
    elif are_used_for(x):
        images = x.shape[0] if grn.scope == "image" else 1
        tanh = gelu == "tanh"
        alone = pick is None and not torch.is_grad_enabled() and x.device.type == "cpu"
        if alone and _is_bare_linear(first) and _is_bare_linear(second):
            return mlp_without_gradients(
                x,
                first.weight,
                first.bias,
                grn.gamma,
                grn.beta,
                second.weight,
                second.bias,
                images=images,
                eps=grn.eps,
                tanh=tanh,
            )
        y = gelu_grn(first(x), grn.gamma, grn.beta, images=images, eps=grn.eps, tanh=tanh)
    else:
        y = grn(F.gelu(first(x), approximate=gelu))
    return second(y if pick is None else pick(y))


def _is_bare_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Return whether calling a module computes a linear layer with a bias and nothing else.

    An adapter, a quantised layer, a hook or a replaced `forward` would compute something else.
    """
    return (
        type(module) is nn.Linear
        and module.bias is not None
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and "forward" not in module.__dict__
    )
