"""Checks and measures everything that a GPU is needed for, in one run of less than ten minutes.

    python benchmarks/device.py --out device-h200
    python benchmarks/device.py --out device-h200 --only correctness,kernels
    python benchmarks/device.py --out tiny --interpret    a self-test on a CPU, of no meaning

`--out` gets device.json after every section, and device.md at the end. The sections run in this
order, and one that no longer fits into `--limit_s` is left out and named:

    copy          the bandwidth of a copy, by which the kernels are judged
    correctness   every kernel against its definition in float64, and that a call repeats its bits
    agreement     the loss of visible tiles against that of masked-dense code
    waiting       that a step does not synchronise with the device
    kernels       time of every kernel, its share of the copy's bandwidth, and PyTorch's time
    fcmae         steps of FCMAE, eager, beside masked-dense code, with the peak of memory
    supervised    steps of supervised training, eager, beside timm
    profile       the kernels in which a step of FCMAE spends its time
    shard         sharded steps (FSDP2) on this one device: batch norms, gathers in bfloat16
    compiled      the steps of the two sections above, compiled
    graphs        steps that launching bounds, compiled with CUDA graphs

It needs a GPU that nothing else uses, and timm for what it is compared with (optional).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

if "--interpret" in sys.argv:  # Triton reads it when it defines a kernel
    os.environ["TRITON_INTERPRET"] = "1"
sys.path.append(str(Path(__file__).with_name("peers")))

import torch
import torch.distributed as dist
import torch.nn.functional as F
from masked_dense import MaskedDense, check
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from convnextv2.distributed import Place
from convnextv2.kernels import choice, functional
from convnextv2.kernels.run_table import run_table
from convnextv2.model.convnext import ConvNeXtV2, create_model
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.model.tiles import Canvas, Tiles
from convnextv2.model.upernet import Segmentor, segmentation_loss
from convnextv2.training.shard import shard_model

Row = dict[str, Any]
Step = Callable[[], Tensor]
Work = Callable[[], object]
RATIO = 0.6
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-3}
"""Largest difference from float64, as a share of the largest value."""


@dataclass
class Bench:
    """Where things are measured, and how large they are.

    Attributes:
        device: The GPU, or the CPU for the self-test.
        interpret: Whether this is the self-test.
        seconds: How long one contestant is timed.
        copy_gb_s: The bandwidth of a copy, once it is measured.
    """

    device: torch.device
    interpret: bool
    seconds: float
    copy_gb_s: float = 0.0

    def synchronise(self) -> None:
        """Wait until the device has done everything."""
        if not self.interpret:
            torch.cuda.synchronize(self.device)

    def network(self, size: str, num_classes: int | None) -> ConvNeXtV2:
        """Build a network on the device; a very small one for the self-test."""
        torch.manual_seed(0)
        if self.interpret:
            return ConvNeXtV2((1, 1, 1, 1), (8, 8, 8, 8), num_classes=num_classes)
        return create_model(f"convnextv2_{size}", num_classes=num_classes).to(self.device)

    def batch(self, images: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, float32 (N, 3, H, W), and their visible and masked tiles."""
        images, side = (2, 64) if self.interpret else (images, 224)
        grid = side // 32, side // 32
        masks = draw_masks(images, grid, RATIO, torch.Generator().manual_seed(0))
        pixels = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(1))
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        visible, masked = (tiles.to(self.device) for tiles in masks)
        return pixels.to(self.device), visible, masked

    def noise(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw numbers from N(0, 1)."""
        return torch.randn(*shape, device=self.device).to(dtype)

    def timed(self, work: Work, times: int) -> float:
        """Return the median seconds of one call, in rounds of `times` calls without waiting."""
        times = 1 if self.interpret else times
        for _ in range(1 if self.interpret else 3):
            work()
        rounds: list[float] = []
        end = time.perf_counter() + self.seconds
        while len(rounds) < 3 or time.perf_counter() < end:
            self.synchronise()
            start = time.perf_counter()
            for _ in range(times):
                work()
            self.synchronise()
            rounds.append((time.perf_counter() - start) / times)
        return median(rounds)

    @contextmanager
    def peak(self) -> Iterator[list[float]]:
        """Measure the largest memory of tensors in the `with` block, in GiB; nothing on a CPU."""
        found: list[float] = []
        gc.collect()
        if not self.interpret:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        yield found
        if not self.interpret:
            found.append(torch.cuda.max_memory_allocated(self.device) / 2**30)


def copy(bench: Bench) -> list[Row]:
    """Measure how fast memory is copied to memory, counting what is read and what is written."""
    size = 2**16 if bench.interpret else 2**30
    source = torch.zeros(size, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    seconds = bench.timed(lambda: target.copy_(source), 20)
    bench.copy_gb_s = 2 * size / seconds / 1e9
    return [{"what": "copy", "MiB": size / 2**20, "GB/s": bench.copy_gb_s}]


# ---- kernels ----


def on_cpu() -> torch.library.Library:
    """Let the operations of the kernels compute with Triton's interpreter on the CPU.

    Returns:
        What must be kept for as long as they are to do so.
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
    """Where a kernel runs: on whole images, or on visible tiles of them.

    Attributes:
        images: How many images.
        height: Rows of positions of an image.
        width: Columns of them.
        channels: Channels.
        side: Positions on the side of a tile; 0 for whole images.
    """

    images: int
    height: int
    width: int
    channels: int
    side: int = 0

    def canvas(self, device: torch.device) -> Canvas | None:
        """Return where the visible tiles lie, with the table that the kernels read."""
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
        name: What is computed.
        ours: Computes it from the leaves.
        plain: Likewise with PyTorch's operations, in any dtype.
        leaves: x and the parameters.
        forward: Passes over x's memory that the forward pass cannot do without.
        backward: Likewise the backward pass, if it knows what the forward pass has kept.
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
    """Return what a function computes, and its gradients."""
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


# ---- steps ----


def step_of(bench: Bench, model: nn.Module, loss_of: Step) -> Step:
    """Make a training step in bfloat16: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> Tensor:
        with torch.autocast(bench.device.type, torch.bfloat16):
            loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def fcmae_step(
    bench: Bench, size: str, images: int, *, dense: bool = False, mode: str = "eager"
) -> Step:
    """Make a step of FCMAE.

    Args:
        bench: Where.
        size: Of the network.
        images: In a batch.
        dense: Whether masked positions are computed too, as masked-dense code does.
        mode: "eager", or a mode of torch.compile.
    """
    model = FCMAE(bench.network(size, None), decoder_dim=8 if bench.interpret else 512)
    randomise(model.to(bench.device))
    pixels, visible, masked = bench.batch(images)
    used: nn.Module = MaskedDense(model) if dense else model
    called: Callable[..., Tensor] = used
    if mode != "eager":
        called = torch.compile(used, dynamic=False, mode=mode, backend=compiler(bench))
    replays = mode == "reduce-overhead"

    def loss_of() -> Tensor:
        if replays:
            torch.compiler.cudagraph_mark_step_begin()
        return called(pixels, visible, masked)

    return step_of(bench, used, loss_of)


def randomise(model: nn.Module) -> None:
    """Let the loss depend on everything: GRN begins at zero, and the loss of FCMAE at 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.03)


