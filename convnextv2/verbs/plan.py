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
from convnextv2.data.loader import build_sampler
from convnextv2.data.source import Source
from convnextv2.data.workers import PREFETCH, resolve_workers
from convnextv2.device import choose_device
from convnextv2.distributed import Place
from convnextv2.durations import read_duration
from convnextv2.errors import ConvNeXtV2Error, DataError, RecipeError
from convnextv2.machine import peak_memory
from convnextv2.recipe.knobs import Recipe, knobs_in_group
from convnextv2.recipe.options import takes
from convnextv2.recipe.read import read_recipe
from convnextv2.tasks.choice import find_training, outline
from convnextv2.training.batch_size import with_accumulate
from convnextv2.training.cluster import Cluster, network_of, step_of, traffic_of
from convnextv2.verbs.options.learning import PlanOptions

_LONGEST_START_S = 900.0


@takes(PlanOptions)
def plan(options: PlanOptions) -> dict[str, Any]:
    """Run the first steps of a recipe, and say what the whole run would cost.

    The steps run in a process of their own, in a temporary folder. The first step does not count,
    because it may compile. The memory is that of the host. If the pace of one device is given,
    nothing is run. With `ranks`, the time on a cluster follows from the pace and the speed of its
    links, see `training.cluster`.

    Returns:
        Images per second, and the memory, time and disk space of the whole run.
    """
    recipe, _ = options.recipe(options.config)
    asks_pretraining = recipe.model_fields_set & knobs_in_group("pre-training")
    verb = options.verb or ("pretrain" if asks_pretraining else "train")
    found: dict[str, Any] = {}
    if options.images_per_second is None:
        records, found, own = _measure(options, verb, recipe)
        # Use what the probe found if the recipe leaves it open.
        known = {"batch_size": own.images_per_batch(), "accumulate": own.accumulate}
        known |= {
            name: getattr(own, name)
            for name in ("model", "depths", "dims", "in_channels", "image_size")
        }
        asked, recipe = recipe, recipe.model_copy(update=known)
    elif recipe.batch_size == "auto":
        raise RecipeError(
            "batch_size = auto: nothing is measured if images_per_second is given. Give batch_size."
        )
    else:
        records, asked = [], recipe
        recipe = with_accumulate(recipe, recipe.images_per_batch(), 1)
    source = find_training(recipe, Place(torch.device("cpu")), labelled=verb == "train")
    batches = len(build_sampler(recipe, len(source), Place(torch.device("cpu"))))
    if options.images_per_second is None:
        found |= pace(
            records,
            batch_size=recipe.images_per_batch(),
            accumulate=recipe.accumulate,
            batches_per_epoch=batches,
            prefetched=PREFETCH * resolve_workers(recipe.workers)[0],
        )
    else:
        images = recipe.images_per_batch() * recipe.accumulate
        found["images_per_second"] = options.images_per_second
        found["seconds_per_step"] = images / options.images_per_second
    figures = _whole_run(verb, recipe, batches, found)
    if options.ranks is not None:
        asked = asked.model_copy(update={"batch_size": recipe.batch_size})
        cluster = Cluster(options.ranks, options.link_gbit)
        pace_of_one = figures["images_per_second"]
        figures["cluster"] = plan_cluster(asked, recipe, source, verb, cluster, pace_of_one)
    answer(figures)
    return figures


def _measure(
    options: PlanOptions, verb: str, recipe: Recipe
) -> tuple[list[dict[str, Any]], dict[str, Any], Recipe]:
    """Run the first steps of a recipe.

    Returns:
        What `_probe` returns, and the recipe as the run resolved it.
    """
    prefetched = PREFETCH * resolve_workers(recipe.workers)[0]
    with tempfile.TemporaryDirectory(prefix="convnextv2-plan-") as folder:
        records, found = _probe(
            verb, options.config, options.knob_values, Path(folder), options.probe_seconds,
            prefetched,
        )  # fmt: skip
        own, _ = read_recipe({}, config=Path(folder) / "run" / "recipe.yaml")
    return records, found, own


