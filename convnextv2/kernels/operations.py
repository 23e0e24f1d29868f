"""The kernels as operations of PyTorch: the library's on the CPU, Triton's on a GPU.

torch.compile includes them in its graphs unchanged. Whether they are used is decided in `choice`,
not here. Kernels read and write memory at addresses that follow from sizes, so each operation first
checks that the sizes of its tensors are consistent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from convnextv2.kernels import checks
from convnextv2.kernels.library import call, floats
from convnextv2.kernels.sources import IS_X86

_OPERATIONS = torch.library.Library("convnextv2", "DEF")


def _operation(
    schema: str,
    run: Callable[..., Any] | None,
    fake: Callable[..., Any],
    *,
    check: Callable[..., None] | None = None,
    gpu: str | None = None,
) -> None:
    """Define an operation.

    Args:
        schema: Its name and signature.
        run: Computes it on the CPU; None if it has no implementation there.
        fake: Returns empty tensors of the result's shape and dtype.
        check: Raises ValueError if sizes are inconsistent; None if `run` checks them.
        gpu: The module in `kernels.gpu` that has a function with the operation's name; None if it
            has no implementation there.
    """
    _OPERATIONS.define(schema)
    name = schema.partition("(")[0]
    if run is not None:
        _OPERATIONS.impl(name, checked(check, run), "CPU")
    if gpu is not None:
        _OPERATIONS.impl(name, checked(check, _with_triton(gpu, name)), "CUDA")
    torch.library.register_fake(f"convnextv2::{name}", fake, lib=_OPERATIONS)


def checked(check: Callable[..., None] | None, run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that checks its arguments before it computes."""
    if check is None:
        return run

    def run_checked(*arguments: Any) -> Any:
        check(*arguments)
        return run(*arguments)

    return run_checked


def _with_triton(module: str, name: str) -> Callable[..., Any]:
    """Return a function that imports a kernel, and thus Triton, when it is first called."""

    def run(*arguments: Any) -> Any:
        return getattr(import_module(f"convnextv2.kernels.gpu.{module}"), name)(*arguments)

    return run


def _depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    places: Tensor | None,
    runs: Tensor | None,
    shape: list[int],
) -> Tensor:
    x, y = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel():
        places = _inside(places, shape)
        bias = None if bias is None else floats(bias)
        call("depthwise", x, places, *shape, x, floats(weight), bias, y)
    return y


def _depthwise_weight(
    x: Tensor, gradient: Tensor, places: Tensor | None, runs: Tensor | None, shape: list[int]
) -> Tensor:
    x, gradient = x.contiguous(), gradient.contiguous()
    result = x.new_zeros(50, shape[-1], dtype=torch.float32)
    if x.numel():
        call("depthwise_weight", x, _inside(places, shape), *shape, x, gradient, result)
    return result


