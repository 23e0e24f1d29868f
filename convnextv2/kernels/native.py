"""The C++ of native.cpp: compiled at first use where there is a compiler, compared with the plain forms, and cached.

Without a compiler, where it does not agree, and on every device but the CPU, the plain PyTorch forms run.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from convnextv2.errors import DeviceError
from convnextv2.kernels.library import IS_X86, load_library
from convnextv2.kernels.selfcheck import disagreement

Choice = Literal["auto", "native", "plain"]

_SUFFIX = {torch.float32: "float", torch.bfloat16: "bfloat16", torch.uint8: "uint8"}

_choice: Choice = "auto"


def choose(choice: Choice) -> str:
    """Set for this process which kernels run on the CPU; returns what that comes to, in words.

    "auto": native where they can be compiled. "native": the same, and DeviceError with the reason where they cannot. "plain":
    PyTorch's operations only. Where that is a change, what torch.compile has made in this process so far is made anew: compiled
    graphs hold the kernels of the time when they were traced."""
    global _choice
    changed = (choice == "plain") != (_choice == "plain")
    _choice = choice
    if changed and "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
    if choice == "plain":
        return "plain"
    found = _load()
    if isinstance(found, str):
        if choice == "native":
            raise DeviceError(
                f"kernels = native: {found}. Install a C++ compiler, set CONVNEXTV2_CACHE to a "
                "folder of your own, or use auto or plain."
            )
        return f"plain ({found})"
    return "native"


def chosen() -> Choice:
    """What `choose` has set, for processes that are to do the same."""
    return _choice


def in_use() -> str:
    """Which kernels run on the CPU, "native" or "plain": what the choice comes to on this machine."""
    return "native" if _is_on() else "plain"


def are_used_for(x: Tensor) -> bool:
    """Whether the native kernels take this tensor: on the CPU, float32 or bfloat16, in autocast too, and not while a graph is
    exported."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and (
            not torch.is_autocast_enabled("cpu")
            or torch.get_autocast_dtype("cpu") in (torch.float32, torch.bfloat16)
        )
        and _is_on()
        and not _is_traced()
    )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_on() -> bool:
    return _choice != "plain" and not isinstance(_load(), str)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_traced() -> bool:
    # Asked here, not where torch.compile reads on: there, PyTorch 2.9 and 2.10 take every compilation
    # for an export. The state is that of torch.jit.trace, by which OpenVINO reads a model.
    return torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None


def _call(name: str, x: Tensor, *arguments: Tensor | int | None) -> None:
    """Call `name` of the library in its form for x's dtype; every tensor is contiguous and of the length that native.cpp says."""
    library = _load()
    assert not isinstance(library, str)
    _call_in(library, name, x, *arguments)


def _call_in(library: ctypes.CDLL, name: str, x: Tensor, *arguments: Tensor | int | None) -> None:
    values = [
        argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments
    ]
    types = [
        ctypes.c_int64 if isinstance(argument, int) else ctypes.c_void_p for argument in arguments
    ]
    function = getattr(library, f"{name}_{_SUFFIX[x.dtype]}")
    function.restype, function.argtypes = None, [*types, ctypes.c_int]
    function(*values, torch.get_num_threads())


@cache
def _load() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    return load_library(lambda library: disagreement(partial(_call_in, library)))


# ---- the library's functions as operations of PyTorch, so that torch.compile takes them into its graphs as they are ----

_OPERATIONS = torch.library.Library("convnextv2", "DEF")


def _operation(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> None:
    _OPERATIONS.define(schema)
    name = schema.partition("(")[0]
    _OPERATIONS.impl(name, run, "CPU")
    torch.library.register_fake(f"convnextv2::{name}", fake, lib=_OPERATIONS)


def _depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, places: Tensor | None, shape: list[int]
) -> Tensor:
    x, y = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel():
        places = _checked(places, x, shape)
        bias = None if bias is None else _floats(bias)
        _call("depthwise", x, places, *shape, x, _floats(weight), bias, y)
    return y


def _depthwise_weight(
    x: Tensor, gradient: Tensor, places: Tensor | None, shape: list[int]
) -> Tensor:
    x, gradient = x.contiguous(), gradient.contiguous()
    result = x.new_zeros(50, shape[-1], dtype=torch.float32)
    if x.numel():
        _call("depthwise_weight", x, _checked(places, x, shape), *shape, x, gradient, result)
    return result


