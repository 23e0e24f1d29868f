"""Run the first steps of a recipe in a process of its own, and measure them."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from convnextv2.ending import end_with_stdin
from convnextv2.errors import ConvNeXtV2Error
from convnextv2.machine import peak_memory

_LONGEST_START_S = 900.0
_PROGRAM = """
from convnextv2.verbs.first_steps import end_with_plan
end_with_plan()
from convnextv2.__main__ import main
raise SystemExit(main())
"""


@dataclass(frozen=True)
class FirstSteps:
    """The results of the first steps of a run.

    Attributes:
        records: The training records, one for each step.
        memory_bytes: The peak memory of the run's processes.
        checkpoint_bytes: The size of the checkpoint.
    """

    records: list[dict[str, Any]]
    memory_bytes: int
    checkpoint_bytes: int


def run_first_steps(
    verb: str,
    config: str | Path | None,
    knobs: Mapping[str, Any],
    out: Path,
    *,
    seconds: float,
    prefetched: int,
) -> FirstSteps:
    """Start a run, and stop it after some steps.

    The run never outlives this process. If this process is killed, the run removes the folder that
    `out` lies in.

    Args:
        verb: train or pretrain.
        config: The YAML recipe of the run.
        knobs: The knobs that are given in addition.
        out: The run folder.
        seconds: How long to measure after the first step. It takes up to four times as long if
            there are no more than 2 + `prefetched` steps by then.
        prefetched: Batches that the workers had ready at the end of the first step.

    Raises:
        ConvNeXtV2Error: The run ended before its second step.
    """
    errors = out.with_suffix(".errors")  # a file, because a pipe may become full
    command = _command(verb, config, knobs, out)
    with (
        errors.open("w") as file,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=file
        ) as process,
    ):
        try:
            peak = _watch(process, out, seconds, prefetched)
        except BaseException:  # such as a signal; leaving the block waits for the whole run
            process.kill()
            raise
    records = _records(out)
    if len(records) < 2:
        told = errors.read_text(errors="replace").strip()
        _, mark, message = f"\n{told}".rpartition("\nconvnextv2: error: ")
        if mark and process.returncode == ConvNeXtV2Error.exit_code:
            raise ConvNeXtV2Error(message)  # a mistake of the user, such as a missing folder
        last = message.split("\n")[-1]
        raise ConvNeXtV2Error(
            f"the probe of {verb} took no step that could be measured: "
            f"{last or 'it ended before its second step'}"
        )
    checkpoint = sum(path.stat().st_size for path in (out / "checkpoints").rglob("*.*"))
    return FirstSteps(records, peak, checkpoint)


def end_with_plan() -> None:
    """Make this process end when the process that called `run_first_steps` ends."""
    folder = sys.argv.pop(1)  # the rest is the command line of the run
    end_with_stdin(partial(shutil.rmtree, folder, ignore_errors=True))


def _watch(process: subprocess.Popen[bytes], out: Path, seconds: float, prefetched: int) -> int:
    """Stop a run after some steps (see `run_first_steps`), and return its peak memory in bytes."""
    started = first = time.monotonic()
    peak = 0
    while process.poll() is None:
        time.sleep(0.2)
        peak = max(peak, peak_memory(process.pid))
        done = len(_records(out))
        now = time.monotonic()
        if not done:
            first = now
        wanted_s = seconds if done > 2 + prefetched else 4 * seconds
        if (done > 2 and now - first > wanted_s) or now - started > _LONGEST_START_S:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_LONGEST_START_S)
            except subprocess.TimeoutExpired:
                process.kill()
    return peak


def _command(
    verb: str, config: str | Path | None, knobs: Mapping[str, Any], out: Path
) -> list[str]:
    """Return the command of a run that records every step."""
    settings = {
        **knobs,
        "out": out,
        "log_every_steps": 1,
        "tensorboard": False,
        "loggers": None,
        "resume": False,
        "overwrite": False,
    }
    return [
        *(sys.executable, "-c", _PROGRAM, str(out.parent), verb),
        *(("--config", str(config)) if config else ()),
        *(f"--{name}={_text(value)}" for name, value in settings.items()),
    ]


def _text(value: Any) -> str:
    """Format the value of a knob for the command line."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(str, value))}]"
    return os.fspath(value) if isinstance(value, Path) else str(value)


def _records(out: Path) -> list[dict[str, Any]]:
    """Read the training records of a run that may still be writing them."""
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        record
        for line in lines
        if line.endswith("}") and (record := json.loads(line))["kind"] == "train"
    ]


@dataclass(frozen=True)
class Throughput:
    """How fast a run trains.

    Attributes:
        measured: The number of steps that were measured.
        images_per_second: Images per second.
        data_wait: The share of the time spent waiting for data.
        seconds_per_step: Seconds per step.
    """

    measured: int
    images_per_second: float
    data_wait: float
    seconds_per_step: float


def measure_throughput(
    records: list[dict[str, Any]],
    *,
    batch_size: int,
    accumulate: int,
    batches_per_epoch: int,
    prefetched: int,
) -> Throughput:
    """Compute the throughput from the record of each step.

    It is the number of all images over the whole time, because steps come in bursts if the data
    are the bottleneck. The first step does not count.

    Args:
        records: The training records of the run, one for each step.
        batch_size: Images in a batch.
        accumulate: Batches in a step.
        batches_per_epoch: Batches in an epoch.
        prefetched: Batches that the workers had ready at the end of the first step. The steps that
            use them do not count either, unless there are few others.
    """
    first = max(1, min(1 + math.ceil(prefetched / accumulate), len(records) // 2))
    steps_per_epoch = math.ceil(batches_per_epoch / accumulate)
    images, seconds, waited = 0, 0.0, 0.0
    for record in records[first:]:
        first_batch = (record["step"] - 1) % steps_per_epoch * accumulate  # in its epoch
        images_of_step = min(accumulate, batches_per_epoch - first_batch) * batch_size
        step_s = images_of_step / max(record["images_per_second"], 0.005)  # rounded to two places
        images += images_of_step
        seconds += step_s
        waited += record["data_wait"] * step_s
    measured = len(records) - first
    return Throughput(measured, images / seconds, waited / seconds, seconds / measured)