def _inside(places: Tensor | None, shape: list[int]) -> Tensor | None:
    """Return the places, contiguous, after checking that they lie on the canvases.

    Raises:
        IndexError: A place is outside its image's canvas.
    """
    if places is None:
        return None
    images, runs, run, height, width, _ = shape
    places = places.contiguous()
    per_image = height * (width // run)
    first = torch.arange(0, images * per_image, per_image, device=places.device)
    least, most = places.view(images, runs).aminmax(dim=1)
    if bool(((least < first) | (most >= first + per_image)).any()):
        raise IndexError(
            f"places lie outside their image's canvas of {height} x {width}: a tile's index is out "
            "of range"
        )
    return places


def _gelu_squares(x: Tensor, images: int, tanh: bool) -> Tensor:
    x, channels = x.contiguous(), x.shape[-1]
    sums = x.new_zeros(images, channels, dtype=torch.float32)
    if x.numel():
        call(
            "gelu_squares",
            x,
            int(tanh),
            images,
            x.numel() // (images * channels),
            channels,
            x,
            sums,
        )
    return sums


def _linear_gelu(x: Tensor, weight: Tensor, bias: Tensor, tanh: bool) -> Tensor:
    """Compute GELU(W x + b).

    If PyTorch's oneDNN has a fused operation for this dtype and processor, GELU is computed from
    the float32 sums. torch.compile uses that operation too, but it is not a public part of PyTorch,
    so it may be missing.
    """
    form, fused = "tanh" if tanh else "none", torch.ops.mkldnn
    if (
        IS_X86
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(fused, "_linear_pointwise")
        and (
            x.dtype == torch.float32
            or (hasattr(fused, "_is_mkldnn_bf16_supported") and fused._is_mkldnn_bf16_supported())
        )
    ):
        return fused._linear_pointwise(x, weight, bias, "gelu", [], form)
    return F.gelu(F.linear(x, weight, bias), approximate=form)


def _squares(x: Tensor, images: int) -> Tensor:
    x, channels = x.contiguous(), x.shape[-1]
    sums = x.new_zeros(images, channels, dtype=torch.float32)
    if x.numel():
        call("squares", x, images, x.numel() // (images * channels), channels, x, sums)
    return sums


def _gelu_scale(x: Tensor, scale: Tensor, shift: Tensor, tanh: bool) -> Tensor:
    x, y = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    images, channels = scale.shape
    if x.numel():
        positions = x.numel() // (images * channels)
        call(
            "gelu_scale",
            x,
            int(tanh),
            images,
            positions,
            channels,
            x,
            floats(scale),
            floats(shift),
            y,
        )
    return y


def _gelu_products(x: Tensor, gradient: Tensor, images: int, tanh: bool) -> Tensor:
    x, gradient, channels = x.contiguous(), gradient.contiguous(), x.shape[-1]
    sums = x.new_zeros(images, 2, channels, dtype=torch.float32)
    if x.numel():
        call(
            "gelu_products",
            x,
            int(tanh),
            images,
            x.numel() // (images * channels),
            channels,
            x,
            gradient,
            sums,
        )
    return sums


def _gelu_backward(x: Tensor, gradient: Tensor, scale: Tensor, pull: Tensor, tanh: bool) -> Tensor:
    x, gradient = x.contiguous(), gradient.contiguous()
    result = torch.empty_like(x)
    images, channels = scale.shape
    if x.numel():
        positions = x.numel() // (images * channels)
        pointers = (x, gradient, floats(scale), floats(pull), result)
        call("gelu_backward", x, int(tanh), images, positions, channels, *pointers)
    return result


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    logits, targets = logits.contiguous(), _known(targets, logits.shape[-1])
    losses = logits.new_zeros(targets.shape)
    if logits.numel() and targets.numel():
        call("cross_entropy", logits, *logits.shape, *targets.shape[1:], logits, targets, losses)
    return losses


def _cross_entropy_gradient(logits: Tensor, targets: Tensor, gradient: Tensor) -> Tensor:
    logits, targets = logits.contiguous(), _known(targets, logits.shape[-1])
    result = torch.zeros_like(logits)
    if logits.numel() and targets.numel():
        sizes, pointers = (*logits.shape, *targets.shape[1:]), (logits, targets, floats(gradient))
        call("cross_entropy_gradient", logits, *sizes, *pointers, result)
    return result


def _largest_class(logits: Tensor, covered: list[float], size: list[int]) -> Tensor:
    logits, found = logits.contiguous(), logits.new_zeros(size, dtype=torch.int16)
    if found.numel():
        extent = torch.tensor(covered, dtype=torch.float64, device=logits.device)
        call("largest_class", logits, *logits.shape, *size, extent, logits, found)
    return found


def _known(targets: Tensor, classes: int) -> Tensor:
    """Return the targets, contiguous, after checking that they are classes or -1.

    Raises:
        IndexError: A target is neither.
    """
    if targets.numel():
        least, most = targets.aminmax()
        if least < -1 or most >= classes:
            wrong = int(most if most >= classes else least)
            raise IndexError(f"target {wrong}: expected 0 to {classes - 1}, or -1 for none")
    return targets.contiguous()


def _like(x: Tensor, *others: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


_operation(
    "depthwise(Tensor x, Tensor weight, Tensor? bias, Tensor? places, Tensor? runs, "
    "SymInt[] shape) -> Tensor",
    _depthwise,
    _like,
    check=checks.depthwise,
    gpu="depthwise",
)
_operation(
    "depthwise_weight(Tensor x, Tensor gradient, Tensor? places, Tensor? runs, SymInt[] shape) "
    "-> Tensor",
    _depthwise_weight,
    lambda x, gradient, places, runs, shape: x.new_empty(50, shape[-1], dtype=torch.float32),
    check=checks.depthwise_weight,
    gpu="depthwise",
)
_operation(
    "layer_norm(Tensor x, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor, Tensor)",
    None,  # on the CPU, PyTorch's own runs
    lambda x, weight, bias, eps: (
        _like(x),
        *(x.new_empty(math.prod(x.shape[:-1]), dtype=torch.float32) for _ in range(2)),
    ),
    check=checks.layer_norm,
    gpu="layer_norm",
)
_operation(
    "layer_norm_backward(Tensor x, Tensor gradient, Tensor weight, Tensor means, "
    "Tensor rstds) -> (Tensor, Tensor)",
    None,
    lambda x, *others: (_like(x), x.new_empty(2, x.shape[-1], dtype=torch.float32)),
    check=checks.layer_norm_backward,
    gpu="layer_norm",
)
_operation(
    "gelu_squares(Tensor x, SymInt images, bool tanh) -> Tensor",
    _gelu_squares,
    lambda x, images, tanh: x.new_empty(images, x.shape[-1], dtype=torch.float32),
    check=checks.sums,
    gpu="gelu_grn",
)
_operation(
    "linear_gelu(Tensor x, Tensor weight, Tensor bias, bool tanh) -> Tensor",
    _linear_gelu,
    lambda x, weight, bias, tanh: x.new_empty(*x.shape[:-1], weight.shape[0]),
)
_operation(
    "squares(Tensor x, SymInt images) -> Tensor",
    _squares,
    lambda x, images: x.new_empty(images, x.shape[-1], dtype=torch.float32),
    check=checks.sums,
)
_operation(
    "gelu_scale(Tensor x, Tensor scale, Tensor shift, bool tanh) -> Tensor",
    _gelu_scale,
    _like,
    check=checks.gelu_scale,
    gpu="gelu_grn",
)
_operation(
    "gelu_products(Tensor x, Tensor gradient, SymInt images, bool tanh) -> Tensor",
    _gelu_products,
    lambda x, gradient, images, tanh: x.new_empty(images, 2, x.shape[-1], dtype=torch.float32),
    check=checks.gelu_products,
    gpu="gelu_grn",
)
_operation(
    "gelu_backward(Tensor x, Tensor gradient, Tensor scale, Tensor pull, bool tanh) -> Tensor",
    _gelu_backward,
    _like,
    check=checks.gelu_backward,
    gpu="gelu_grn",
)


_operation(
    "cross_entropy(Tensor logits, Tensor targets) -> Tensor",
    _cross_entropy,
    lambda logits, targets: logits.new_empty(targets.shape),
    check=checks.cross_entropy,
)
_operation(
    "cross_entropy_gradient(Tensor logits, Tensor targets, Tensor gradient) -> Tensor",
    _cross_entropy_gradient,
    _like,
    check=checks.cross_entropy_gradient,
)
_operation(
    "largest_class(Tensor logits, float[] covered, SymInt[] size) -> Tensor",
    _largest_class,
    lambda logits, covered, size: logits.new_empty(size, dtype=torch.int16),
    check=checks.largest_class,
)


@register_flop_formula([torch.ops.convnextv2.depthwise, torch.ops.convnextv2.depthwise_weight])
def _depthwise_flops(x_shape: torch.Size, *others: object, out_shape: object = None) -> int:
    return 2 * 49 * x_shape.numel()


@register_flop_formula(torch.ops.convnextv2.linear_gelu)
def _linear_flops(
    x_shape: torch.Size, weight_shape: torch.Size, *others: object, out_shape: object = None
) -> int:
    return 2 * x_shape.numel() * weight_shape[0]
