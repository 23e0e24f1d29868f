"""Starts the ranks of a job, as a launcher would, without the launcher's own start."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def start_ranks(
    ranks: int, *words: str | Path | int, program: tuple[str, ...] = ("-m", "convnextv2")
) -> list[subprocess.Popen]:
    """Start a program on several ranks of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return [
        subprocess.Popen(
            [sys.executable, *program, *map(str, words)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]


def finish_ranks(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Wait for ranks, and return the exit code, the output and the errors of each."""
    try:
        told = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


def run_ranks(ranks: int, *words: str | Path | int) -> str:
    """Run our command line on several ranks, and return what the first one prints."""
    done = finish_ranks(start_ranks(ranks, *words))
    assert [code for code, _, _ in done] == [0] * ranks, "\n".join(errors for _, _, errors in done)
    return done[0][1]
