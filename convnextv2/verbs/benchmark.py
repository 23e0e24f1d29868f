"""Measure how fast this machine trains and runs the models, and with which engine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from convnextv2 import waiting
from convnextv2.console import print_json
from convnextv2.data.build_transforms import build_batch_transform
from convnextv2.data.loader import build_training_loader
from convnextv2.data.sources import find_sources
from convnextv2.device import autocast, choose_device, choose_precision
from convnextv2.distributed import Place
from convnextv2.ending import end_with_parent
from convnextv2.errors import ConvNeXtV2Error, RecipeError
from convnextv2.evaluation.timing import take_turns
from convnextv2.inference.backends import BACKENDS, build_backend, installed_backends
from convnextv2.kernels import choice
from convnextv2.machine import peak_memory
from convnextv2.model.convnext import SIZES, create_model
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.options import takes
from convnextv2.training.optim import build_optimizer
from convnextv2.verbs.options.measuring import BenchmarkOptions

_BATCH = BenchmarkOptions.knobs["batch_size"]
WORKS = ("pretrain", "train", "inference", "loader")
_END_S = 10.0
"""How long a process may take to end after it has sent its figures, in seconds."""


@takes(BenchmarkOptions)
def benchmark(options: BenchmarkOptions) -> list[dict[str, Any]]:
    """Measure whole steps of pre-training and training, inference, and the training loader.

    Each row is measured in a process of its own, so that its memory is known. Memory is the peak
    beyond what the imports took, including weights and optimizer. Two warm-up repetitions do not
    count.

    Returns:
        The rows of the table that is printed.
    """
    recipe, notes = options.recipe()
    recipe = recipe.model_copy(update={"batch_size": recipe.images_per_batch(_BATCH)})
    for note in notes:
        print(note)
    has_images = bool(recipe.data_dir or recipe.dataset)
    usual_works = [work for work in WORKS if work != "loader" or has_images]
    works = _chosen("works", options.works or usual_works, WORKS)
    given = options.backends.split(",")
    engines = _chosen(
        "backends", installed_backends() if given == ["installed"] else given, BACKENDS
    )
    sizes = [size.removeprefix("convnextv2_") for size in SIZES]
    given = [name.strip().removeprefix("convnextv2_") for name in options.models.split(",")]
    names = [f"convnextv2_{size}" for size in _chosen("models", given, sizes)]
    limit_s = options.seconds
    device = choose_device(recipe.device)
    dtype = str(choose_precision(recipe.precision, device)).removeprefix("torch.")
    kernels = choice.choose(recipe.kernels, device)
    print(
        f"Device {device}, threads: {torch.get_num_threads()}, {dtype}, kernels {kernels}, torch "
        f"{torch.__version__}."
    )
    if device.type == "cpu" and (how := waiting.line(os.environ, torch.get_num_threads())):
        print(how)
    rows: list[dict[str, Any]] = []
    for name in names:
        cases = [
            (work, engine)
            for work in works
            if work != "loader"
            for engine in (engines if work == "inference" else [""])
        ]
        rows += [_measure_apart(work, name, engine, recipe, limit_s) for work, engine in cases]
    if "loader" in works:
        rows.append(_measure_apart("loader", "", "", recipe, limit_s))
    _show(rows)
    print_json(rows)
    return rows


def _chosen(option: str, values: Sequence[str], allowed: Sequence[str]) -> list[str]:
    """Check the values of an option that takes several of the allowed words, and remove duplicates.

    Raises:
        RecipeError: A value is none of the allowed words.
    """
    values = [value.strip() for value in values]
    if wrong := [value for value in values if value not in allowed]:
        raise RecipeError(f"{option} = {wrong[0]!r}: expected some of {', '.join(allowed)}.")
    return list(dict.fromkeys(values))


def _measure_apart(
    work: str, model: str, engine: str, recipe: Recipe, limit_s: float
) -> dict[str, Any]:
    """Measure one row in a new process. If that fails, the row has a "failure" instead."""
    row: dict[str, Any] = {
        "work": work,
        "model": model.removeprefix("convnextv2_"),
        "backend": engine or ("compiled" if recipe.compile else "eager"),
    }
    context = multiprocessing.get_context("spawn")
    result, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, model, engine, recipe, limit_s))
    try:
        process.start()
        sender.close()  # so that `recv` ends with the process
        row |= result.recv()
        process.join(_END_S)
    except EOFError:
        process.join()
        row["failure"] = f"the process ended with status {process.exitcode}"
    finally:
        if process.is_alive():  # it hangs, or this process was interrupted
            process.kill()
            process.join()
    return row


def _send(
    sender: Connection, work: str, model: str, engine: str, recipe: Recipe, limit_s: float
) -> None:
    """Measure one row in this new process, and send the figures or the failure."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the parent, which decides
    try:
        found = measure(work, model, engine, recipe, limit_s)
    except ConvNeXtV2Error as error:
        found = {"failure": str(error)}
    except Exception as error:  # engines of other libraries raise any kind of error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        found = {"failure": lines[0][:200]}
    sender.send(found)


