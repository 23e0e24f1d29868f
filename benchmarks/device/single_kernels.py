"""Checks the results of the kernels by themselves, and times them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from bench import RATIO, Bench, Row
from torch import Tensor

from convnextv2.kernels import functional
from convnextv2.kernels.run_table import run_table
from convnextv2.model.fcmae import draw_masks
from convnextv2.model.tiles import Canvas, Tiles

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-3}
"""Largest difference from float64, as a share of the largest value."""


def copy(bench: Bench) -> list[Row]:
    """Measure the bandwidth of a copy within memory. Bytes read and bytes written both count."""
    size = 2**16 if bench.interpret else 2**30
    source = torch.zeros(size, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    seconds = bench.timed(lambda: target.copy_(source), 20)
    bench.copy_gb_s = 2 * size / seconds / 1e9
    return [{"what": "copy", "MiB": size / 2**20, "GB/s": bench.copy_gb_s}]


def on_cpu() -> torch.library.Library:
    """Let the operations of the kernels compute with Triton's interpreter on the CPU.

    Returns:
        The library, which must be kept for as long as they are to do so.
    """
    from convnextv2.kernels.gpu import depthwise, gelu_grn, layer_norm

    library = torch.library.Library("convnextv2", "IMPL")
    for module, names in (
        (depthwise, ("depthwise", "depthwise_weight")),
        (gelu_grn, ("gelu_squares", "gelu_scale", "gelu_products", "gelu_backward")),
        (layer_norm, ("layer_norm", "layer_norm_backward")),
    ):
        for name in names:
            library.impl(name, getattr(module, name), "CPU", allow_override=True)
    return library


@dataclass(frozen=True)
class Shape:
    """The shape of a kernel's input: whole images, or visible tiles of them.

    Attributes:
        images: The number of images.
        height: The number of rows of positions in an image.
        width: The number of columns of positions in an image.
        channels: The number of channels.
        side: Positions on the side of a tile; 0 for whole images.
    """

    images: int
    height: int
    width: int
    channels: int
    side: int = 0

    def canvas(self, device: torch.device) -> Canvas | None:
        """Return the positions of the visible tiles, with the table that the kernels read."""
        if not self.side:
            return None
        grid = self.height // self.side, self.width // self.side
        visible, _ = draw_masks(self.images, grid, RATIO, torch.Generator().manual_seed(0))
        canvas = Tiles(visible.to(device), grid).canvas(self.side)
        return canvas._replace(runs=run_table(canvas.rows, self.images, canvas.size, self.side))

    def tensor(self, canvas: Canvas | None) -> tuple[int, ...]:
        """Return the shape of a tensor of this many channels."""
        if canvas is None:
            return self.images, self.height, self.width, self.channels
        return (*canvas.shape, self.side, self.channels)

    def __str__(self) -> str:
        """Name the shape in a table."""
        tiles = f", tiles of {self.side}" if self.side else ""
        return f"{self.images} x {self.height} x {self.width} x {self.channels}{tiles}"


@dataclass(frozen=True)
class Case:
    """A kernel, its definition by PyTorch, and the tensors that both start from.

    Attributes:
        name: The name of the computation.
        ours: Computes it from the leaves.
        plain: Computes the same with PyTorch's operations, in any dtype.
        leaves: x and the parameters.
        forward: The least number of passes over x's memory in the forward pass.
        backward: The same for the backward pass, if it has the tensors that the forward pass kept.
    """

    name: str
    ours: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    leaves: Sequence[Tensor]
    forward: int
    backward: int


def cases(bench: Bench, shape: Shape, dtype: torch.dtype) -> Iterator[Case]:
    """Make the three parts of a block at a shape; GELU and GRN have four times the channels."""
    c, canvas = shape.channels, shape.canvas(bench.device)
    x = bench.noise(*shape.tensor(canvas), dtype=dtype)
    places, runs, size = (
        (None, None, (shape.height, shape.width))
        if canvas is None
        else (canvas.rows, canvas.runs, canvas.size)
    )

    def depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = functional.depthwise(x.flatten(1, -3), weight, bias, places, size, runs)
        return y.view(x.shape)

    def convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        dense = x if canvas is None else canvas.paint(x)
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
        y = F.conv2d(dense.permute(0, 3, 1, 2), weight, bias, padding=3, groups=c)
        y = y.permute(0, 2, 3, 1)
        return y if canvas is None else canvas.pick(y)

    weight = bench.noise(c, 1, 7, 7).contiguous(memory_format=torch.channels_last)
    yield Case("depthwise", depthwise, convolution, (x, weight, bench.noise(c)), 2, 3)

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.layer_norm(x, weight, bias, 1e-6)

    def plain_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x, (c,), weight.to(x.dtype), bias.to(x.dtype), 1e-6)

    yield Case("layer norm", norm, plain_norm, (x, bench.noise(c), bench.noise(c)), 2, 3)

    wide = bench.noise(*x.shape[:-1], 4 * c, dtype=dtype)

    def gelu_grn(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return functional.gelu_grn(x, gamma, beta, images=len(x), eps=1e-6, tanh=False)

    def plain_grn(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        y, axes = F.gelu(x), tuple(range(1, x.dim() - 1))
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(y, dim=axes, keepdim=True, dtype=wide)
        scale = 1 + gamma * (norm / (norm.mean(-1, keepdim=True) + 1e-6))
        return torch.addcmul(beta.to(y.dtype), y, scale.to(y.dtype))

    parameters = bench.noise(4 * c), bench.noise(4 * c)
    yield Case("GELU + GRN", gelu_grn, plain_grn, (wide, *parameters), 3, 5)


def results(run: Callable[..., Tensor], leaves: Sequence[Tensor], gradient: Tensor) -> list[Tensor]:
    """Return the result of a function, and its gradients."""
    started = [leaf.detach().requires_grad_() for leaf in leaves]
    y = run(*started)
    return [y.detach(), *torch.autograd.grad(y, started, gradient.to(y.dtype))]


def correctness(bench: Bench) -> list[Row]:
    """Compare every kernel with its definition in float64."""
    half = (torch.bfloat16,)  # each dtype, number of channels and side of tiles is compiled anew
    shapes = {
        Shape(4, 56, 56, 96): half,
        Shape(4, 7, 7, 768): half,
        Shape(4, 56, 56, 96, 8): half,
        Shape(4, 28, 28, 192, 4): tuple(TOLERANCE),
        Shape(4, 14, 14, 384, 2): half,
        Shape(4, 7, 7, 768, 1): half,
        Shape(3, 56, 56, 40, 8): half,
        Shape(1, 1, 1, 5): (torch.float32,),
        Shape(2, 9, 13, 20): tuple(TOLERANCE),
    }
    if bench.interpret:
        shapes = {Shape(1, 2, 4, 5, 2): (torch.float32,)}
    rows = []
    for shape, dtypes in shapes.items():
        for dtype in dtypes:
            for case in cases(bench, shape, dtype):
                gradient = bench.noise(*case.leaves[0].shape, dtype=dtype)
                found = results(case.ours, case.leaves, gradient)
                repeats = all(map(torch.equal, found, results(case.ours, case.leaves, gradient)))
                exact = results(case.plain, [leaf.double() for leaf in case.leaves], gradient)
                error = max(map(difference, found, exact))
                rows.append(
                    {
                        "kernel": case.name,
                        "shape": str(shape),
                        "dtype": str(dtype).removeprefix("torch."),
                        "error": error,
                        "allowed": TOLERANCE[dtype],
                        "right": error < TOLERANCE[dtype],
                        "repeats": repeats,
                    }
                )
    return rows


def difference(found: Tensor, exact: Tensor) -> float:
    """Return the largest difference, as a share of the largest value."""
    return float((found.double() - exact).abs().max() / exact.abs().max())


def kernels(bench: Bench) -> list[Row]:
    """Time the kernels in bfloat16 at the four stages of tiny, beside PyTorch's operations."""
    sizes = ((56, 96, 8), (28, 192, 4), (14, 384, 2), (7, 768, 1))
    shapes = [Shape(256, side, side, c, tile) for side, c, tile in sizes]
    shapes += [Shape(128, side, side, c) for side, c, _ in sizes]
    if bench.interpret:
        shapes = [Shape(1, 2, 4, 4, 2)]
    rows = []
    for shape in shapes:
        for case in cases(bench, shape, torch.bfloat16):
            leaves = [leaf.requires_grad_() for leaf in case.leaves]
            gradient = bench.noise(*leaves[0].shape, dtype=torch.bfloat16)
            size = leaves[0].numel() * 2
            y, plain = case.ours(*leaves), case.plain(*leaves)
            for direction, passes, ours, theirs in (
                (
                    "forward",
                    case.forward,
                    partial(case.ours, *leaves),
                    partial(case.plain, *leaves),
                ),
                (
                    "backward",
                    case.backward,
                    *(
                        partial(torch.autograd.grad, each, leaves, gradient, retain_graph=True)
                        for each in (y, plain)
                    ),
                ),
            ):
                own, others = (bench.timed(work, 20) for work in (ours, theirs))
                rows.append(
                    {
                        "kernel": f"{case.name}, {direction}",
                        "shape": str(shape),
                        "ms": own * 1e3,
                        "GB/s": passes * size / own / 1e9,
                        "share of copy": passes * size / own / 1e9 / bench.copy_gb_s,
                        "PyTorch, ms": others * 1e3,
                        "times as fast": others / own,
                    }
                )
    return rows
