"""Disturbs a run by a fault a minute for half an hour, with one fixed command in a loop.

The run has two ranks under torchrun, each with a worker. Its folder is a small file system of its
own where this process may mount one, so that it can be filled up.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from comparison import differences, left_over, records, steps_done, steps_saved
from journal import show
from photographs import make_photographs
from runs import (
    DONE,
    MISTAKE,
    SMALL,
    Process,
    command_line,
    knob_exists,
    last_lines,
    name_of,
    under_torchrun,
    uninterrupted,
)

_KNOBS = SMALL | {
    "batch_size": 2,
    "workers": 1,
    "lr": 0.01,
    "ema": True,
    "log_every_steps": 1,
    "save_every_epochs": 5,
    "val_every_epochs": 10,
    "keep_checkpoints": 3,
}
_RANK_TIMEOUT_S = 15
_DISK_MIB = 64
_FULL_S = 20
"""The time for which the disk stays full, in seconds."""
_MAX_FAILURES = 10
_PATIENCE_S = 150
_LIVELY_S = 1
_MEASURED_EPOCHS = 20


def study(arguments: argparse.Namespace) -> bool:
    """Disturb a run. Returns whether it ended as one that nobody disturbed."""
    out = arguments.out.resolve() / "soak"
    data = make_photographs(out / "photographs", training=40, validation=4)
    epochs = _epochs(data, out, arguments.minutes)
    straight = out / f"straight-{epochs}"
    uninterrupted(_command(data, straight, epochs), straight)
    disk = out / "disk"
    with suppress(FileNotFoundError):
        subprocess.run(["umount", str(disk)], capture_output=True)
        shutil.rmtree(disk)
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs", str(disk)]
    is_mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        soak = Soak(
            _command(data, disk / "run", epochs), disk / "run", out, random.Random(arguments.seed)
        )
        faults = [*FAULTS] if is_mounted else [name for name in FAULTS if name != "full disk"]
        if not is_mounted:
            print("No file system can be mounted here: the disk never fills up.")
        wrong = soak.last(60 * arguments.minutes, arguments.every, faults)
        wrong += differences(disk / "run", straight)
        shutil.copytree(disk / "run", out / "end", dirs_exist_ok=True)
    finally:
        if is_mounted:
            subprocess.run(["umount", str(disk)])
    _report(soak, wrong, left_over(out / "end"))
    return not wrong


class Soak:
    """One run, and what is done to it.

    Args:
        command: Starts it and continues it.
        run: Its folder.
        out: The folder for its log.
        rng: Draws the random details of the faults.
    """

    def __init__(self, command: list[str], run: Path, out: Path, rng: random.Random) -> None:
        self._command, self.run, self.rng = command, run, rng
        self._log = out / "soak.log"
        self._log.unlink(missing_ok=True)
        self._journal = out / "soak.jsonl"
        self._journal.unlink(missing_ok=True)
        self.starts = 0
        self._disturbed = 0.0
        self.ends: list[dict[str, Any]] = []
        self.faults: list[dict[str, Any]] = []
        self.began = time.monotonic()

    def last(self, seconds: float, every_s: float, faults: list[str]) -> list[str]:
        """Keep the run going until it ends by itself, with faults until the time is up.

        Returns:
            The mistakes: the faults after which it hung, or that it failed too often in a row.
        """
        process = self._start()
        next_fault = every_s
        wrong: list[str] = []
        number, failures = 0, 0
        since = "the start"
        while True:
            code = process.wait(0.2)
            hangs = code is None and self._hangs(process)
            if code is not None or hangs:
                process.kill()
                end = "hung" if code is None else name_of(code)
                self._note(self.ends, {"code": end, "after": since, **self._where()})
                self.ends[-1]["printed"] = last_lines(process.printed())
                if code == DONE:
                    return wrong
                wrong += [f"hung after {since}"] * hangs
                failures = failures + 1 if self._is_stuck() else 0
                if failures >= _MAX_FAILURES:
                    return [*wrong, f"failed {failures} times in a row: {self.ends[-1]['printed']}"]
                time.sleep(1)
                process = self._start()
            process.family()
            passed = time.monotonic() - self.began
            if next_fault <= passed < seconds and self._trains(process):
                name = faults[number % len(faults)]
                number += 1
                next_fault = passed + every_s
                since = name
                self._note(self.faults, {"fault": name, **self._where()})
                self._disturbed = time.time()
                with suppress(psutil.Error, IndexError, FileNotFoundError):
                    self.faults[-1]["what"] = FAULTS[name](self, process)

    def _start(self) -> Process:
        self.starts += 1
        self._before = steps_saved(self.run)
        return Process(self._command, self._log)

    def _hangs(self, process: Process) -> bool:
        """Say whether it has started, logged and ended nothing for too long."""
        path = self.run / "metrics.jsonl"
        written = path.stat().st_mtime if path.exists() else 0.0
        started = time.time() - (time.monotonic() - process.began)
        return time.time() - max(written, started, self._disturbed) > _PATIENCE_S

    def _is_stuck(self) -> bool:
        """Say whether the last start has saved nothing new."""
        return steps_saved(self.run) <= self._before

    def _trains(self, process: Process) -> bool:
        """Say whether it logs steps.

        A fault thus occurs in the middle of training, and only after the previous one is over.
        """
        path = self.run / "metrics.jsonl"
        if not path.exists() or time.time() - path.stat().st_mtime > _LIVELY_S:
            return False
        started = time.time() - (time.monotonic() - process.began)
        is_new = path.stat().st_mtime > started + _LIVELY_S
        return (
            is_new and steps_done(self.run) > steps_saved(self.run) and len(process.workers()) >= 2
        )

    def _where(self) -> dict[str, Any]:
        seconds = round(time.monotonic() - self.began, 1)
        return {"at_s": seconds, "done": steps_done(self.run), "saved": steps_saved(self.run)}

    def _note(self, where: list[dict[str, Any]], what: dict[str, Any]) -> None:
        where.append(what)
        with open(self._journal, "a") as file:
            file.write(json.dumps(what) + "\n")


def _kill(soak: Soak, process: Process) -> str:
    process.kill()
    return "everything"


def _kill_rank(soak: Soak, process: Process) -> str:
    process.kill_one()
    return "rank 1"


def _stop_rank(soak: Soak, process: Process) -> str:
    rank = soak.rng.randrange(2)
    process.ranks()[rank].send_signal(signal.SIGSTOP)
    return f"rank {rank}"


def _kill_worker(soak: Soak, process: Process) -> str:
    worker = soak.rng.choice(process.workers())
    worker.kill()
    return f"process {worker.pid}"


def _fill_disk(soak: Soak, process: Process) -> str:
    ballast = soak.run.parent / "ballast"
    try:
        with suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        process.wait(_FULL_S)
    finally:
        ballast.unlink()
    return f"{_FULL_S} s at most"


def _flip_bit(soak: Soak, process: Process) -> str:
    """Kill the run, and damage a file of its newest checkpoint."""
    process.kill()
    step = f"step-{steps_saved(soak.run):08d}"
    (newest,) = (soak.run / "checkpoints").glob(f"*{step}")
    path = soak.rng.choice(sorted(newest.iterdir()))
    content = bytearray(path.read_bytes())
    place = soak.rng.randrange(len(content))
    content[place] ^= 1 << soak.rng.randrange(8)
    path.write_bytes(content)
    return f"{newest.name}/{path.name}, byte {place}"


FAULTS: dict[str, Callable[[Soak, Process], str]] = {
    "everything killed": _kill,
    "full disk": _fill_disk,
    "flipped bit": _flip_bit,
    "stopped rank": _stop_rank,
    "killed worker": _kill_worker,
    "killed rank": _kill_rank,
}


def _command(data: Path, run: Path, epochs: int) -> list[str]:
    knobs = _KNOBS | {"epochs": epochs}
    if knob_exists("rank_timeout_s"):
        knobs["rank_timeout_s"] = _RANK_TIMEOUT_S
    return under_torchrun(command_line("train", data, run, knobs), 2)


def _epochs(data: Path, out: Path, minutes: float) -> int:
    """Return how many epochs take half of the time if nothing happens."""
    told = out / f"epochs-{minutes:g}"
    if not told.exists():
        run = out / "measured"
        uninterrupted(_command(data, run, _MEASURED_EPOCHS), run)
        epochs = [record for record in records(run) if record["kind"] == "epoch"]
        epoch_s = sum(record["total_s"] for record in epochs) / len(epochs)
        told.write_text(str(max(_MEASURED_EPOCHS, int(30 * minutes / epoch_s))))
    return int(told.read_text())


def _report(soak: Soak, wrong: list[str], left: list[str]) -> None:
    rows = []
    for name, count in Counter(fault["fault"] for fault in soak.faults).items():
        ends = [end for end in soak.ends if end["after"] == name]
        lost = [
            max(0, fault["done"] - fault["saved"])
            for fault in soak.faults
            if fault["fault"] == name
        ]
        codes = Counter(end["code"] for end in ends)
        refused = next((end["printed"] for end in ends if end["code"] == str(MISTAKE)), "")
        text = ", ".join(f"{number} x {code}" for code, number in codes.items())
        rows.append([name, count, text, max(lost), refused])
    minutes = (time.monotonic() - soak.began) / 60
    show(
        f"{len(soak.faults)} faults in {minutes:.1f} minutes, {soak.starts} starts of one command",
        ["fault", "times", "ends", "steps since the last save, most", "if it was refused"],
        rows,
    )
    print("The end:", "; ".join(wrong) or "bit for bit that of the run that nobody disturbed.")
    if left:
        print("Left over:", ", ".join(left))