def _checked(places: Tensor | None, x: Tensor, shape: list[int]) -> Tensor | None:
    """The places, contiguous. Raises ValueError for sizes, IndexError for places, by which the library would leave its memory."""
    images, runs, run, height, width, channels = shape
    fits = (
        runs * run == height * width
        if places is None
        else places.numel() == images * runs and places.dtype == torch.int64
    )
    if x.numel() != images * runs * run * channels or width % run or not fits:
        raise ValueError(
            f"{images} x {runs} runs of {run} positions do not fit on canvases of {height} x {width}"
        )
    if places is None:
        return None
    places = places.contiguous()
    per_image = height * (width // run)
    first = torch.arange(0, images * per_image, per_image, device=places.device)
    least, most = places.view(images, runs).aminmax(dim=1)
    if bool(((least < first) | (most >= first + per_image)).any()):
        raise IndexError(
            f"places lie outside their image's canvas of {height} x {width}: a tile's index is out of range"
        )
    return places


def _floats(values: Tensor) -> Tensor:
    """As the library reads them: of a model that was cast to another dtype, too."""
    return values.float().contiguous()


def _gelu_squares(x: Tensor, images: int, tanh: bool) -> Tensor:
    x, channels = x.contiguous(), x.shape[-1]
    sums = x.new_zeros(images, channels, dtype=torch.float32)
    if x.numel():
        _call(
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
    """GELU of a linear layer; of its float32 sums, where PyTorch's oneDNN has that as one operation for this dtype and processor.

    It is what torch.compile makes of the two as well, and no public part of PyTorch, so it may be missing."""
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
        _call("squares", x, images, x.numel() // (images * channels), channels, x, sums)
    return sums


def _gelu_scale(x: Tensor, scale: Tensor, shift: Tensor, tanh: bool) -> Tensor:
    x, y = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    images, channels = scale.shape
    if x.numel():
        positions = x.numel() // (images * channels)
        _call(
            "gelu_scale",
            x,
            int(tanh),
            images,
            positions,
            channels,
            x,
            _floats(scale),
            _floats(shift),
            y,
        )
    return y


def _gelu_products(x: Tensor, gradient: Tensor, images: int, tanh: bool) -> Tensor:
    x, gradient, channels = x.contiguous(), gradient.contiguous(), x.shape[-1]
    sums = x.new_zeros(images, 2, channels, dtype=torch.float32)
    if x.numel():
        _call(
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
        pointers = (x, gradient, _floats(scale), _floats(pull), result)
        _call("gelu_backward", x, int(tanh), images, positions, channels, *pointers)
    return result


def _like(x: Tensor, *others: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


_operation(
    "depthwise(Tensor x, Tensor weight, Tensor? bias, Tensor? places, SymInt[] shape) -> Tensor",
    _depthwise,
    _like,
)
_operation(
    "depthwise_weight(Tensor x, Tensor gradient, Tensor? places, SymInt[] shape) -> Tensor",
    _depthwise_weight,
    lambda x, gradient, places, shape: x.new_empty(50, shape[-1], dtype=torch.float32),
)
_operation(
    "gelu_squares(Tensor x, SymInt images, bool tanh) -> Tensor",
    _gelu_squares,
    lambda x, images, tanh: x.new_empty(images, x.shape[-1], dtype=torch.float32),
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
)
_operation(
    "gelu_scale(Tensor x, Tensor scale, Tensor shift, bool tanh) -> Tensor", _gelu_scale, _like
)
_operation(
    "gelu_products(Tensor x, Tensor gradient, SymInt images, bool tanh) -> Tensor",
    _gelu_products,
    lambda x, gradient, images, tanh: x.new_empty(images, 2, x.shape[-1], dtype=torch.float32),
)
_operation(
    "gelu_backward(Tensor x, Tensor gradient, Tensor scale, Tensor pull, bool tanh) -> Tensor",
    _gelu_backward,
    _like,
)


@register_flop_formula([torch.ops.convnextv2.depthwise, torch.ops.convnextv2.depthwise_weight])
def _depthwise_flops(x_shape: torch.Size, *others: object, out_shape: object = None) -> int:
    return 2 * 49 * x_shape.numel()


@register_flop_formula(torch.ops.convnextv2.linear_gelu)
def _linear_flops(
    x_shape: torch.Size, weight_shape: torch.Size, *others: object, out_shape: object = None
) -> int:
    return 2 * x_shape.numel() * weight_shape[0]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, places: Tensor | None, shape: tuple[int, ...]
    ) -> Tensor:
        return torch.ops.convnextv2.depthwise(x, _by_tap(weight), bias, places, shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, places, shape = inputs
        ctx.save_for_backward(x, weight, places)
        ctx.shape = shape

    @staticmethod
    @once_differentiable  # the library has no second derivatives
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, places = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:  # the same convolution with the kernel turned by half
            of_x = torch.ops.convnextv2.depthwise(
                gradient, _by_tap(weight).flip(0), None, places, ctx.shape
            )
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            both = torch.ops.convnextv2.depthwise_weight(x, gradient, places, ctx.shape)
            of_weight, of_bias = both[:49].view(7, 7, 1, -1).permute(3, 2, 0, 1), both[49]
        return of_x, of_weight, of_bias, None, None


def _by_tap(weight: Tensor) -> Tensor:
    """(C, 1, 7, 7) to float (49, C)."""
    return weight.detach().permute(2, 3, 1, 0).reshape(49, -1).float()


def depthwise(
    x: Tensor, weight: Tensor, bias: Tensor, places: Tensor | None, size: tuple[int, int]
) -> Tensor:
    """7 x 7 depthwise convolution with zero padding, of some runs of positions on a canvas of zeros, at those positions.

    x: float32 or bfloat16 (N, runs, run, C). weight: (C, 1, 7, 7). bias: (C,). places: int64 (N * runs,), each run's place among
    the N * height * (width // run) of the canvases; None where x is the whole canvas. size: height and width.
    Returns x's shape and dtype; sums are float32. Raises IndexError for a place outside its image's canvas."""
    if torch.is_autocast_enabled("cpu"):
        x = x.to(torch.get_autocast_dtype("cpu"))
    images, runs, run, channels = x.shape
    return _Depthwise.apply(x, weight, bias, places, (images, runs, run, *size, channels))


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
    @once_differentiable  # the library has no second derivatives
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, norm, scale = ctx.saved_tensors
        products, sums = torch.ops.convnextv2.gelu_products(
            x, gradient, ctx.images, ctx.tanh
        ).unbind(1)
        mean = norm.mean(-1, keepdim=True) + ctx.eps
        of_ratio = gamma * products
        of_norm = of_ratio / mean - (of_ratio * norm).mean(-1, keepdim=True) / mean.square()
        pull = torch.where(
            norm > 0, of_norm / norm, 0
        )  # a channel that is 0 everywhere has gradient 0
        of_x = torch.ops.convnextv2.gelu_backward(x, gradient, scale, pull, ctx.tanh)
        return of_x, (products * norm / mean).sum(0), sums.sum(0), None, None, None


def gelu_grn(
    x: Tensor, gamma: Tensor, beta: Tensor, *, images: int, eps: float, tanh: bool
) -> Tensor:
    """GRN of the GELU of x, which is all that the backward pass keeps.

    x: float32 or bfloat16 (N, ..., C). gamma, beta: (C,). images: N for statistics of each image, 1 for those of all.
    Returns x's shape and dtype; statistics are float32."""
    y: Tensor = _GeluGRN.apply(x, gamma, beta, images, eps, tanh)[0]
    return y


def mlp(
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
    """W2 GRN(GELU(W1 x)) without gradients: GELU is part of the first linear layer, and where an image has more than twice as
    many positions as the second has outputs, GRN goes into that layer's weight and bias.

    x, gamma, beta, images: as in `gelu_grn`. weight1: (C, I). weight2: (O, C). Returns (N, ..., O) of x's dtype, or of
    autocast's."""
    if torch.is_autocast_enabled("cpu"):
        x = x.to(torch.get_autocast_dtype("cpu"))
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


def can_take_pixels() -> bool:
    """Whether `warp` and `normalise` are there."""
    return _is_on()


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(pixels - mean) / std, bit for bit, in one pass over memory.

    pixels: uint8 (N, C, H, W), channels-last. mean, std: float32, C values. Returns float32 (N, C, H, W), channels-last."""
    images = torch.empty_like(pixels, dtype=torch.float32, memory_format=torch.channels_last)
    channels = pixels.shape[1]
    assert (
        pixels.is_contiguous(memory_format=torch.channels_last)
        and mean.numel() == std.numel() == channels
    )
    _call(
        "normalise",
        pixels,
        pixels,
        pixels.numel() // channels,
        channels,
        _floats(mean),
        _floats(std),
        images,
    )
    return images


def warp(image: Tensor, matrix: Sequence[float], *, bicubic: bool, fill: Sequence[int]) -> Tensor:
    """Pillow's affine transform of an image of the same size, several times as fast; equal within one level.

    image: uint8 (H, W, C), C 1 or 3. matrix: (a, b, c, d, e, f), which takes output pixels (x, y) to (a x + b y + c, d x + e y +
    f). bicubic: else bilinear. fill: C levels, for what comes in from outside."""
    assert (
        image.dim() == 3
        and image.dtype == torch.uint8
        and image.numel()
        and image.shape[-1] in (1, 3)
    ), image.shape
    assert len(fill) == image.shape[-1] and len(matrix) == 6
    image = image.contiguous()
    out, levels = torch.empty_like(image), image.new_tensor(fill)
    _call(
        "warp",
        image,
        image,
        *image.shape,
        image.new_tensor(matrix, dtype=torch.float64),
        int(bicubic),
        levels,
        out,
    )
    return out
