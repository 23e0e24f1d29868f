"""Whole training steps: how fast they are beside others', and whether they are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from bench import Bench, Row, choose, first_line
from masked_dense import MaskedDense, check
from torch import Tensor, nn

from convnextv2.model.fcmae import FCMAE

Step = Callable[[], Tensor]


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
        bench: Where it runs.
        size: The size of the network.
        images: The number of images in a batch.
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
    """Let the loss depend on all weights: GRN starts at zero, and the loss of FCMAE at 1."""
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
        bench: Where they run.
        what: The name of the work in the table.
        images: The number of images in a batch.
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
            # All start from the same weights, except timm's.
            row["right"] = row["contestant"] == "timm" or abs(row["loss"] / ours[0] - 1) < 1e-2
        else:
            row["right"] = False
    return rows


def paced(bench: Bench, step: Step, images: int) -> Row:
    """Take a step for its loss, and time the next ones."""
    loss = float(step())
    seconds = bench.timed(step, 5)
    return {"images/s": images / seconds, "ms": seconds * 1e3, "loss": loss}


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
    """Time steps of atto, whose time is that of launching kernels: eager, compiled, CUDA graphs."""
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
