"""Predict what a recipe will cost on this machine by measuring its first steps."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from convnextv2.console import answer
from convnextv2.data.loader import PREFETCH, build_sampler, resolve_workers
from convnextv2.device import choose_device
from convnextv2.distributed import Place
from convnextv2.durations import read_duration
from convnextv2.errors import ConvNeXtV2Error
from convnextv2.machine import peak_memory
from convnextv2.recipe.knobs import group_of
from convnextv2.recipe.options import takes
from convnextv2.recipe.read import read_recipe
from convnextv2.tasks.choice import count_images
from convnextv2.verbs.options import PlanOptions

_LONGEST_START_S = 900.0


@takes(PlanOptions)
def plan(options: PlanOptions) -> dict[str, Any]:
    """Run the first steps of a recipe, and say what the whole run would cost.

    The steps run in a process of their own, in a temporary folder. The first step does not count,
    because it may compile. The memory is that of the host.

    Returns:
        Images per second, and the memory, time and disk space of the whole run.
    """
    config, knobs, probe_s = options.config, options.knob_values, options.probe_seconds
    recipe, _ = options.recipe(config)
    verb = options.verb
    verb = verb or ("pretrain" if recipe.model_fields_set & group_of("pre-training") else "train")
    prefetched = PREFETCH * resolve_workers(recipe.workers)[0]
    with tempfile.TemporaryDirectory(prefix="convnextv2-plan-") as folder:
        records, found = _probe(verb, config, knobs, Path(folder), probe_s, prefetched)
        own, _ = read_recipe({}, config=Path(folder) / "run" / "recipe.yaml")
    # Use what the probe found if the recipe leaves it open.
    batch_size, accumulate = own.images_per_batch(), own.accumulate
    recipe = recipe.model_copy(update={"batch_size": batch_size, "accumulate": accumulate})
    place = Place(torch.device("cpu"))
    images = count_images(recipe, place, labelled=verb == "train")
    batches = len(build_sampler(recipe, images, place))
    found |= pace(
        records,
        batch_size=batch_size,
        accumulate=accumulate,
        batches_per_epoch=batches,
        prefetched=prefetched,
    )
    steps_per_epoch = math.ceil(batches / accumulate)
    if recipe.time:
        fit = read_duration(recipe.time) / (steps_per_epoch * found["seconds_per_step"])
        recipe = recipe.model_copy(update={"epochs": max(1, round(fit))})
    steps = recipe.epochs * steps_per_epoch
    kept = (
        recipe.keep_checkpoints
        if recipe.keep_policy != "all"
        else recipe.epochs // recipe.save_every_epochs
    )
    figures = {
        "verb": verb,
        "images_per_second": found["images_per_second"],
        "data_wait": found["data_wait"],
        "memory_gib": found["memory_gib"],
        "epochs": recipe.epochs,
        "steps": steps,
        "hours": steps * found["seconds_per_step"] / 3600,
        # Checkpoints, and best/ and last/. These two hold only weights, which take at most a third
        # of a checkpoint each.
        "disk_gib": found["checkpoint_gib"] * (kept + 1 + 2 / 3),
    }
    waits = (
        f", {figures['data_wait']:.0%} of the time waiting for data"
        if figures["data_wait"] > 0.05
        else ""
    )
    print(
        f"{verb}: {figures['images_per_second']:.1f} images/s{waits} (over {found['measured']} "
        "steps on this machine)."
    )
    memory = (
        "Memory"
        if choose_device(recipe.device).type == "cpu"
        else "Memory of the host (that of the device is not measured)"
    )
    print(
        f"{memory}: {figures['memory_gib']:.1f} GiB at the peak. Disk: about "
        f"{figures['disk_gib']:.2f} GiB."
    )
    print(
        f"The whole recipe: {'about ' if recipe.time else ''}{recipe.epochs} epochs, {steps} "
        f"steps, {_duration(figures['hours'])} of training"
        f"{' and evaluation, as time says' if recipe.time else ''}."
    )
    if verb == "train" and recipe.val_while_train:
        print(
            "Evaluation is not counted: a pass over the validation images costs about a third of "
            "training on as many."
        )
    answer(figures)
    return figures


def pace(
    records: list[dict[str, Any]],
    *,
    batch_size: int,
    accumulate: int,
    batches_per_epoch: int,
    prefetched: int,
) -> dict[str, Any]:
    """Compute the pace from the record of each step.

    The pace is that of all images over the whole time, because steps come in bursts if the data are
    the bottleneck. The first step does not count.

    Args:
        records: The training records of the run, one for each step.
        batch_size: Images in a batch.
        accumulate: Batches in a step.
        batches_per_epoch: Batches in an epoch.
        prefetched: Batches that the workers had ready at the end of the first step. The steps that
            use them do not count either, unless there are few others.

    Returns:
        The number of steps that were measured, images per second, the share of the time spent
        waiting for data, and seconds per step.
    """
    first = max(1, min(1 + math.ceil(prefetched / accumulate), len(records) // 2))
    images, seconds, waited = 0, 0.0, 0.0
    for record in records[first:]:
        place = (
            (record["step"] - 1) % math.ceil(batches_per_epoch / accumulate) * accumulate
        )  # its first batch in the epoch
        of_step = min(accumulate, batches_per_epoch - place) * batch_size
        step_s = of_step / max(record["images_per_second"], 0.005)  # rounded to two places
        images, seconds, waited = (
            images + of_step,
            seconds + step_s,
            waited + record["data_wait"] * step_s,
        )
    measured = len(records) - first
    return {
        "measured": measured,
        "images_per_second": images / seconds,
        "data_wait": waited / seconds,
        "seconds_per_step": seconds / measured,
    }


def _probe(
    verb: str,
    config: str | Path | None,
    knobs: Mapping[str, Any],
    folder: Path,
    probe_s: float,
    prefetched: int,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run the first steps of the run itself, and stop it.

    Returns:
        The records of the steps, and the peak memory of the run and the size of the checkpoint
        that it leaves behind, in GiB.
    """
    out = folder / "run"
    own = {
        "out": out,
        "log_every_steps": 1,
        "tensorboard": False,
        "loggers": None,
        "resume": False,
        "overwrite": False,
    }
    settings = {**knobs, **own}
    command = [sys.executable, "-m", "convnextv2", verb]
    command += ["--config", str(config)] if config else []
    command += [f"--{name}={_text(value)}" for name, value in settings.items()]
    errors = folder / "errors"  # a file, because a pipe may become full
    with (
        errors.open("w") as file,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file) as process,
    ):
        started = first = time.monotonic()
        records: list[dict[str, Any]] = []
        peak = 0
        while process.poll() is None:
            time.sleep(0.2)
            peak = max(peak, peak_memory(process.pid))
            records = _records(out)
            if not records:
                first = time.monotonic()
            measured_s, enough = time.monotonic() - first, len(records) > 2 + prefetched
            ended = measured_s > (probe_s if enough else 4 * probe_s) and len(records) > 2
            if ended or time.monotonic() - started > _LONGEST_START_S:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(_LONGEST_START_S)
                except subprocess.TimeoutExpired:
                    process.kill()
    message = errors.read_text(errors="replace").strip()
    records = _records(out)
    if len(records) < 2:
        last = (
            message.splitlines()[-1].removeprefix("convnextv2: error: ")
            if message
            else "it ended before its second step"
        )
        raise ConvNeXtV2Error(f"the probe of {verb} took no step that could be measured: {last}")
    return records, {
        "memory_gib": peak / 2**30,
        "checkpoint_gib": sum(path.stat().st_size for path in (out / "checkpoints").rglob("*.*"))
        / 2**30,
    }


def _records(out: Path) -> list[dict[str, Any]]:
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        record
        for line in lines
        if line.endswith("}") and (record := json.loads(line))["kind"] == "train"
    ]


def _text(value: Any) -> str:
    return (
        "[" + ", ".join(map(str, value)) + "]"
        if isinstance(value, tuple | list)
        else os.fspath(value)
        if isinstance(value, Path)
        else str(value)
    )


def _duration(hours: float) -> str:
    return f"{hours / 24:.1f} days" if hours > 48 else str(timedelta(seconds=round(hours * 3600)))
