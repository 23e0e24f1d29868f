"""Signals that end a run, as launchers and users send them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import SMALL, metrics, weights

OPTIONS = [
    *SMALL,
    "--epochs",
    "40",
    "--lr",
    "0.01",
    "--save_every_epochs",
    "100",
    "--val_every_epochs",
    "100",
]


def start(photos: Path, out: Path, *more: str) -> subprocess.Popen:
    """A training run in a process group of its own, with one worker."""
    options = [*OPTIONS, "--log_every_steps", "1"]
    options[options.index("--workers") + 1] = "1"
    command = [
        sys.executable,
        "-m",
        "convnextv2",
        "train",
        "--data_dir",
        str(photos),
        "--out",
        str(out),
        *options,
        *more,
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def wait_for_steps(out: Path, steps: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (out / "metrics.jsonl").exists() and len(metrics(out)) >= steps:
            return
        time.sleep(0.05)
    raise AssertionError("the run did not begin")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_loses_no_step(
    photos: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    process = start(photos, out)
    wait_for_steps(out, 8)
    os.killpg(process.pid, number)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 75, printed
    done = [record["step"] for record in metrics(out) if record["kind"] == "train"][-1]
    (checkpoint,) = sorted((out / "checkpoints").iterdir())
    assert checkpoint.name.endswith(f"step-{done:08d}"), printed
    assert weights(out)
