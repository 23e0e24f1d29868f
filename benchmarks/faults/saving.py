"""The cost of saving while training goes on: pace, the longest stall of a step, and memory.

Three kinds of rounds take turns: without a save, with saves by a thread, and with saves in the
foreground. Each round is a process of its own, with the same steps of one run. A hook of the
optimizer measures the interval from the end of one step to the end of the next. A stall is the
difference between an interval with a save and the median interval. It has the noise of all
intervals, so the time that the loop spends in the saver is given beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from journal import Journal, median, show
from photographs import make_photographs
from runs import DONE, command_line, knob_exists, last_lines, run_forked
from torch.optim.optimizer import register_optimizer_step_post_hook

from convnextv2.machine import peak_memory
from convnextv2.training.saver import Saver

MODES = ("none", "thread", "foreground")


def study(arguments: argparse.Namespace) -> bool:
    """Run all rounds. Always return True, since no round can have a wrong result."""
    torch.set_num_threads(arguments.threads)
    out = arguments.out.resolve() / "saving"
    journal = Journal(out / f"{arguments.model}-{arguments.batch}.jsonl")
    step_s = _step_s(arguments, out, journal)
    steps = max(4, math.ceil(60 * arguments.minutes / step_s))
    for pair in range(arguments.pairs):
        for mode in MODES:
            if (key := f"{mode} {pair}") not in journal:
                journal.add(key, round_of(mode, steps, arguments, out))
    rounds = {
        mode: [journal.cases[f"{mode} {pair}"] for pair in range(arguments.pairs)] for mode in MODES
    }
    show(
        f"{arguments.model}, 224 px, batch {arguments.batch}, {arguments.threads} threads: "
        f"{steps} steps of {step_s:.2f} s in a round, a save every {arguments.every:g} minutes",
        [
            *("saves", "saves in a round", "cost: each pair", "stall of a save: median, most"),
            *("99 % of steps are at most so late", "in the saver: median, most", "memory"),
        ],
        [_row(mode, rounds[mode], rounds["none"]) for mode in MODES],
    )
    return True


def _step_s(arguments: argparse.Namespace, out: Path, journal: Journal) -> float:
    """Measure the seconds of a step in a short round, which also compiles and reads everything."""
    if "step_s" not in journal:
        found = round_of("none", 8, arguments, out)
        journal.add("step_s", {"step_s": median(found["intervals_s"])})
    return float(journal.cases["step_s"]["step_s"])


def round_of(mode: str, steps: int, arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Train in a process of its own.

    Args:
        mode: One of MODES.
        steps: The steps of the run, which is one epoch.
        arguments: Model, batch and threads.
        out: The folder for runs and images.

    Returns:
        "intervals_s": the seconds from step to step; "saved": the steps after which a checkpoint
        was saved; "calls_s": the seconds for which training waited for the saver; "peak_mib": the
        peak memory of the process.
    """
    images = math.ceil(steps * arguments.batch / 3)
    data = make_photographs(
        out / f"photographs-{images}", training=images, validation=1, size=(256, 256)
    )
    run = out / f"run-{mode}"
    shutil.rmtree(run, ignore_errors=True)
    knobs: dict[str, Any] = {
        "model": arguments.model,
        "image_size": 224,
        "batch_size": arguments.batch,
        "workers": 0,
        "device": "cpu",
        "epochs": 1,
        "ema": True,
        "val_while_train": False,
        "log_every_steps": 10,
        "keep_policy": "all",
    }
    if not knob_exists("save_every_minutes"):
        raise SystemExit("This version saves by epochs only: there is nothing to measure.")
    knobs["async_save"] = mode == "thread"  # also the one at the end
    if mode != "none":
        knobs["save_every_minutes"] = arguments.every
    told, log = out / "round.json", out / f"run-{mode}.log"
    watch = _Watch(run, told)
    code = run_forked(command_line("train", data, run, knobs), log, watch.install, watch.tell)
    if code != DONE:
        raise RuntimeError(f"the round ended with {code}: {last_lines(log.read_text())}")
    found: dict[str, Any] = json.loads(told.read_text())
    shutil.rmtree(run)
    return found


class _Watch:
    """Records the end of each step, the memory at that time, and the steps of checkpoints."""

    def __init__(self, run: Path, told: Path) -> None:
        self._run, self._told = run, told
        self._ends: list[float] = []
        self._calls: list[float] = []
        self._peak = 0

    def install(self) -> None:
        register_optimizer_step_post_hook(self._note)
        save = Saver.save

        def timed(*arguments: Any, **options: Any) -> None:
            began = time.perf_counter()
            save(*arguments, **options)
            self._calls.append(time.perf_counter() - began)

        Saver.save = timed  # type: ignore[method-assign]

    def _note(self, *_: object) -> None:
        self._ends.append(time.perf_counter())
        self._peak = peak_memory(os.getpid())

    def tell(self) -> None:
        pairs = zip(self._ends, self._ends[1:], strict=False)
        names = (path.name for path in (self._run / "checkpoints").iterdir())
        saved = sorted(int(re.sub(r".*step-", "", name)) for name in names)
        found = {
            "intervals_s": [after - before for before, after in pairs],
            "saved": [step for step in saved if step < len(self._ends)],
            "calls_s": self._calls[:-1],  # the last one is that at the end
            "peak_mib": self._peak >> 20,
        }
        self._told.write_text(json.dumps(found))


def _row(mode: str, rounds: list[dict[str, Any]], without: list[dict[str, Any]]) -> list[str]:
    costs, stalls, others, calls = [], [], [], []
    for ours, theirs in zip(rounds, without, strict=True):
        costs.append(100 * (sum(ours["intervals_s"]) / sum(theirs["intervals_s"]) - 1))
        usual = median(ours["intervals_s"])
        late = sorted(ours["intervals_s"])[int(0.99 * len(ours["intervals_s"]))]
        others.append(1000 * (late - usual))
        calls += [1000 * seconds for seconds in ours["calls_s"]]
        # After step n (from 1) begins interval n - 1 (from 0).
        stalls += [1000 * (ours["intervals_s"][step - 1] - usual) for step in ours["saved"]]
    peaks = sorted(found["peak_mib"] for found in rounds)
    return [
        mode,
        str(len(rounds[0]["saved"])),
        ", ".join(f"{cost:+.1f} %" for cost in costs) if mode != "none" else "",
        _spread(stalls),
        f"{median(others):.0f} ms",
        _spread(calls),
        f"{peaks[0]} to {peaks[-1]} MiB",
    ]


def _spread(values: list[float]) -> str:
    return f"{median(values):.0f} ms, {max(values):.0f} ms" if values else ""
