"""The same CPU time for trainings of this package and of others, and finished runs that are kept.

Time is the CPU time of a process with one thread, counted from the first step. So what else a
machine does disturbs nobody, and two processes may run side by side on two cores. Our runs end by
the knob `time`, which counts seconds of the clock; here it is given the CPU's. The loops of others
let their learning rate fall with the time that is used up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from studies import argument_parser, mean_and_range
from torch import Tensor, nn

import convnextv2
from convnextv2.errors import TrainingError
from convnextv2.machine import peak_memory
from convnextv2.run import Run
from convnextv2.training import train as training
from convnextv2.training.deadline import Deadline

RATES = (1e-3, 3e-4, 3e-3, 1e-4, 1e-2)
"""The learning rates that are tried, the same for everyone; `tries` takes the first ones."""
WARMUP = 0.05
"""The share of the time in which the learning rate of other libraries' loops rises."""
EMA_DECAY = 0.998
"""The decay of everyone's average of the weights, as in our recipes for small data."""
_PRETRAINING_BATCH = 64
_END_S = 3
"""The knob `time` keeps these seconds for the end of a run. They are not training."""


@dataclass(frozen=True)
class Spent:
    """The cost of one training.

    Attributes:
        seconds: CPU time from the first step to the last.
        steps: The number of steps.
        epochs: The number of passes over the training images.
        memory_mib: The largest resident size of the process until then.
        diverged: Whether the loss became infinite or no number, which ended the training.
    """

    seconds: float
    steps: int
    epochs: float
    memory_mib: int
    diverged: bool = False


class CpuDeadline(Deadline):
    """The deadline of a run of ours, by the CPU time from its first step on."""

    taken_s = 0.0
    """CPU seconds of the last training in this process, without its last evaluation."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        now = time.process_time()
        super().__init__(*arguments, **{**settings, "began": now, "clock": time.process_time})

    def close_training(self, images: int) -> None:
        """Note what the steps took, and plan the rest."""
        super().close_training(images)
        CpuDeadline.taken_s = self.plan.elapsed_s


def train_ours(verb: str, out: Path, seconds: float, **knobs: Any) -> Spent:
    """Train by this package in this process.

    Args:
        verb: "train" or "pretrain".
        out: The run folder.
        seconds: CPU time for all steps.
        knobs: The knobs of the run. Nothing is evaluated before the last epoch.
    """
    training.Deadline = CpuDeadline
    if verb == "train":
        knobs["val_every_epochs"] = 1_000_000
    diverged = False
    try:
        getattr(convnextv2, verb)(
            out=out, time=f"{seconds + _END_S}s", workers=0, save_every_epochs=1_000_000,
            device="cpu", **knobs,
        )  # fmt: skip
    except TrainingError as error:
        if "Lower lr" not in str(error):  # so it is not about the loss or the weights
            raise
        diverged = True
    epochs = [each for each in Run(out).metrics() if each["kind"] == "epoch"]
    done = epochs[-1] if epochs else {"step": 0, "epoch": 0}
    memory = peak_memory(os.getpid()) >> 20
    return Spent(CpuDeadline.taken_s, done["step"], done["epoch"], memory, diverged)


def pretrain_ours(out: Path, data: Path, job: Mapping[str, Any]) -> Spent:
    """Pre-train by FCMAE on the training images of a folder, in this process.

    Args:
        out: The run folder.
        data: The folder.
        job: The content of the job: seconds, size, images and seed.
    """
    return train_ours(
        "pretrain",
        out,
        job["seconds"],
        config="fcmae_small_data",
        data_dir=str(data),
        image_size=job["size"],
        batch_size=min(_PRETRAINING_BATCH, job["images"]),
        lr_batch_size=_PRETRAINING_BATCH,
        seed=job["seed"],
        precision="float32",
        health_every_epochs=1_000_000,
    )


class TimeUsed:
    """The share of a training's CPU time that is used up, and the learning rate that follows.

    Args:
        seconds: The CPU time of the training.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._began = seconds, time.process_time()

    @property
    def taken_s(self) -> float:
        """The CPU time since the start, in seconds."""
        return time.process_time() - self._began

    @property
    def share(self) -> float:
        """The share of the time that is used up. At 1, the training ends."""
        return self.taken_s / self._seconds


def cosine(share: float) -> float:
    """Return the factor on the highest learning rate: a linear rise, then half a cosine to 0."""
    if share < WARMUP:
        return 0.01 + 0.99 * share / WARMUP
    return (1 + math.cos(math.pi * min(1.0, (share - WARMUP) / (1 - WARMUP)))) / 2


