"""Signals that end a run, as launchers and users send them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import OURS, Program, run_ranks
from runs import SMALL, metrics, weights

OPTIONS = [
    *SMALL,
    "--epochs",
    "26",
    "--lr",
    "0.01",
    "--save_every_epochs",
    "100",
    "--val_every_epochs",
    "100",
]


def command(photos: Path, out: Path, *more: str) -> list[str]:
    data = ["--data_dir", str(photos), "--out", str(out)]
    return ["train", *data, *OPTIONS, "--log_every_steps", "1", *more]


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
    words = command(photos, out, "--workers", "1")
    process = Program(*OURS, *words, own_session=True, together=True)
    wait_for_steps(out, 8)
    os.killpg(process.pid, number)
    printed, _ = process.communicate()
    process.close()
    assert process.returncode == 75, printed
    done = [record["step"] for record in metrics(out) if record["kind"] == "train"][-1]
    (checkpoint,) = sorted((out / "checkpoints").iterdir())
    assert checkpoint.name.endswith(f"step-{done:08d}"), printed
    assert weights(out)


def torchrun(photos: Path, out: Path) -> list[str]:
    """The command of a job of two ranks that are started again when one is lost."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launcher += ["--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    return [*launcher, "-m", "convnextv2", *command(photos, out, "--resume", "auto")]


def rank_of(number: int, agent: int) -> int:
    """The process of a rank below torchrun's."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if parent == agent and f"RANK={number}".encode() in environment:
            return int(folder.name)
    raise AssertionError(f"torchrun has no rank {number}")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds ranks in /proc")
def test_a_job_of_two_ranks_survives_the_loss_of_one_and_a_stop(
    photos: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    straight, out = tmp_path / "straight", tmp_path / "run"
    run_ranks(2, *command(photos, straight))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    job = subprocess.Popen(torchrun(photos, out), env=environment, start_new_session=True, **pipes)
    wait_for_steps(out, 10)
    os.kill(rank_of(1, job.pid), signal.SIGKILL)
    lost = len(metrics(out))
    wait_for_steps(out, lost + 10)  # torchrun started both ranks again
    job.send_signal(signal.SIGTERM)
    printed, _ = job.communicate(timeout=120)
    assert "rank 1 ended, or does not answer" in printed
    last = [record["step"] for record in metrics(out) if record["kind"] == "train"][-1]
    assert sorted((out / "checkpoints").iterdir())[-1].name.endswith(f"step-{last:08d}"), printed

    run_ranks(2, *command(photos, out, "--resume", "auto"))
    expected, found = weights(straight), weights(out)
    assert all(found[name].equal(expected[name]) for name in expected)
    told = [
        [(r["kind"], r["step"], r.get("loss"), r.get("top1")) for r in metrics(path)]
        for path in (straight, out)
    ]
    assert told[0] == told[1]