def compiler(bench: Bench) -> Any:
    """Return the compiler; the self-test traces only, since TorchInductor takes a minute."""
    return (lambda graph, inputs, **_: graph) if bench.interpret else "inductor"


def supervised_step(
    bench: Bench, size: str, images: int, *, timm: bool = False, mode: str = "eager"
) -> Step:
    """Make a step of supervised training; the arguments are those of `fcmae_step`."""
    if timm:
        import timm as library

        name = "test_convnext" if bench.interpret else f"convnextv2_{size}"
        model: nn.Module = library.create_model(name, num_classes=1000).to(bench.device)
        model = model.to(memory_format=torch.channels_last).train()
    else:
        model = bench.network(size, 1000)
    pixels, _, _ = bench.batch(images)
    targets = torch.randint(1000, (len(pixels),)).to(bench.device)
    called: Callable[..., Tensor] = model
    if mode != "eager":
        called = torch.compile(model, dynamic=False, mode=mode, backend=compiler(bench))
    return step_of(bench, model, lambda: F.cross_entropy(called(pixels).float(), targets))


def contestants(
    bench: Bench,
    what: str,
    images: int,
    entries: Sequence[tuple[str, str, Callable[[], Step]]],
) -> list[Row]:
    """Time steps one after the other, each with nothing else on the device.

    Args:
        bench: Where.
        what: Names the work in the table.
        images: In a batch.
        entries: For each contestant, its name, the kernels, and what builds its step.
    """
    images = 2 if bench.interpret else images
    rows: list[Row] = []
    for name, kernels, build in entries:
        choose(bench, kernels)
        row: Row = {"work": what, "contestant": name}
        try:
            with bench.peak() as memory:
                row |= paced(bench, build(), images)
            row["GiB"] = memory[0] if memory else 0.0
        except Exception as error:  # a compiler or a library of others may fail in any way
            row["failure"] = first_line(error)
        rows.append(row)
        torch.compiler.reset()
    choose(bench, "auto")
    ours = [row["loss"] for row in rows if row["contestant"] != "timm" and "loss" in row]
    for row in rows:
        if "loss" in row:
            row["times the first"] = row["images/s"] / rows[0].get("images/s", row["images/s"])
            # All begin with the same weights, but for timm's.
            row["right"] = row["contestant"] == "timm" or abs(row["loss"] / ours[0] - 1) < 1e-2
        else:
            row["right"] = False
    return rows