def _whole_run(verb: str, recipe: Recipe, batches: int, found: Mapping[str, Any]) -> dict[str, Any]:
    """Compute and print what the whole run costs on this device."""
    steps_per_epoch = math.ceil(batches / recipe.accumulate)
    if recipe.time:
        fit = read_duration(recipe.time) / (steps_per_epoch * found["seconds_per_step"])
        recipe = recipe.model_copy(update={"epochs": max(1, round(fit))})
    steps = recipe.epochs * steps_per_epoch
    figures: dict[str, Any] = {"verb": verb, "images_per_second": found["images_per_second"]}
    if "measured" in found:
        kept = (
            recipe.keep_checkpoints
            if recipe.keep_policy != "all"
            else recipe.epochs // recipe.save_every_epochs
        )
        figures |= {
            "data_wait": found["data_wait"],
            "memory_gib": found["memory_gib"],
            # Checkpoints, and best/ and last/. These two hold only weights, which take at most a
            # third of a checkpoint each.
            "disk_gib": found["checkpoint_gib"] * (kept + 1 + 2 / 3),
        }
        _print_measured(figures, found["measured"], recipe.device)
    hours = steps * found["seconds_per_step"] / 3600
    figures |= {"epochs": recipe.epochs, "steps": steps, "hours": hours}
    print(
        f"The whole recipe: {'about ' if recipe.time else ''}{recipe.epochs} epochs, {steps} "
        f"steps, {_duration(hours)} of training"
        f"{' and evaluation, as time says' if recipe.time else ''}."
    )
    if verb == "train" and recipe.val_while_train:
        print(
            "Evaluation is not counted: a pass over the validation images costs about a third of "
            "training on as many."
        )
    return figures


def _print_measured(figures: Mapping[str, Any], measured: int, device: str) -> None:
    waits = (
        f", {figures['data_wait']:.0%} of the time waiting for data"
        if figures["data_wait"] > 0.05
        else ""
    )
    print(
        f"{figures['verb']}: {figures['images_per_second']:.1f} images/s{waits} (over {measured} "
        "steps on this machine)."
    )
    memory = (
        "Memory"
        if choose_device(device).type == "cpu"
        else "Memory of the host (that of the device is not measured)"
    )
    print(
        f"{memory}: {figures['memory_gib']:.1f} GiB at the peak. Disk: about "
        f"{figures['disk_gib']:.2f} GiB."
    )


def plan_cluster(
    asked: Recipe,
    recipe: Recipe,
    source: Source,
    verb: str,
    cluster: Cluster,
    images_per_second: float,
) -> dict[str, Any]:
    """Compute and print what the whole run costs on several devices.

    Args:
        asked: The recipe as the user gave it, with batch_size as a number.
        recipe: The recipe as it would run on one device.
        source: The training images.
        verb: train or pretrain.
        cluster: The devices.
        images_per_second: The pace of one device.

    Returns:
        See `verbs.answers.runs.PlannedCluster`.

    Raises:
        DataError: There are too few images for one batch of each device.
    """
    batch_size, ranks = recipe.images_per_batch(), cluster.ranks
    accumulate = with_accumulate(asked, batch_size, ranks).accumulate
    place = Place(torch.device("cpu"), 0, ranks)
    batches = len(build_sampler(recipe, len(source), place))
    if not batches:
        raise DataError(
            f"ranks = {ranks}: a batch of each takes {batch_size * ranks:,} images, and there are "
            f"{len(source):,} for training. Use fewer ranks or a smaller batch_size."
        )
    steps = recipe.epochs * math.ceil(batches / accumulate)
    network = network_of(outline(recipe, source, labelled=verb == "train"))
    sharded = recipe.shard and ranks > 1
    step = step_of(
        network, cluster, batch_size=batch_size, accumulate=accumulate,
        images_per_second=images_per_second, sharded=sharded,
    )  # fmt: skip
    traffic = traffic_of(network, ranks, sharded=sharded, accumulate=accumulate)
    least_share, most_share = step.shares()
    figures = {
        "ranks": ranks,
        "global_batch": batch_size * accumulate * ranks,
        "parameters": network.parameters,
        "mbytes_per_step": traffic.bytes_sent / 1e6,
        "compute_s": step.compute_s,
        "communication_s": step.communication_s,
        "steps": steps,
        "least_hours": steps * step.least_s / 3600,
        "most_hours": steps * step.most_s / 3600,
        "least_share": least_share,
        "most_share": most_share,
    }
    print(
        f"{ranks} devices, {cluster.link_gbit:g} Gbit/s: {figures['global_batch']:,} images in a "
        f"step. Each device computes for {step.compute_s:.3g} s and sends "
        f"{figures['mbytes_per_step']:,.1f} MB, which takes {step.communication_s:.3g} s."
    )
    print(
        f"The whole recipe there: {recipe.epochs} epochs, {steps} steps, "
        f"{_duration(figures['least_hours'])} to {_duration(figures['most_hours'])}. "
        f"{least_share:.0%} to {most_share:.0%} of it waits for communication: the former if what "
        "can run beside the computation does."
    )
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
