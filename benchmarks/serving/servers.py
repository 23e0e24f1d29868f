"""Servers to be asked: ours, and LitServe beside it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_BATCH = 32


def free_port() -> int:
    """Find a port on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def served(command: list[str], port: int, ready: str) -> Iterator[subprocess.Popen[str]]:
    """Start a server, and yield its process once it answers at the path `ready`."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        try:
            for _ in range(600):
                with suppress(OSError):
                    if urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}").status == 200:
                        break
                time.sleep(0.1)
            else:
                log.seek(0)
                raise RuntimeError(log.read())
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            # LitServe leaves processes behind, which would take part in what follows.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def ours(artifact: str, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start `convnextv2 serve` with an artifact, and yield its address and its process."""
    port = free_port()
    command = [sys.executable, "-m", "convnextv2", "serve", f"m={artifact}"]
    command += ["--port", str(port), *options]
    with served(command, port, "/readyz") as process:
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def theirs(artifact: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start LitServe with an artifact, and yield its address and its process."""
    port = free_port()
    script = str(Path(__file__).with_name("litserve_peer.py"))
    command = [sys.executable, script, artifact, str(port), str(MAX_BATCH)]
    with served(command, port, "/health") as process:
        yield f"http://127.0.0.1:{port}", process


def memory_mib(process: subprocess.Popen[str]) -> int:
    """Return the resident memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) >> 10