def paced(bench: Bench, step: Step, images: int) -> Row:
    """Take a step for its loss, and time the next ones."""
    loss = float(step())
    seconds = bench.timed(step, 5)
    return {"images/s": images / seconds, "ms": seconds * 1e3, "loss": loss}


def choose(bench: Bench, kernels: str) -> None:
    """Choose the kernels. Those of a GPU must be there; whole steps would take the self-test hours.

    Args:
        bench: Where.
        kernels: "native" or "plain", or "auto".
    """
    name: Any = "plain" if bench.interpret else kernels
    choice.choose(name, bench.device)


def fcmae(bench: Bench) -> list[Row]:
    """Time eager steps of FCMAE: tiny at a batch of 256, and atto at one of 128."""
    rows = []
    for size, images in (("tiny", 256), ("atto", 128)):
        step = partial(fcmae_step, bench, size, images)
        rows += contestants(
            bench,
            f"FCMAE {size}, batch {images}",
            images,
            [
                ("masked-dense", "plain", partial(step, dense=True)),
                ("masked-dense, our kernels", "native", partial(step, dense=True)),
                ("tiles, PyTorch's kernels", "plain", step),
                ("tiles", "native", step),
            ],
        )
    return rows


def supervised(bench: Bench) -> list[Row]:
    """Time eager steps of supervised training of tiny, beside timm's."""
    step = partial(supervised_step, bench, "tiny", 128)
    peers = [("timm", "plain", partial(step, timm=True))] if find_spec("timm") else []
    ours = [("PyTorch's kernels", "plain", step), ("ours", "native", step)]
    return contestants(bench, "supervised tiny, batch 128", 128, [*peers, *ours])


def compiled(bench: Bench) -> list[Row]:
    """Time the same steps compiled."""
    mode = {"mode": "default"}
    step = partial(fcmae_step, bench, "tiny", 256, **mode)
    rows = contestants(
        bench,
        "FCMAE tiny, batch 256, compiled",
        256,
        [
            ("masked-dense", "plain", partial(step, dense=True)),
            ("tiles", "native", step),
            ("tiles, PyTorch's kernels", "plain", step),
        ],
    )
    learn = partial(supervised_step, bench, "tiny", 128, **mode)
    peers = [("timm", "plain", partial(learn, timm=True))] if find_spec("timm") else []
    ours = [("ours", "native", learn), ("PyTorch's kernels", "plain", learn)]
    return rows + contestants(bench, "supervised tiny, batch 128, compiled", 128, [*peers, *ours])


def graphs(bench: Bench) -> list[Row]:
    """Time steps of atto that launching bounds: eager, compiled, and replayed as CUDA graphs."""
    step = partial(fcmae_step, bench, "atto", 128)
    return contestants(
        bench,
        "FCMAE atto, batch 128",
        128,
        [
            ("eager", "native", step),
            ("compiled", "native", partial(step, mode="default")),
            ("compiled with CUDA graphs", "native", partial(step, mode="reduce-overhead")),
        ],
    )


def waiting(bench: Bench) -> list[Row]:
    """Take steps in which synchronising with the device is an error."""
    rows = []
    for kernels in ("native", "plain"):
        choose(bench, kernels)
        for name, build in (("FCMAE", fcmae_step), ("supervised", supervised_step)):
            step = build(bench, "atto", 16)
            for _ in range(3):
                step()
            try:
                if not bench.interpret:
                    torch.cuda.set_sync_debug_mode("error")
                step()
                found = ""
            except RuntimeError as error:
                found = first_line(error)
            finally:
                if not bench.interpret:
                    torch.cuda.set_sync_debug_mode("default")
            rows.append({"step": name, "kernels": kernels, "right": not found, "waits": found})
    choose(bench, "auto")
    return rows