def measure(work: str, model: str, engine: str, recipe: Recipe, limit_s: float) -> dict[str, Any]:
    """Measure one row in this process.

    Args:
        work: One of `WORKS`.
        model: The name of the size.
        engine: The inference engine; unused by other works.
        recipe: The batch, the images and the knobs of the step.
        limit_s: Seconds after which no new repetition begins.

    Returns:
        images_per_second (the median), spread (half the interquartile range, as a share of the
        median) and memory_mib.
    """
    warnings.simplefilter("ignore")  # exporters and compilers warn about their own internals
    device = choose_device(recipe.device)
    choice.choose(recipe.kernels, device)
    if device.type == "cpu":
        before = peak_memory(os.getpid())
    run, images = {
        "pretrain": _pretrain,
        "train": _train,
        "inference": _inference,
        "loader": _loader,
    }[work](recipe, model, engine, device)
    timing = take_turns({work: run}, seconds=limit_s, min_rounds=3, device=device)[work]
    if device.type == "cpu":
        memory = (peak_memory(os.getpid()) - before) / 2**20
    else:
        memory = torch.get_device_module(device).max_memory_allocated(device) / 2**20
    return {
        "images_per_second": images / timing.median,
        "spread": timing.spread,
        "memory_mib": memory,
    }


def _images(recipe: Recipe, device: torch.device) -> torch.Tensor:
    height, width = recipe.height_and_width()
    images = torch.randn(
        recipe.images_per_batch(), recipe.in_channels, height, width, device=device
    )
    return images.to(memory_format=torch.channels_last)  # the layout of the loaders


def _step(
    model: nn.Module, loss_of: Callable[[], torch.Tensor], recipe: Recipe, device: torch.device
) -> Callable[[], None]:
    optimizer = build_optimizer(recipe, model)
    dtype = choose_precision(recipe.precision, device)
    if recipe.compile:
        model.compile(dynamic=False)

    def step() -> None:
        with autocast(device, dtype):
            loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _pretrain(
    recipe: Recipe, name: str, engine: str, device: torch.device
) -> tuple[Callable[[], None], int]:
    model = FCMAE(
        create_model(name, num_classes=None, in_channels=recipe.in_channels), tile=recipe.tile
    ).to(device)
    images = _images(recipe, device)
    grid = model.grid(*images.shape[-2:])
    masks = [
        mask.to(device)
        for mask in draw_masks(
            len(images), grid, recipe.mask_ratio, torch.Generator().manual_seed(0)
        )
    ]
    return _step(model, lambda: model(images, *masks), recipe, device), len(images)


def _train(
    recipe: Recipe, name: str, engine: str, device: torch.device
) -> tuple[Callable[[], None], int]:
    model = (
        create_model(name, in_channels=recipe.in_channels, drop_path_rate=recipe.drop_path_rate)
        .to(device)
        .train()
    )
    images = _images(recipe, device)
    targets = torch.randint(1000, (len(images),), device=device)
    return _step(
        model, lambda: nn.functional.cross_entropy(model(images).float(), targets), recipe, device
    ), len(images)


def _inference(
    recipe: Recipe, name: str, engine: str, device: torch.device
) -> tuple[Callable[[], object], int]:
    model = create_model(name, in_channels=recipe.in_channels).to(device).eval()
    images = _images(recipe, device)
    run = build_backend(engine, model, images, choose_precision(recipe.precision, device))
    return lambda: run(images), len(images)


def _loader(
    recipe: Recipe, name: str, engine: str, device: torch.device
) -> tuple[Callable[[], None], int]:
    source, _ = find_sources(recipe, labelled=False)
    loader = build_training_loader(recipe, source, Place(device))
    to_images = build_batch_transform(recipe, 0)
    if not len(loader):
        raise RecipeError(
            f"batch_size = {recipe.batch_size}: larger than the {len(source)} images. Use a "
            "smaller one."
        )

    def epoch() -> None:
        for batch in loader.batches(0):
            to_images.normalise(batch.pixels.to(device))

    # The last batch may be incomplete, or dropped.
    return epoch, min(len(loader) * recipe.images_per_batch(), loader.sampler.images_per_rank)


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("work", "model", "backend", "images/s", "spread", "memory, MiB", box=None)
    for row in rows:
        what = (row["work"], row["model"], row["backend"])
        if "failure" in row:
            table.add_row(*what, "-", "", row["failure"])
        else:
            figures = (
                f"{row['images_per_second']:.1f}",
                f"± {row['spread']:.1%}",
                f"{row['memory_mib']:.0f}",
            )
            table.add_row(*what, *figures)
    Console().print(table)
    for model in dict.fromkeys(row["model"] for row in rows if row["work"] == "inference"):
        runs = [
            row
            for row in rows
            if row["work"] == "inference" and row["model"] == model and "failure" not in row
        ]
        if len(runs) > 1:
            print(
                f"Fastest inference of {model} here: "
                f"{max(runs, key=lambda row: row['images_per_second'])['backend']}."
            )
