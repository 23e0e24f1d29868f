"""Predict what a recipe will cost on this machine by measuring its first steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from convnextv2.console import print_json
from convnextv2.data.loader import build_sampler
from convnextv2.data.source import Source
from convnextv2.data.workers import PREFETCH, resolve_workers
from convnextv2.device import choose_device
from convnextv2.distributed import Place
from convnextv2.durations import read_duration
from convnextv2.errors import DataError, RecipeError
from convnextv2.files import system_scratch
from convnextv2.recipe.knobs import Recipe, knobs_in_group
from convnextv2.recipe.options import takes
from convnextv2.recipe.read import read_recipe
from convnextv2.tasks.choice import find_training, outline
from convnextv2.text import counted
from convnextv2.training.batch_size import with_accumulate
from convnextv2.training.cluster import Cluster, network_of, step_of, traffic_of
from convnextv2.verbs.first_steps import FirstSteps, Throughput, measure_throughput, run_first_steps
from convnextv2.verbs.options.learning import PlanOptions

_ONE_DEVICE = Place(torch.device("cpu"))


@dataclass(frozen=True)
class _Training:
    """The training that is planned, on one device.

    Attributes:
        verb: train or pretrain.
        recipe: The recipe, with the values that the run determines itself.
        source: The training images.
        batches: Batches in an epoch.
    """

    verb: str
    recipe: Recipe
    source: Source
    batches: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.batches / self.recipe.accumulate)

    def epochs(self, throughput: Throughput) -> int:
        """Return the epochs of the recipe, or those that fit into its time."""
        if not self.recipe.time:
            return self.recipe.epochs
        epoch_s = self.steps_per_epoch * throughput.seconds_per_step
        return max(1, round(read_duration(self.recipe.time) / epoch_s))


@takes(PlanOptions)
def plan(options: PlanOptions) -> dict[str, Any]:
    """Run the first steps of a recipe, and predict what the whole run would cost.

    The steps run in a process of their own, in a temporary folder. The first step does not count,
    because it may compile. The memory is that of the host. If the throughput of one device is
    given, nothing is run. With `ranks`, the time on a cluster is computed from it and the speed of
    the links; see `training.cluster`.

    Returns:
        Images per second, and the memory, time and disk space of the whole run.
    """
    asked, _ = options.recipe(options.config)
    asks_pretraining = asked.model_fields_set & knobs_in_group("pre-training")
    verb = options.verb or ("pretrain" if asks_pretraining else "train")
    if options.images_per_second is not None:
        training = _find(verb, _with_known_batch(asked))
        figures = _whole_run(
            training, _known_throughput(training.recipe, options.images_per_second)
        )
    else:
        prefetched = PREFETCH * resolve_workers(asked.workers)[0]
        first, recipe = _measure(options, verb, asked, prefetched)
        training = _find(verb, recipe)
        measured = measure_throughput(
            first.records,
            batch_size=recipe.images_per_batch(),
            accumulate=recipe.accumulate,
            batches_per_epoch=training.batches,
            prefetched=prefetched,
        )
        figures = _report_measured(training, measured, first)
        figures |= _whole_run(training, measured)
    if options.ranks is not None:
        asked = asked.model_copy(update={"batch_size": training.recipe.batch_size})
        cluster = Cluster(options.ranks, options.link_gbit)
        figures["cluster"] = _on_cluster(training, asked, cluster, figures["images_per_second"])
    print_json(figures)
    return figures


def _with_known_batch(recipe: Recipe) -> Recipe:
    if recipe.batch_size == "auto":
        raise RecipeError(
            "batch_size = auto: nothing is measured if images_per_second is given. Give batch_size."
        )
    return with_accumulate(recipe, recipe.images_per_batch(), 1)


def _known_throughput(recipe: Recipe, images_per_second: float) -> Throughput:
    images = recipe.images_per_batch() * recipe.accumulate
    return Throughput(0, images_per_second, 0.0, images / images_per_second)


def _find(verb: str, recipe: Recipe) -> _Training:
    source = find_training(recipe, _ONE_DEVICE, labelled=verb == "train")
    return _Training(verb, recipe, source, len(build_sampler(recipe, len(source), _ONE_DEVICE)))


def _measure(
    options: PlanOptions, verb: str, recipe: Recipe, prefetched: int
) -> tuple[FirstSteps, Recipe]:
    """Run the first steps of a recipe.

    Returns:
        What they left behind, and the recipe with the values that the run determined itself.
    """
    with system_scratch("plan") as folder:
        out = folder / "run"
        first = run_first_steps(
            verb, options.config, options.knob_values, out, seconds=options.probe_seconds,
            prefetched=prefetched,
        )  # fmt: skip
        own, _ = read_recipe({}, config=out / "recipe.yaml")
    known = {"batch_size": own.images_per_batch(), "accumulate": own.accumulate}
    known |= {
        name: getattr(own, name)
        for name in ("model", "depths", "dims", "in_channels", "image_size")
    }
    return first, recipe.model_copy(update=known)


def _report_measured(
    training: _Training, measured: Throughput, first: FirstSteps
) -> dict[str, Any]:
    """Compute and print the throughput, memory and disk space that follow from the first steps."""
    recipe = training.recipe
    kept = (
        recipe.keep_checkpoints
        if recipe.keep_policy != "all"
        else training.epochs(measured) // recipe.save_every_epochs
    )
    # Checkpoints, and best/ and last/. These two hold only weights, which take at most a third of a
    # checkpoint each.
    disk_gib = first.checkpoint_bytes / 2**30 * (kept + 1 + 2 / 3)
    memory_gib = first.memory_bytes / 2**30
    waits = (
        f", {measured.data_wait:.0%} of the time waiting for data"
        if measured.data_wait > 0.05
        else ""
    )
    print(
        f"{training.verb}: {measured.images_per_second:.1f} images/s{waits} (over "
        f"{measured.measured} steps on this machine)."
    )
    memory = (
        "Memory"
        if choose_device(recipe.device).type == "cpu"
        else "Memory of the host (that of the device is not measured)"
    )
    disk = f"{disk_gib:.2f} GiB" if disk_gib >= 0.1 else f"{1024 * disk_gib:.1f} MiB"
    print(f"{memory}: {memory_gib:.1f} GiB at the peak. Disk: about {disk}.")
    return {"data_wait": measured.data_wait, "memory_gib": memory_gib, "disk_gib": disk_gib}


def _whole_run(training: _Training, throughput: Throughput) -> dict[str, Any]:
    """Compute and print the time of the whole run on this device."""
    recipe, epochs = training.recipe, training.epochs(throughput)
    steps = epochs * training.steps_per_epoch
    hours = steps * throughput.seconds_per_step / 3600
    print(
        f"The whole recipe: {'about ' if recipe.time else ''}{counted(epochs, 'epoch(s)')}, "
        f"{counted(steps, 'step(s)')}, {_duration(hours)} of training"
        f"{' and evaluation, as set by time' if recipe.time else ''}."
    )
    if training.verb == "train" and recipe.val_while_train:
        print(
            "Evaluation is not counted: a pass over the validation images costs about a third of "
            "training on as many."
        )
    return {
        "verb": training.verb,
        "images_per_second": throughput.images_per_second,
        "epochs": epochs,
        "steps": steps,
        "hours": hours,
    }


def _on_cluster(
    training: _Training, asked: Recipe, cluster: Cluster, images_per_second: float
) -> dict[str, Any]:
    """Compute and print what the whole run costs on several devices.

    Args:
        training: The training as it would run on one device.
        asked: The recipe as the user gave it, with batch_size as a number.
        cluster: The devices.
        images_per_second: The throughput of one device.

    Returns:
        See `verbs.answers.runs.PlannedCluster`.

    Raises:
        DataError: There are too few images for one batch of each device.
    """
    recipe, source = training.recipe, training.source
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
    network = network_of(outline(recipe, source, labelled=training.verb == "train"))
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
        f"{least_share:.0%} to {most_share:.0%} of that is spent waiting for communication; the "
        "lower figures hold if it overlaps the computation as far as possible."
    )
    return figures


def _duration(hours: float) -> str:
    if hours < 1 / 3600:
        return "less than a second"
    return f"{hours / 24:.1f} days" if hours > 48 else str(timedelta(seconds=round(hours * 3600)))