def profile(bench: Bench) -> list[Row]:
    """List the kernels in which a step of FCMAE tiny spends its time on the device."""
    activity = torch.profiler.ProfilerActivity
    step = fcmae_step(bench, "tiny", 256)
    for _ in range(3):
        step()
    bench.synchronise()
    kinds = [activity.CPU] if bench.interpret else [activity.CPU, activity.CUDA]
    steps = 3
    with torch.profiler.profile(activities=kinds) as found:
        for _ in range(steps):
            step()
        bench.synchronise()

    def spent(event: Any) -> float:
        if bench.interpret:
            return float(event.self_cpu_time_total)
        on_device = getattr(event, "device_type", None) == torch.autograd.DeviceType.CUDA
        return float(event.self_device_time_total) if on_device else 0.0

    events = sorted(found.key_averages(), key=spent, reverse=True)
    total = sum(map(spent, events)) or 1.0
    return [
        {
            "kernel": event.key[:80],
            "calls a step": event.count / steps,
            "ms a step": spent(event) / steps / 1e3,
            "share": spent(event) / total,
        }
        for event in events[:20]
    ]


def shard(bench: Bench) -> list[Row]:
    """Shard models over this one device: what they compute and how long a step takes."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    place, rows = Place(bench.device), []
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(
            "gloo" if bench.interpret else "nccl",
            init_method=f"file://{folder}/meeting",
            rank=0,
            world_size=1,
        )
        try:
            for name, build in (("FCMAE tiny", _fcmae_loss), ("UPerNet atto, BN", _segment_loss)):
                losses: dict[str, float] = {}
                for way in ("whole", "sharded", "gathered in bfloat16"):
                    row: Row = {"model": name, "way": way}
                    try:
                        model, loss_of, images = build(bench)
                        if way == "sharded":
                            shard_model(model, place)
                        elif way != "whole":
                            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
                            mesh = init_device_mesh(bench.device.type, (1,))
                            for norm in list(model.modules()):
                                if isinstance(norm, nn.BatchNorm2d):  # needs all in one dtype
                                    fully_shard(norm, mesh=mesh)
                            fully_shard(model, mesh=mesh, mp_policy=policy)
                        with bench.peak() as memory:
                            row |= paced(bench, step_of(bench, model, loss_of), images)
                        row["GiB"] = memory[0] if memory else 0.0
                        losses[way] = row["loss"]
                        row["apart"] = abs(row["loss"] / losses["whole"] - 1)
                        row["right"] = row["apart"] < (1e-2 if "bfloat16" in way else 1e-3)
                    except Exception as error:  # one way may fail where the others do not
                        row |= {"failure": first_line(error), "right": False}
                    rows.append(row)
        finally:
            dist.destroy_process_group()
    return rows


def _fcmae_loss(bench: Bench) -> tuple[nn.Module, Step, int]:
    model = FCMAE(bench.network("tiny", None), decoder_dim=8 if bench.interpret else 512)
    randomise(model.to(bench.device))
    batch = bench.batch(64)
    return model, lambda: model(*batch), len(batch[0])


def _segment_loss(bench: Bench) -> tuple[nn.Module, Step, int]:
    torch.manual_seed(0)
    model = Segmentor(bench.network("atto", None), 7, channels=16, dropout=0.0).to(bench.device)
    pixels, _, _ = bench.batch(16)
    targets = torch.randint(7, (len(pixels), *pixels.shape[-2:])).to(bench.device)

    def loss() -> Tensor:
        return segmentation_loss(*model(pixels), targets)

    return model, loss, len(pixels)


def agreement(bench: Bench) -> list[Row]:
    """Compare the loss of visible tiles with that of masked-dense code, with either kernels."""
    rows = []
    for kernels in ("native", "plain"):
        choose(bench, kernels)
        model = FCMAE(bench.network("atto", None), decoder_dim=8).to(bench.device)
        randomise(model)
        pixels, visible, masked = bench.batch(4)
        apart = check(model, pixels, visible, masked)
        rows.append({"kernels": kernels, "apart": apart, "right": apart < 1e-4})
    choose(bench, "auto")
    return rows


SECTIONS: dict[str, tuple[Callable[[Bench], list[Row]], float]] = {
    "copy": (copy, 5),
    "correctness": (correctness, 60),
    "agreement": (agreement, 10),
    "waiting": (waiting, 20),
    "kernels": (kernels, 60),
    "fcmae": (fcmae, 40),
    "supervised": (supervised, 25),
    "profile": (profile, 15),
    "shard": (shard, 30),
    "compiled": (compiled, 240),
    "graphs": (graphs, 120),
}
"""Each section, and the seconds that must be left for it to begin."""


# ---- what is written ----


def first_line(error: BaseException) -> str:
    """Return the kind and the first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160] if text else ''}"


