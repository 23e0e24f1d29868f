"""Checks that the sizes of tensors are consistent, one for each operation.

Kernels compute addresses from sizes and check nothing, so with a wrong size they would read or
write outside their tensors. Each check takes the arguments of its operation in
`kernels.operations`, and raises ValueError. Only shapes and dtypes are checked, so nothing here
waits for a device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _check_shape(name: str, value: Tensor, *expected: int) -> None:
    if value.shape != expected:
        raise ValueError(f"{name} has the shape {tuple(value.shape)}, expected {expected}")


def _check_images(x: Tensor, images: int) -> None:
    """Check that the positions of x can be divided evenly among the images."""
    positions = x.numel() // max(1, x.shape[-1])
    if images < 0 or (positions and (not images or positions % images)):
        raise ValueError(
            f"x has the shape {tuple(x.shape)}, whose {positions} positions cannot be those of "
            f"{images} images"
        )


def _check_layout(x: Tensor, places: Tensor | None, table: Tensor | None, shape: list[int]) -> None:
    """Check that runs fit on canvases; the places themselves are not read here."""
    images, runs, run, height, width, channels = shape
    fits = (
        runs * run == height * width
        if places is None
        else places.numel() == images * runs and places.dtype == torch.int64
    )
    # If x has elements, `run` is at least 1.
    if x.numel() != images * runs * run * channels or (x.numel() and (width % run or not fits)):
        raise ValueError(
            f"{images} x {runs} runs of {run} positions do not fit on canvases of {height} x "
            f"{width}"
        )
    if table is not None:
        _check_shape("runs", table, images * height * (width // max(1, run)))
    elif x.is_cuda and places is not None:
        raise ValueError("runs is None, expected the run_table of the places, which a GPU needs")


def depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    places: Tensor | None,
    runs: Tensor | None,
    shape: list[int],
) -> None:
    """Check the arguments of the convolution."""
    _check_layout(x, places, runs, shape)
    _check_shape("weight", weight, 49, shape[-1])
    if bias is not None:
        _check_shape("bias", bias, shape[-1])


def depthwise_weight(
    x: Tensor, gradient: Tensor, places: Tensor | None, runs: Tensor | None, shape: list[int]
) -> None:
    """Check the arguments of the gradient of the convolution's weight."""
    _check_layout(x, places, runs, shape)
    _check_shape("gradient", gradient, *x.shape)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> None:
    """Check the arguments of layer normalisation."""
    _check_shape("weight", weight, x.shape[-1])
    _check_shape("bias", bias, x.shape[-1])


def layer_norm_backward(
    x: Tensor, gradient: Tensor, weight: Tensor, means: Tensor, rstds: Tensor
) -> None:
    """Check the arguments of the gradients of layer normalisation."""
    _check_shape("gradient", gradient, *x.shape)
    _check_shape("weight", weight, x.shape[-1])
    for name, moments in (("means", means), ("rstds", rstds)):
        _check_shape(name, moments, math.prod(x.shape[:-1]))


def sums(x: Tensor, images: int, *_: object) -> None:
    """Check the arguments of sums over the positions of each image."""
    _check_images(x, images)


def gelu_scale(x: Tensor, scale: Tensor, shift: Tensor, tanh: bool) -> None:
    """Check the arguments of the scaled GELU."""
    _check_images(x, len(scale))
    _check_shape("scale", scale, len(scale), x.shape[-1])
    _check_shape("shift", shift, x.shape[-1])


def gelu_products(x: Tensor, gradient: Tensor, images: int, tanh: bool) -> None:
    """Check the arguments of the sums of products with GELU."""
    _check_images(x, images)
    _check_shape("gradient", gradient, *x.shape)


def gelu_backward(x: Tensor, gradient: Tensor, scale: Tensor, pull: Tensor, tanh: bool) -> None:
    """Check the arguments of the gradient of GELU."""
    _check_images(x, len(scale))
    _check_shape("gradient", gradient, *x.shape)
    _check_shape("scale", scale, len(scale), x.shape[-1])
    _check_shape("pull", pull, *scale.shape)


def cross_entropy(logits: Tensor, targets: Tensor) -> None:
    """Check the arguments of the cross entropy of pixels."""
    _check_logits(logits, 4)
    if targets.ndim != 3 or len(targets) != len(logits) or targets.dtype != torch.int64:
        raise ValueError(
            f"targets are {targets.dtype} and have the shape {tuple(targets.shape)}, expected "
            f"torch.int64 and ({len(logits)}, height, width)"
        )
    if targets.numel():
        _check_values(logits)


def cross_entropy_gradient(logits: Tensor, targets: Tensor, gradient: Tensor) -> None:
    """Check the arguments of the gradient of the cross entropy of pixels."""
    cross_entropy(logits, targets)
    _check_shape("gradient", gradient, *targets.shape)


def largest_class(logits: Tensor, covered: list[float], size: list[int]) -> None:
    """Check the arguments of the classes of pixels."""
    _check_logits(logits, 3)
    if len(size) != 2 or len(covered) != 2:
        raise ValueError(f"covered is {covered} and size is {size}, expected two numbers for each")
    if min(size) < 0:
        raise ValueError(f"size is {size}, expected numbers >= 0")
    if not all(math.isfinite(extent) and extent >= 0 for extent in covered):
        raise ValueError(f"covered is {covered}, expected finite numbers >= 0")
    if math.prod(size):
        _check_values(logits)
    if logits.shape[-1] > 1 << 15:
        raise ValueError(f"{logits.shape[-1]} classes, expected at most {1 << 15}")


def _check_logits(logits: Tensor, dimensions: int) -> None:
    if logits.ndim != dimensions or logits.dtype != torch.float32:
        raise ValueError(
            f"logits are {logits.dtype} and have the shape {tuple(logits.shape)}, expected "
            f"torch.float32 and {dimensions} dimensions"
        )


def _check_values(logits: Tensor) -> None:
    if not logits.numel():
        raise ValueError(f"logits have the shape {tuple(logits.shape)}, which has no values")
