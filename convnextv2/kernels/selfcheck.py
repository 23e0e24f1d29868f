"""A comparison of the kernels with PyTorch's own operations on the CPU.

It runs one small case for each function after the kernels are compiled, and whenever a library is
loaded from a wheel. The tests hold the kernels to tighter bounds, at many sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

CPU = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""The largest allowed error of the CPU library in each dtype, relative to the largest value."""
GPU = CPU | {torch.float16: 5e-3}
"""The same for the GPU kernels."""
_IMAGES, _SIDE, _CHANNELS = 2, 8, 40


class _Check(NamedTuple):
    function: str
    arguments: tuple[Tensor | int | None, ...]
    out: Tensor
    expected: Tensor


def disagreement(
    call: Callable[..., None],
    tolerances: Mapping[torch.dtype, float] = CPU,
    *,
    on_gpu: bool = False,
) -> str:
    """Find the first function whose result differs from that of PyTorch.

    Args:
        call: Runs a function of the kernels, given its name, a tensor of the dtype to check, and
            its arguments.
        tolerances: The dtypes to check, each with the largest allowed error.
        on_gpu: Whether the functions are those of the kernels for GPUs.

    Returns:
        The name of the function, and its error relative to the largest value. "" if none differs.
    """
    # The kernels may be used first in inference mode or under autocast, or with another default
    # device or dtype.
    with (
        torch.device("cpu"),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
    ):
        own = _layer_norm if on_gpu else _squares
        for dtype, tolerance in tolerances.items():
            checks = [*_depthwise(dtype), *own(dtype), *_gelu(dtype)]
            if dtype == torch.float32 and not on_gpu:
                checks += _enlarged()
            for check in checks:
                call(check.function, torch.empty(0, dtype=dtype), *check.arguments, check.out)
                error = float(
                    (check.out.float() - check.expected).abs().max() / check.expected.abs().max()
                )
                if not error < tolerance:  # NaN counts as a difference
                    return f"{check.function} in {dtype} differs by {error:.1g}"
    return ""


def _noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float32, generator=torch.Generator().manual_seed(seed))


def _depthwise(dtype: torch.dtype) -> list[_Check]:
    """Check whole images, and images of which only the first tile of 4 x 4 is given."""
    image, gradient = (
        _noise(_IMAGES, _SIDE, _SIDE, _CHANNELS, seed=seed).to(dtype) for seed in (0, 1)
    )
    taps, bias = _noise(49, _CHANNELS, seed=2), _noise(_CHANNELS, seed=3)
    kernel = taps.T.reshape(_CHANNELS, 1, 7, 7).contiguous()
    runs_per_row = _SIDE // 4
    places = torch.tensor(
        [(n * _SIDE + row) * runs_per_row for n in range(_IMAGES) for row in range(4)]
    )

    checks = []
    for side, where, runs in ((_SIDE, None, _SIDE * runs_per_row), (4, places, 4)):
        x, of_y = (whole[:, :side, :side].contiguous() for whole in (image, gradient))
        edge = (0, 0, 0, _SIDE - side, 0, _SIDE - side)
        canvas, of_canvas = (F.pad(tile.float(), edge).permute(0, 3, 1, 2) for tile in (x, of_y))
        convolved = F.conv2d(canvas, kernel, bias, padding=3, groups=_CHANNELS).permute(0, 2, 3, 1)[
            :, :side, :side
        ]
        of_kernel = conv2d_weight(
            canvas, list(kernel.shape), of_canvas, padding=3, groups=_CHANNELS
        )
        of_both = torch.cat([of_kernel.reshape(_CHANNELS, 49).T, of_canvas.sum((0, 2, 3))[None]])
        shape = (_IMAGES, runs, 4, _SIDE, _SIDE, _CHANNELS)
        checks.append(
            _Check("depthwise", (where, *shape, x, taps, bias), torch.empty_like(x), convolved)
        )
        checks.append(
            _Check(
                "depthwise_weight",
                (where, *shape, x, of_y),
                torch.empty(50, _CHANNELS, dtype=torch.float32),
                of_both,
            )
        )
    return checks