def cell(value: object) -> str:
    """Write a value for a table: numbers with three significant digits."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        small = value != 0 and abs(value) < 1e-3
        return f"{value:.1e}" if small else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value).replace("|", "\\|")


def table(rows: Sequence[Row]) -> str:
    """Write rows as a table in Markdown. A row need not have all columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[cell(row.get(name, "")) for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(found: dict[str, Any]) -> str:
    """Write everything that was found as a page in Markdown."""
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    parts = [f"# Device\n\n{machine}."]
    for name, section in found["sections"].items():
        text = section.get("failure") or table(section["rows"])
        parts.append(f"## {name}\n\n{text}\n\n{section.get('seconds', 0):.0f} s.")
    return "\n\n".join(parts) + "\n"


def wrong(found: dict[str, Any]) -> list[str]:
    """List the sections that failed, or have a row that is not as it must be."""
    return [
        name
        for name, section in found["sections"].items()
        if "failure" in section
        or any(row.get("right") is False or row.get("repeats") is False for row in section["rows"])
    ]


def machine_of(bench: Bench) -> dict[str, str]:
    """Describe the machine and the versions."""
    found = {"device": "CPU, interpreted: a self-test, no figure means anything"}
    if not bench.interpret:
        properties = torch.cuda.get_device_properties(bench.device)
        found = {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "GiB": f"{properties.total_memory / 2**30:.0f}",
            "CUDA": str(torch.version.cuda),
            "cuDNN": str(torch.backends.cudnn.version()),
            "kernels": choice.choose("auto", bench.device),
        }
    import triton

    versions = {"torch": torch.__version__, "triton": triton.__version__}
    return found | versions | {"python": platform.python_version()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections, and write what they found. Returns 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder for device.json and device.md")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas")
    parser.add_argument("--limit_s", type=float, default=560, help="no section begins too late")
    parser.add_argument("--seconds", type=float, default=0.5, help="for one contestant")
    parser.add_argument("--interpret", action="store_true", help="a self-test on a CPU")
    given = parser.parse_args(arguments)
    chosen = given.only.split(",")
    if unknown := [name for name in chosen if name not in SECTIONS]:
        parser.error(f"--only {unknown[0]}: expected some of {', '.join(SECTIONS)}")
    if not given.interpret and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device. Use one that has, or --interpret")
    device = torch.device("cpu") if given.interpret else torch.device("cuda", 0)
    bench = Bench(device, given.interpret, 0.0 if given.interpret else given.seconds)
    if bench.interpret:
        held = on_cpu()
        assert held is not None
    choose(bench, "auto")
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"machine": machine_of(bench), "sections": {}}
    if "copy" not in chosen:
        copy(bench)
    began = time.perf_counter()
    for name, (run, needs_s) in SECTIONS.items():
        if name not in chosen:
            continue
        start = time.perf_counter()
        left_s = given.limit_s - (start - began)
        section: dict[str, Any]
        if left_s < needs_s:
            section = {"failure": f"left out: {left_s:.0f} s left, {needs_s:.0f} needed"}
        else:
            try:
                section = {"rows": run(bench)}
            except Exception as error:  # the other sections are wanted nevertheless
                section = {"failure": first_line(error)}
        section["seconds"] = time.perf_counter() - start
        found["sections"][name] = section
        (out / "device.json").write_text(json.dumps(found, indent=1))
        print(f"{name}: {section.get('failure') or 'done'}, {section['seconds']:.0f} s", flush=True)
    (out / "device.md").write_text(report(found))
    for name in wrong(found):
        print(f"{name}: not as it must be, see {out / 'device.md'}")
    return int(bool(wrong(found)))


if __name__ == "__main__":
    sys.exit(main())