def decayed(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Group parameters so that biases and those of norms are not decayed."""
    listed = [each for each in model.parameters() if each.requires_grad]
    return [
        {"params": [each for each in listed if each.ndim > 1], "weight_decay": weight_decay},
        {"params": [each for each in listed if each.ndim <= 1], "weight_decay": 0.0},
    ]


def train_theirs(
    model: nn.Module,
    batches: Iterable[Any],
    loss_of: Callable[[Any], Tensor],
    *,
    seconds: float,
    lr: float,
    weight_decay: float = 0.05,
    batches_per_epoch: int,
) -> Spent:
    """Train another library's network by AdamW, and put its averaged weights into it.

    Args:
        model: The network.
        batches: Endless batches.
        loss_of: Computes the loss of a batch.
        seconds: CPU time for all steps.
        lr: The highest learning rate.
        weight_decay: The decay of weights.
        batches_per_epoch: Batches in a pass over the images.
    """
    optimizer = torch.optim.AdamW(decayed(model, weight_decay), lr=lr)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    used, steps, diverged = TimeUsed(seconds), 0, False
    model.train()
    for batch in batches:
        if (share := used.share) >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = lr * cosine(share)
        loss = loss_of(batch)
        if not math.isfinite(float(loss.detach())):
            diverged = True
            break
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        steps += 1
        follow(average, model, steps)
    taken = used.taken_s
    model.load_state_dict(average)
    memory = peak_memory(os.getpid()) >> 20
    return Spent(taken, steps, steps / batches_per_epoch, memory, diverged)


@torch.no_grad()
def follow(average: Mapping[str, Tensor], model: nn.Module, step: int) -> None:
    """Let an average of the weights, and of the statistics of norms, follow a step.

    The decay is min(0.998, (1 + step) / (10 + step)), as in our recipes for small data.
    """
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


Job = dict[str, Any]
"""The settings of a run as JSON, which its process reads. The folder is given separately."""


class Jobs:
    """Runs of a program in processes of their own, of which the finished ones are kept.

    Args:
        script: The program. It is called with `--job FOLDER`, where FOLDER has job.json, and writes
            FOLDER/result.json.
        side_by_side: How many run at a time.
    """

    def __init__(self, script: Path, side_by_side: int) -> None:
        self._script, self._count = script, side_by_side

    def run(self, jobs: Mapping[Path, Job]) -> dict[Path, Any]:
        """Run what is not finished.

        Args:
            jobs: The jobs, by folder.

        Returns:
            The results, by folder.

        Raises:
            SystemExit: Some failed. The others were run, and are kept.
        """
        with ThreadPoolExecutor(self._count) as pool:
            failed = [each for each in pool.map(self._run, jobs, jobs.values()) if each]
        if failed:
            sys.exit("\n".join(failed))
        return {folder: json.loads((folder / "result.json").read_text()) for folder in jobs}

    def _run(self, folder: Path, job: Job) -> str:
        described = json.dumps(job, indent=2) + "\n"
        if (folder / "result.json").exists():
            if (folder / "job.json").read_text() == described:
                return ""
            return (
                f"{folder}: was finished with other settings than those asked for now. Choose "
                "another OUT, or remove this folder."
            )
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(described)
        began = time.monotonic()
        with open(folder / "log.txt", "w") as log:
            done = subprocess.run(
                [sys.executable, str(self._script), "--job", str(folder)],
                env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )
        if done.returncode:
            last = (folder / "log.txt").read_text().strip().splitlines()[-1:]
            return f"{folder}: failed ({' '.join(last)}). See log.txt there; start again to retry."
        print(f"{folder}: {time.monotonic() - began:.0f} s", flush=True)
        return ""


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write the result of a job, as the last thing that it does."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    whole = time.process_time() + children.ru_utime + children.ru_stime
    text = json.dumps({**result, "whole_cpu_s": round(whole, 1)}, indent=2) + "\n"
    (folder / "result.tmp").write_text(text)
    (folder / "result.tmp").rename(folder / "result.json")


def comparison_parser(description: str | None, *, minutes: float) -> argparse.ArgumentParser:
    """Build a parser of the arguments that all comparisons share.

    Args:
        description: The docstring of the program.
        minutes: The usual CPU time of an arm.
    """
    parser = argument_parser(description)
    told = f"CPU time of an arm [{minutes:g}]"
    parser.add_argument("--minutes", type=float, default=minutes, help=told)
    parser.add_argument("--tries", type=int, default=3, choices=range(1, 6), help="rates [3]")
    parser.add_argument("--seeds", type=int, default=2, help="final runs of an arm [2]")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side [1]")
    return parser


class Plan(Protocol):
    """The plan of a comparison. Every arm (a way to train) learns every set of images."""

    def pretraining(self, name: str, arm: str, seed: int) -> tuple[Path, Job] | None:
        """Return folder and job of an arm's pre-training; None without one."""

    def training(
        self, name: str, arm: str, seed: int, rate: float, *, final: bool
    ) -> tuple[Path, Job]:
        """Return folder and job of a training: a final one, or one that tries a rate."""

    def score(self, name: str) -> str:
        """Return the figure that chooses the learning rate."""


def compare(
    plan: Plan,
    jobs: Jobs,
    *,
    arms: Mapping[str, Sequence[str]],
    rates: Sequence[float],
    seeds: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Pre-train, try learning rates with the first seed, and train with the best for each seed.

    Args:
        plan: The comparison.
        jobs: Runs them.
        arms: The arms of each set.
        rates: The learning rates that each arm tries. A single one is taken as it is.
        seeds: The number of seeds.

    Returns:
        For each set and arm the rate that was chosen (`lr`), the scores of all (`tried`), the
        results of the pre-trainings (`before`) and of the final trainings (`runs`).
    """
    all_seeds = range(seeds)
    pairs = [(name, arm) for name, listed in arms.items() for arm in listed]
    before = {
        (name, arm, seed): found
        for seed, (name, arm) in itertools.product(all_seeds, pairs)
        if (found := plan.pretraining(name, arm, seed))
    }
    pretrained = jobs.run(dict(before.values()))
    tries = {
        (name, arm, rate): plan.training(name, arm, 0, rate, final=False)
        for (name, arm), rate in itertools.product(pairs, rates)
        if len(rates) > 1
    }
    tried = jobs.run(dict(tries.values()))
    scores = {
        key: tried[folder]["scores"][plan.score(key[0])] for key, (folder, _) in tries.items()
    }
    best = {
        pair: max(rates, key=lambda rate, pair=pair: scores.get((*pair, rate), 0.0))
        for pair in pairs
    }
    finals = {
        (name, arm, seed): plan.training(name, arm, seed, best[name, arm], final=True)
        for seed, (name, arm) in itertools.product(all_seeds, pairs)
    }
    done = jobs.run(dict(finals.values()))
    return {
        name: {
            arm: {
                "lr": best[name, arm],
                "tried": {
                    f"{rate:g}": scores[name, arm, rate]
                    for rate in rates
                    if (name, arm, rate) in scores
                },
                "before": [
                    pretrained[before[name, arm, seed][0]]
                    for seed in all_seeds
                    if (name, arm, seed) in before
                ],
                "runs": [done[finals[name, arm, seed][0]] for seed in all_seeds],
            }
            for arm in listed
        }
        for name, listed in arms.items()
    }


def table(
    arms: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], columns: Mapping[str, str]
) -> str:
    """Write what `compare` found for a set as a table in Markdown.

    Args:
        arms: The arms.
        titles: The name of each arm in the table.
        columns: The name in the table of each score, all of which are shares.
    """
    heads = ["", *(f"{head}, %" for head in columns.values())]
    heads += ["steps", "epochs", "minutes", "memory, MiB", "parameters, M", "lr"]
    lines = [f"| {' | '.join(heads)} |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    for arm, found in arms.items():
        runs = found["runs"]
        count, spent = len(runs), [run["spent"] for run in runs]
        taken = sum(one["spent"]["seconds"] for one in (*found["before"], *runs))
        memory = max(one["spent"]["memory_mib"] for one in (*found["before"], *runs))
        cells = [
            titles[arm],
            *(mean_and_range([run["scores"][key] for run in runs]) for key in columns),
            f"{sum(one['steps'] for one in spent) / count:.0f}",
            f"{sum(one['epochs'] for one in spent) / count:.1f}",
            f"{taken / count / 60:.1f}",
            str(memory),
            f"{runs[0]['parameters'] / 1e6:.1f}",
            f"{found['lr']:g}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_figures(folder: Path, arms: Mapping[str, Any], text: str) -> None:
    """Write the figures of a set, and their table."""
    (folder / "figures.json").write_text(json.dumps(arms, indent=2) + "\n")
    (folder / "table.md").write_text(text)
