"""Kills a longer run at random moments, and starts it again with the same command.

The victim is drawn at random, too. Either all processes are killed at once, as when the operating
system goes down, or one process alone, so that the others are left behind for a moment. The latter
is the only process of the run, or one rank.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comparison import differences, records, steps_done, steps_saved
from journal import Journal, median, show
from photographs import make_photographs
from runs import (
    DONE,
    SMALL,
    Process,
    command_line,
    last_lines,
    name_of,
    one_process,
    under_torchrun,
    uninterrupted,
)

CONFIGURATIONS = {
    "one process, workers 0": (1, 0),
    "one process, workers 1": (1, 1),
    "one process, workers 2": (1, 2),
    "2 ranks, workers 0": (2, 0),
}
"""The number of ranks, and of workers for each rank."""
STEPS = 30
"""The number of steps in an epoch."""
_MAX_FAILURES = 5
_SAVE_EVERY_EPOCHS = 5


def study(arguments: argparse.Namespace) -> bool:
    """Try all configurations. Returns whether every run ended as it should."""
    out = arguments.out.resolve() / "moments"
    data = make_photographs(out / "photographs", training=4 * STEPS // 3, validation=4)
    journal = Journal(out / "runs.jsonl")
    rows, good = [], True
    for name, (ranks, workers) in CONFIGURATIONS.items():
        if arguments.only not in name:
            continue
        folder = out / re.sub(r"\W+", "-", name)
        folder.mkdir(exist_ok=True)
        knobs = SMALL | {
            "epochs": arguments.epochs,
            "workers": workers,
            "batch_size": SMALL["batch_size"] // ranks,
            "log_every_steps": 1,
            "val_every_epochs": 5,
            "save_every_epochs": _SAVE_EVERY_EPOCHS,
            "lr": 0.01,
            "ema": True,
        }

        def command(run: Path, knobs: Any = knobs, ranks: int = ranks) -> list[str]:
            line = command_line("train", data, run, knobs)
            return one_process(line) if ranks == 1 else under_torchrun(line, ranks)

        straight = folder / "straight"
        uninterrupted(command(straight), straight)
        rng = random.Random(f"{arguments.seed} {name}")
        found: list[dict[str, Any]] = []
        while (killed := sum(len(run["kills"]) for run in found)) < arguments.kills:
            run = folder / f"run-{len(found)}"
            key = f"{name} {len(found)}"
            state = rng.getrandbits(64)
            if key not in journal:
                shutil.rmtree(run, ignore_errors=True)
                left = arguments.kills - killed
                draws = random.Random(state)
                told = endure(command(run), run, draws, left, arguments.within)
                found_differences = [] if told["failed"] else differences(run, straight)
                journal.add(key, told | {"differences": found_differences})
            found.append(journal.cases[key])
            if found[-1]["failed"]:
                break
        rows.append(_row(name, found, straight))
        good &= not any(run["failed"] or run["differences"] for run in found)
    columns = ["configuration", "kills", "runs", "equal", "steps lost: median, most"]
    show(
        f"Killed at random moments, with a save every {_SAVE_EVERY_EPOCHS * STEPS} steps",
        [*columns, "training lost: median, most", "restart", "exit codes", "wrong"],
        rows,
    )
    return good


def endure(
    command: Sequence[str], run: Path, rng: random.Random, kills: int, within_s: float
) -> dict[str, Any]:
    """Run a command again and again, and kill it at random moments, until it ends by itself.

    Args:
        command: The program and its arguments.
        run: The run folder.
        rng: Draws the moments.
        kills: The largest number of kills.
        within_s: The longest time from a start to a kill, in seconds.

    Returns:
        "kills": for each kill the moment, the victim, and the steps that were done and saved;
        "codes": the exit codes of all other ends; "restarts_s": the seconds to the first step of
        each start; "failed": the output if the command failed too often in a row, else "".
    """
    found: dict[str, Any] = {"kills": [], "codes": [], "restarts_s": [], "failed": ""}
    log = run.with_name(run.name + ".log")
    failures = 0
    while failures < _MAX_FAILURES:
        before = steps_saved(run)
        process = Process(command, log)
        # Always drawn, so that the moments do not depend on how fast the machine is.
        delay_s, what = rng.uniform(0, within_s), rng.choice(("all", "one"))
        delay = delay_s if len(found["kills"]) < kills else None
        code, first_s = _wait(process, run, before, delay)
        if first_s is not None:
            found["restarts_s"].append(round(first_s, 2))
        if code is None:
            found["kills"].append({"delay_s": round(delay_s, 2)} | _kill(process, run, what))
            failures = 0
            continue
        process.kill()  # what a launcher may have left
        found["codes"].append(name_of(code))
        if code == DONE:
            return found
        failures += 1
        time.sleep(1)  # a process of the killed run may hold the folder for a moment
    return found | {"failed": last_lines(process.printed())}


def _wait(
    process: Process, run: Path, before: int, seconds: float | None
) -> tuple[int | None, float | None]:
    """Return the exit code (None if the time is up), and the seconds to the first new step."""
    first_s = None
    while True:
        if (code := process.wait(0.05)) is not None:
            return code, first_s
        passed = time.monotonic() - process.began
        if first_s is None and _has_new_step(run, before, process):
            first_s = passed
        if seconds is not None and passed >= seconds:
            return None, first_s


def _has_new_step(run: Path, before: int, process: Process) -> bool:
    """Say whether the log has a step since the start, beyond the checkpoint that was continued."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return False
    since = time.time() - (time.monotonic() - process.began)
    return path.stat().st_mtime > since and steps_done(run) > before


def _kill(process: Process, run: Path, what: str) -> dict[str, Any]:
    """Kill the victim. Return it, the steps done and saved, and how long the end took."""
    began = time.monotonic()
    if what == "one" and process.kill_one():
        if process.wait(60) is None:
            what = "one, then all"
            process.kill()
    else:
        process.kill()
    left_s = round(time.monotonic() - began, 2)
    return {"what": what, "done": steps_done(run), "saved": steps_saved(run), "left_s": left_s}


def _row(name: str, found: list[dict[str, Any]], straight: Path) -> list[Any]:
    kills = [kill for run in found for kill in run["kills"]]
    lost = [float(max(0, kill["done"] - kill["saved"])) for kill in kills]
    epochs = [record for record in records(straight) if record["kind"] == "epoch"]
    step_s = median([record["train_s"] for record in epochs]) / STEPS
    codes = sorted({code for run in found for code in run["codes"]})
    equal = sum(not run["failed"] and not run["differences"] for run in found)
    wrong = [wrong for run in found if (wrong := run["failed"] or run["differences"][:2])]
    return [
        name,
        len(kills),
        len(found),
        equal,
        f"{median(lost):.0f}, {max(lost, default=0):.0f}",
        f"{median(lost) * step_s:.2f} s, {max(lost, default=0) * step_s:.2f} s",
        f"{median([s for run in found for s in run['restarts_s']]):.1f} s",
        ", ".join(codes),
        "; ".join(map(str, wrong)),
    ]
