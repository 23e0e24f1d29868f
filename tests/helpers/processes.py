"""Starts programs of ours without importing everything anew, alone or as the ranks of a job.

The ranks of a job are started as a launcher would, without the launcher's own start.
"""

import functools
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

OURS = ("-m", "convnextv2")
JOBS = itertools.count()


@functools.cache
def starter(number: int) -> tuple[socket.socket, subprocess.Popen]:
    """Start one of the processes that start programs, and return where it takes its orders.

    There are two. They order sets of strings in different ways, as processes do that have nothing
    in common.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = Path(__file__).with_name("starter.py")
    with theirs:
        process = subprocess.Popen(
            [sys.executable, program, str(theirs.fileno())],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    return ours, process


class Program:
    """A program in a process of its own, with the part of `subprocess.Popen` that tests use.

    Args:
        *words: What stands after `python` on a command line: `-m`, `-c` or a file comes first.
        own_session: Whether it has a session and a process group of its own.
        together: Whether its errors are among its output.
        files: Open files for its output and its errors, in place of those that `communicate` reads.
        by: The number of the starter.
        **environment: Further variables of its environment.
    """

    def __init__(
        self,
        *words: str | Path | int,
        own_session: bool = False,
        together: bool = False,
        files: tuple[IO[bytes], IO[bytes]] | None = None,
        by: int = 0,
        **environment: str,
    ) -> None:
        self.returncode: int | None = None
        if files:
            self._output, self._errors = files
        else:
            self._output = tempfile.TemporaryFile()
            self._errors = self._output if together else tempfile.TemporaryFile()
        ours, theirs = os.pipe()
        self._told = open(ours, "rb", buffering=0)
        order = {
            "words": [str(word) for word in words],
            "environment": os.environ | environment,
            "folder": os.getcwd(),
            "own_session": own_session,
        }
        given = [self._output.fileno(), self._errors.fileno(), theirs]
        socket.send_fds(starter(by % 2)[0], [json.dumps(order).encode()], given)
        os.close(theirs)
        self.pid = int(self._told.readline() or "0")
        assert self.pid, "the process that starts programs has ended"

    def wait(self, timeout: float) -> int:
        """Wait until the program has ended, and return its exit code."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise TimeoutError(f"process {self.pid} runs for more than {timeout} s")
            self.returncode = os.waitstatus_to_exitcode(int(self._told.readline()))
            self._told.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit code, or None if the program has not ended."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.wait(60)
        return self.returncode

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Wait until the program has ended, and return its output and its errors."""
        self.wait(timeout)
        told = []
        for file in (self._output, self._errors):
            file.seek(0)
            told.append(file.read().decode())
        return told[0], told[1]

    def send_signal(self, number: int) -> None:
        """Send a signal, if the program has not ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ended since
                os.kill(self.pid, number)

    def close(self) -> None:
        """End the program at once, if it has not ended."""
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)
            self.wait(60)
        for file in (self._output, self._errors, self._told):
            file.close()


def run_program(
    *words: str | Path | int, timeout: float = 600, **environment: str
) -> tuple[int, str, str]:
    """Run a program as `Program` does, and return its exit code, its output and its errors."""
    program = Program(*words, **environment)
    try:
        output, errors = program.communicate(timeout)
    finally:
        program.close()
    assert program.returncode is not None
    return program.returncode, output, errors


def run_alone(*words: str | Path | int) -> str:
    """Run our command line in a process of its own, and return what it prints."""
    program = Program(*OURS, *words, by=next(JOBS))
    [(code, output, errors)] = finish_ranks([program])
    assert code == 0, errors
    return output


def start_ranks(
    ranks: int, *words: str | Path | int, program: tuple[str, ...] = OURS
) -> list[Program]:
    """Start a program on several ranks of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    job = next(JOBS)  # a rank that goes on has another starter than before
    return [
        Program(*program, *words, by=rank + job, **common, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(ranks)
    ]


def finish_ranks(processes: list[Program]) -> list[tuple[int, str, str]]:
    """Wait for ranks, and return the exit code, the output and the errors of each."""
    try:
        told = [process.communicate() for process in processes]
    finally:
        for process in processes:
            process.close()
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


def run_ranks(ranks: int, *words: str | Path | int) -> str:
    """Run our command line on several ranks, and return what the first one prints."""
    done = finish_ranks(start_ranks(ranks, *words))
    assert [code for code, _, _ in done] == [0] * ranks, "\n".join(errors for _, _, errors in done)
    return done[0][1]