def _squares(dtype: torch.dtype) -> list[_Check]:
    x = _noise(_IMAGES, _SIDE**2, _CHANNELS, seed=4).to(dtype)
    sums = torch.empty(_IMAGES, _CHANNELS, dtype=torch.float32)
    return [_Check("squares", (_IMAGES, _SIDE**2, _CHANNELS, x), sums, x.float().square().sum(1))]


def _layer_norm(dtype: torch.dtype) -> list[_Check]:
    x, of_y = (_noise(_IMAGES, _SIDE**2, _CHANNELS, seed=seed).to(dtype) for seed in (4, 5))
    weight, bias = (_noise(_CHANNELS, seed=seed) for seed in (6, 7))
    leaves = [tensor.float().clone().requires_grad_() for tensor in (x, weight, bias)]
    y = F.layer_norm(leaves[0], (_CHANNELS,), leaves[1], leaves[2], 1e-6)
    of_x, of_weight, of_bias = torch.autograd.grad(y, leaves, of_y.float())
    given = x, of_y, weight, bias
    of_both = torch.stack([of_weight, of_bias])
    return [
        _Check("layer_norm", given, torch.empty_like(x), y.detach()),
        _Check("layer_norm_backward", given, torch.empty_like(x), of_x),
        _Check("layer_norm_weight", given, torch.empty_like(of_both), of_both),
    ]


def _gelu(dtype: torch.dtype) -> list[_Check]:
    x, of_y = (_noise(_IMAGES, _SIDE**2, _CHANNELS, seed=seed).to(dtype) for seed in (4, 5))
    scale, shift = _noise(_IMAGES, _CHANNELS, seed=6), _noise(_CHANNELS, seed=7)
    by, gradient = scale[:, None], of_y.float()
    checks = []
    for tanh in (0, 1):
        start = x.float().clone().requires_grad_()
        value = F.gelu(start, approximate="tanh" if tanh else "none")
        (slope,) = torch.autograd.grad(value.sum(), start)
        value = value.detach()
        shape = (tanh, _IMAGES, _SIDE**2, _CHANNELS)
        sums, products = (
            torch.empty(*shape, _CHANNELS, dtype=torch.float32)
            for shape in ((_IMAGES,), (_IMAGES, 2))
        )
        of_products = torch.stack([(gradient * value).sum(1), gradient.sum(1)], 1)
        checks += [
            _Check("gelu_squares", (*shape, x), sums, value.square().sum(1)),
            _Check(
                "gelu_scale", (*shape, x, scale, shift), torch.empty_like(x), value * by + shift
            ),
            _Check("gelu_products", (*shape, x, of_y), products, of_products),
            _Check(
                "gelu_backward",
                (*shape, x, of_y, scale, scale),
                torch.empty_like(x),
                (gradient + value) * by * slope,
            ),
        ]
    return checks


def _enlarged() -> list[_Check]:
    """Check pixels on a finer grid than that of the logits, some of which are ignored."""
    classes, rows, columns = 11, 12, 14
    logits = _noise(_IMAGES, _SIDE, _SIDE, classes, seed=8)
    targets = (
        torch.arange(_IMAGES * rows * columns).view(_IMAGES, rows, columns) % (classes + 1) - 1
    )
    weights = _noise(_IMAGES, rows, columns, seed=9)
    start = logits.clone().requires_grad_()
    enlarged = F.interpolate(
        start.permute(0, 3, 1, 2), (rows, columns), mode="bilinear", align_corners=False
    )
    losses = F.cross_entropy(enlarged, targets, ignore_index=-1, reduction="none")
    (gradient,) = torch.autograd.grad((losses * weights).sum(), start)
    given = (_IMAGES, _SIDE, _SIDE, classes, rows, columns, logits, targets)
    covered = torch.tensor([_SIDE, _SIDE], dtype=torch.float64)
    image = (*given[1:6], covered, logits[0].clone())
    found = torch.empty(rows, columns, dtype=torch.int16)
    return [
        _Check("largest_class", image, found, enlarged[0].detach().argmax(0).float()),
        _Check("cross_entropy", given, torch.empty_like(weights), losses.detach()),
        _Check("cross_entropy_gradient", (*given, weights), torch.empty_like(logits), gradient),
    ]
