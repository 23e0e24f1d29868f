"""Commands of this package, and the processes that they start."""

from __future__ import annotations

import atexit
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from comparison import steps_done

from convnextv2.cli import main
from convnextv2.recipe.knobs import Recipe

DONE, MISTAKE = 0, 2
STOPPED = (75, 130)  # the second one in versions up to 1.0
SMALL = {
    "model": "custom",
    "depths": "1,1,1,1",
    "dims": "8,16,24,32",
    "image_size": 64,
    "batch_size": 4,
    "precision": "float32",
    "device": "cpu",
}
"""A network whose step takes about 10 ms."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def knob_exists(name: str) -> bool:
    """Say whether the version under test has this knob."""
    return name in Recipe.model_fields


def command_line(verb: str, data: Path, out: Path, knobs: Mapping[str, Any]) -> list[str]:
    """Write the command that starts and continues a run, without the program's name."""
    given = {"data_dir": data, "out": out, "resume": "auto", **knobs}
    return [verb, *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


def one_process(arguments: Sequence[str]) -> list[str]:
    """Write a command line as a program to start."""
    return [sys.executable, "-m", "convnextv2", *arguments]


def under_torchrun(arguments: Sequence[str], ranks: int, *options: str) -> list[str]:
    """Write a command line as a program that torchrun starts on several ranks."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, f"--nproc-per-node={ranks}", *options, "-m", "convnextv2", *arguments]


def under_mpirun(arguments: Sequence[str], ranks: int) -> list[str]:
    """Write it for Open MPI, which here gives ranks ten seconds after SIGTERM in place of one."""
    options = ["--allow-run-as-root", "--oversubscribe", "--mca", "odls_base_sigkill_timeout", "10"]
    launcher = ["mpirun", *options, "-n", str(ranks)]
    return [*launcher, *one_process(arguments)]


def run_forked(
    arguments: Sequence[str],
    log: Path,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> int:
    """Run a command line in a copy of this process, which has imported everything already.

    Args:
        arguments: Without the program's name.
        log: What it prints is added there.
        before: Called in the copy at first.
        after: Called in the copy at last, unless it was killed.

    Returns:
        Its exit code; negative after a signal.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            before()
            code = main(arguments)
            for thread in threading.enumerate():  # as the interpreter does before it ends
                if thread is not threading.main_thread() and not thread.daemon:
                    thread.join()
            atexit._run_exitfuncs()
            after()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Process:
    """A started program, with all that it starts, in a session of its own.

    Args:
        command: The program and its arguments.
        log: What it prints is added there.
        environment: Added to this process's own.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] = ONE_THREAD
    ) -> None:
        self.log = log
        self.began = time.monotonic()
        self._has_launcher = "mpirun" in command or "torch.distributed.run" in command
        self._printed_before = log.stat().st_size if log.exists() else 0
        with open(log, "ab") as file:
            self._popen = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                cwd=log.parent,  # python -m looks for packages there at first
                start_new_session=True,
            )
        self.pid = self._popen.pid
        self.seen: dict[int, psutil.Process] = {}

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the exit code; None if it still runs after so many seconds."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def printed(self) -> str:
        """Return what it has printed so far."""
        with open(self.log, "rb") as file:
            file.seek(self._printed_before)
            return file.read().decode(errors="replace")

    def family(self) -> list[psutil.Process]:
        """List what it has started and still runs, also where the parent has ended."""
        for parent in [psutil.Process(self.pid)] if psutil.pid_exists(self.pid) else []:
            with suppress(psutil.NoSuchProcess):
                self.seen |= {child.pid: child for child in parent.children(recursive=True)}
        return [child for child in self.seen.values() if child.is_running()]

    def ranks(self) -> list[psutil.Process]:
        """List the processes that a launcher has started, in the order of their ranks."""
        found = {}
        for child in psutil.Process(self.pid).children() if psutil.pid_exists(self.pid) else ():
            with suppress(psutil.Error):
                environment = child.environ()
                rank = environment.get("OMPI_COMM_WORLD_RANK", environment.get("RANK"))
                if rank is not None:
                    found[int(rank)] = child
        return [found[rank] for rank in sorted(found)]

    def workers(self) -> list[psutil.Process]:
        """List the processes that load images for training."""
        parents = self.ranks() or [psutil.Process(self.pid)]
        return [child for parent in parents for child in parent.children()]

    def kill_one(self) -> bool:
        """Kill the last rank, or the only process, by SIGKILL and leave the others to themselves.

        Returns:
            False where a launcher has started no rank yet.
        """
        ranks = self.ranks()
        if not ranks and self._has_launcher:
            return False
        (ranks[-1] if ranks else self._popen).kill()
        return True

    def kill(self) -> None:
        """End it and everything that it started, at once."""
        family = self.family()
        if self._popen.poll() is None:
            self._popen.kill()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self._popen.wait()
        psutil.wait_procs(family, timeout=10)


def wait_for_step(process: Process, run: Path, step: int, seconds: float = 180) -> None:
    """Wait until the log has this step. RuntimeError with what was printed if that never comes."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if steps_done(run) >= step:
            process.family()
            return
        if process.wait(0.05) is not None:
            break
    raise RuntimeError(f"step {step} was not reached: {process.printed()[-2000:]}")


def last_lines(text: str, count: int = 2) -> str:
    """Return the end of what a program printed, without progress bars and colours.

    Args:
        text: All of it.
        count: How many lines. Ours, which begin with "convnextv2:", go before a launcher's.
    """
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.replace("\r", "\n"))
    lines = list(dict.fromkeys(line.strip() for line in plain.splitlines() if line.strip()))
    ours = [line[line.index("convnextv2: ") :] for line in lines if "convnextv2: " in line]
    return " | ".join(line[:250] for line in (ours or lines)[-count:])


def name_of(code: int) -> str:
    """Write an exit code as a shell would."""
    return signal.Signals(-code).name if code < 0 else str(code)


def uninterrupted(command: Sequence[str], run: Path) -> float:
    """Run a command to its end, unless it has been done already.

    Returns:
        The seconds that it took, from a file beside the run folder.
    """
    told = run.with_name(run.name + ".seconds")
    if not told.exists():
        began = time.monotonic()
        process = Process(command, run.with_name(run.name + ".log"))
        if code := process.wait():
            raise RuntimeError(
                f"the uninterrupted run ended with {code}: {process.printed()[-2000:]}"
            )
        told.write_text(f"{time.monotonic() - began:.2f}")
    return float(told.read_text())
