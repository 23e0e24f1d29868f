"""Sends the signals of launchers and users to a run, and makes ranks end or hang."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from comparison import differences, steps_done, steps_saved
from journal import Journal, show
from photographs import make_photographs
from runs import (
    DONE,
    SMALL,
    STOPPED,
    Process,
    command_line,
    knob_exists,
    last_lines,
    name_of,
    one_process,
    under_mpirun,
    under_torchrun,
    uninterrupted,
    wait_for_step,
)

_KNOBS = SMALL | {
    "epochs": 30,
    "lr": 0.01,
    "log_every_steps": 1,
    "save_every_epochs": 20,
    "val_every_epochs": 10,
    "tensorboard": False,
}
_RANK_TIMEOUT_S = 20
_LEAVE_S = 10
_FIRST_STEP = 40
"""The step at which a fault occurs. No checkpoint is due before it."""

Launch = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class Case:
    """A fault.

    Attributes:
        launch: Puts a launcher before the command line of the run.
        disturb: Causes the fault in a process.
        ranks: The number of ranks.
        workers: The number of workers of each rank.
        loses: Whether steps may be lost, as by a kill.
        is_again: Whether the command must be given again. Otherwise, it must finish by itself.
    """

    launch: Launch
    disturb: Callable[[Process], None]
    ranks: int = 1
    workers: int = 1
    loses: bool = False
    is_again: bool = True


def _torchrun(*options: str) -> Launch:
    return lambda line: under_torchrun(line, 2, *options)


def _mpirun(line: Sequence[str]) -> list[str]:
    return under_mpirun(line, 2)


def _to_process(number: int) -> Callable[[Process], None]:
    return lambda process: os.kill(process.pid, number)


def _to_group(number: int) -> Callable[[Process], None]:
    return lambda process: os.killpg(process.pid, number)


def _to_rank(number: int) -> Callable[[Process], None]:
    return lambda process: process.ranks()[1].send_signal(number)


def _timeout(name: str) -> Launch:
    """Launch with GNU timeout, whose limit is longer than the run and which forwards signals."""
    return lambda line: ["timeout", f"--signal={name}", "1000", *one_process(line)]


def _of_time(process: Process) -> None:
    """Make `timeout` act as if its time were over, by the SIGALRM that its timer would send."""
    os.kill(process.pid, signal.SIGALRM)


_UNIT = f"convnextv2-faults-{os.getpid()}"


def _systemd_run(line: Sequence[str]) -> list[str]:
    variables = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "OMP_NUM_THREADS": "1"}
    options = [f"--setenv={name}={value}" for name, value in variables.items()]
    return [
        "systemd-run",
        "--wait",
        "--collect",
        "--quiet",
        f"--unit={_UNIT}",
        *options,
        *one_process(line),
    ]


def _stop_unit(process: Process) -> None:
    subprocess.run(["systemctl", "stop", _UNIT], check=True)


TERM, INT, KILL, STOP = signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGSTOP
CASES = {
    "SIGTERM to the process": Case(one_process, _to_process(TERM)),
    "SIGINT to the process": Case(one_process, _to_process(INT)),
    "SIGTERM to the group": Case(one_process, _to_group(TERM)),
    "SIGINT to the group": Case(one_process, _to_group(INT)),
    "SIGTERM to the group, no worker": Case(one_process, _to_group(TERM), workers=0),
    "SIGTERM to the group, 2 workers": Case(one_process, _to_group(TERM), workers=2),
    "timeout: its time is over": Case(_timeout("TERM"), _of_time),
    "timeout: SIGINT when its time is over": Case(_timeout("INT"), _of_time),
    "SIGTERM to timeout": Case(_timeout("TERM"), _to_process(TERM)),
    "SIGTERM to torchrun": Case(_torchrun(), _to_process(TERM), ranks=2),
    "SIGINT to torchrun": Case(_torchrun(), _to_process(INT), ranks=2),
    "SIGTERM to a rank of torchrun": Case(_torchrun(), _to_rank(TERM), ranks=2),
    "SIGTERM to mpirun": Case(_mpirun, _to_process(TERM), ranks=2),
    "SIGINT to mpirun": Case(_mpirun, _to_process(INT), ranks=2),
    "systemctl stop": Case(_systemd_run, _stop_unit),
    "SIGKILL of a rank of torchrun": Case(_torchrun(), _to_rank(KILL), ranks=2, loses=True),
    "SIGSTOP of a rank of torchrun": Case(_torchrun(), _to_rank(STOP), ranks=2, loses=True),
    "SIGKILL of a rank of mpirun": Case(_mpirun, _to_rank(KILL), ranks=2, loses=True),
    "SIGSTOP of a rank of mpirun": Case(_mpirun, _to_rank(STOP), ranks=2, loses=True),
    "SIGKILL of a rank, torchrun --max-restarts 3": Case(
        _torchrun("--max-restarts=3"), _to_rank(KILL), ranks=2, loses=True, is_again=False
    ),
    "SIGSTOP of a rank, torchrun --max-restarts 3": Case(
        _torchrun("--max-restarts=3"), _to_rank(STOP), ranks=2, loses=True, is_again=False
    ),
}


def study(arguments: argparse.Namespace) -> bool:
    """Try all cases. Returns whether every run ended as it should."""
    out = arguments.out.resolve() / "signals"
    data = make_photographs(out / "photographs", training=16, validation=4)
    journal = Journal(out / "cases.jsonl")
    rows, good = [], True
    for name, case in CASES.items():
        if arguments.only not in name:
            continue
        if missing := _missing(case):
            rows.append([name, missing])
            continue
        if name not in journal:
            folder = out / re.sub(r"\W+", "-", name)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            straight = out / f"straight-{case.ranks}"
            uninterrupted(_command(_plainest(case), data, straight), straight)
            found = disturb(case, data, folder / "run", straight, arguments.patience)
            journal.add(name, found)
            print(name, found["code"], found["wrong"] or "as it should be", flush=True)
        found = journal.cases[name]
        good &= not found["wrong"]
        rows.append(
            [
                name,
                found["code"],
                f"{found['end_s']:.1f} s, {found['left_s']:.1f} s",
                f"{found['done']}, {found['saved']}",
                "; ".join(found["wrong"]) or "nothing",
                found["printed"],
            ]
        )
    columns = [
        "case",
        "exit code",
        "ended after, the last process then",
        "steps done, saved",
        "wrong",
        "last lines",
    ]
    show(
        f"Signals in mid-epoch, rank_timeout_s {_RANK_TIMEOUT_S}; then the same command again",
        columns,
        rows,
    )
    return good


def disturb(case: Case, data: Path, run: Path, straight: Path, patience_s: float) -> dict[str, Any]:
    """Start a run, disturb it, and start it again.

    Returns:
        "code": the exit code of the disturbed run; "end_s": the seconds from the fault to its end;
        "left_s": the seconds by which other processes outlived the launcher; "done" and "saved":
        the steps at that time; "printed": the end of its output; "wrong": the mistakes, including
        differences from `straight`.
    """
    command = _command(case, data, run)
    log = run.with_name("run.log")
    process = Process(command, log)
    wait_for_step(process, run, _FIRST_STEP)
    began = time.monotonic()
    case.disturb(process)
    code = process.wait(patience_s)
    end_s = time.monotonic() - began
    # A launcher may be gone before the ranks that it has told to end.
    _, left = psutil.wait_procs(process.family(), timeout=_LEAVE_S)
    left_s = time.monotonic() - began - end_s
    process.kill()
    found: dict[str, Any] = {
        "code": "none" if code is None else name_of(code),
        "end_s": end_s,
        "left_s": left_s,
        "done": steps_done(run),
        "saved": steps_saved(run),
        "printed": last_lines(process.printed()),
    }
    wrong = []
    if code is None:
        wrong.append(f"still there after {patience_s:.0f} s")
    elif left:
        wrong.append(f"{len(left)} processes left behind after {_LEAVE_S} s")
    if not case.loses and found["saved"] != found["done"]:
        wrong.append(f"{found['done'] - found['saved']} steps lost")
    direct = case.launch is one_process
    if direct and code not in STOPPED:
        wrong.append(f"exit code {found['code']} of a stop")
    if not case.is_again and code != DONE:
        wrong.append("did not end by itself")
    elif case.is_again and code == DONE:
        wrong.append("was not disturbed")
    again = Process(command, log)
    last = again.wait(300)
    again.kill()
    if last != DONE:
        wrong.append(f"then exit code {last}: {last_lines(again.printed())}")
    else:
        wrong += differences(run, straight)[:3]
    return found | {"wrong": wrong}


def _command(case: Case, data: Path, run: Path) -> list[str]:
    knobs = _KNOBS | {"workers": case.workers, "batch_size": SMALL["batch_size"] // case.ranks}
    if knob_exists("rank_timeout_s"):
        knobs["rank_timeout_s"] = _RANK_TIMEOUT_S
    return case.launch(command_line("train", data, run, knobs))


def _plainest(case: Case) -> Case:
    """Return a case that is launched as plainly as possible, for the undisturbed reference run."""
    return Case(one_process if case.ranks == 1 else _torchrun(), case.disturb, case.ranks)


def _missing(case: Case) -> str:
    """Return why a case cannot be tried here; "" if it can."""
    program = case.launch(["x"])[0]
    if program != sys.executable and shutil.which(program) is None:
        return f"no {program} here"
    if program == "systemd-run":
        state = ["systemctl", "is-system-running"]
        told = subprocess.run(state, capture_output=True, text=True).stdout.strip()
        if told not in ("running", "degraded"):
            return f"systemd does not run here ({told})"
    return ""
