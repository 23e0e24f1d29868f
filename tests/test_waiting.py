"""The spinning of threads is set before PyTorch is loaded, and never against the user."""

import os
import subprocess
import sys

import pytest

from convnextv2 import waiting


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch):
    monkeypatch.setattr(waiting, "_set_here", {})


def test_threads_sleep_soon_if_nobody_decided():
    environment = {"PATH": "/bin"}
    waiting.choose(environment, modules=())
    assert environment == {"PATH": "/bin", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
    said = waiting.line(environment, threads=2)
    assert "GOMP_SPINCOUNT=1000" in said and "OMP_WAIT_POLICY=ACTIVE" in said


@pytest.mark.parametrize(
    "name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"]
)
def test_what_the_user_set_stays(name):
    environment = {name: "7"}
    waiting.choose(environment, modules=())
    assert environment == {name: "7"}
    assert waiting.line(environment, threads=2) == ""


def test_nothing_is_set_once_torch_is_loaded():
    environment: dict[str, str] = {}
    waiting.choose(environment, modules=("os", "torch"))
    assert environment == {}
    assert "OMP_WAIT_POLICY=PASSIVE" in waiting.line(environment, threads=2)


def test_one_thread_waits_for_none():
    assert waiting.line({}, threads=1) == ""


def spins(before: dict[str, str], *command: str) -> list[str]:
    """Return what libgomp says it read, with the command line's and torch's imports."""
    hidden = ("OMP_", "GOMP_", "KMP_")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(hidden)}
    run = subprocess.run(
        [sys.executable, *command],
        env=environment | before | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not run.returncode, run.stderr
    return [line.split("'")[1] for line in run.stderr.splitlines() if "GOMP_SPINCOUNT" in line]


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch brings libgomp on Linux only")
@pytest.mark.parametrize(("before", "expected"), [({}, "1000"), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_the_runtime_of_pytorch_reads_what_the_command_line_sets(before, expected):
    # `models` imports PyTorch and needs neither images nor a network.
    found = spins(before, "-m", "convnextv2", "models")
    assert found and set(found) == {expected}
