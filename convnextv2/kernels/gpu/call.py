"""Calls a GPU kernel like a function of the C++ library, so that one comparison serves both."""

from __future__ import annotations

import torch
from torch import Tensor

from convnextv2.kernels.gpu.depthwise import depthwise, depthwise_weight
from convnextv2.kernels.gpu.gelu_grn import (
    gelu_backward,
    gelu_products,
    gelu_scale,
    gelu_squares,
)
from convnextv2.kernels.gpu.layer_norm import layer_norm, layer_norm_backward
from convnextv2.kernels.run_table import run_table


def call(device: torch.device, name: str, x: Tensor, *arguments: Tensor | int | None) -> None:
    """Compute a function of `kernels.selfcheck` on a GPU.

    Args:
        device: The GPU.
        name: The function.
        x: Unused. The library needs it for the dtype, which the tensors have here.
        *arguments: The arguments of the function, on the CPU and in order. The last is the tensor
            that receives the result.
    """
    *given, out = arguments
    assert isinstance(out, Tensor)
    result: Tensor
    moved = [value.to(device) if isinstance(value, Tensor) else value for value in given]
    tensors = [value for value in moved if isinstance(value, Tensor)]
    numbers = [value for value in moved if isinstance(value, int)]
    if name.startswith("depthwise"):
        images, _, run, height, width, _ = numbers
        places = runs = None
        if moved[0] is not None:
            places, *tensors = tensors
            runs = run_table(places, images, (height, width), run)
        if name == "depthwise":
            result = depthwise(tensors[0], tensors[1], tensors[2], places, runs, numbers)
        else:
            result = depthwise_weight(tensors[0], tensors[1], places, runs, numbers)
    elif name.startswith("layer_norm"):
        x, gradient, weight, bias = tensors
        result, means, rstds = layer_norm(x, weight, bias, 1e-6)
        if name != "layer_norm":
            of_x, of_both = layer_norm_backward(x, gradient, weight, means, rstds)
            result = of_x if name == "layer_norm_backward" else of_both
    else:
        tanh, images = bool(numbers[0]), numbers[1]
        if name == "gelu_squares":
            result = gelu_squares(tensors[0], images, tanh)
        elif name == "gelu_scale":
            result = gelu_scale(tensors[0], tensors[1], tensors[2], tanh)
        elif name == "gelu_products":
            result = gelu_products(tensors[0], tensors[1], images, tanh)
        else:
            assert name == "gelu_backward", name
            result = gelu_backward(tensors[0], tensors[1], tensors[2], tensors[3], tanh)
    out.copy_(result.view(out.shape))
