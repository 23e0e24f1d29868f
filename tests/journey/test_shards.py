"""Runs on tar files equal runs on the folder that was packed, also after a kill in mid-epoch."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from processes import OURS, Program, finish_ranks
from runs import SMALL, metrics, weights
from shards import tars_of

from convnextv2.cli import main

FIXED = [*SMALL, "--lr", "0.01", "--ema", "--epochs", "2", "--save_every_steps", "2"]
FIXED += ["--keep_checkpoints", "20"]


def command(data: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--data_dir", str(data), "--out", str(out), *FIXED, *more]


def equal(a: Path, b: Path) -> bool:
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def tars(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tars")
    for split in ("train", "val"):
        tars_of(photos / split, out, prefix=split)
    (out / "classes.txt").write_text("blue\ngreen\nred\n")
    return out


@pytest.fixture(scope="module")
def straight(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the folder that nothing interrupts."""
    out = tmp_path_factory.mktemp("shards") / "straight"
    assert main(command(photos, out)) == 0
    return out


def test_a_run_on_shards_has_the_weights_of_one_on_the_folder(
    tars: Path, straight: Path, tmp_path: Path
) -> None:
    assert main(command(tars, tmp_path / "run")) == 0
    assert equal(tmp_path / "run", straight)
    tops = [
        [record["top1"] for record in metrics(run) if record["kind"] == "epoch"]
        for run in (tmp_path / "run", straight)
    ]
    assert tops[0] == tops[1]


def test_a_run_on_the_folder_goes_on_with_the_shards_in_the_middle_of_an_epoch(
    tars: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(straight, out)
    in_the_middle = []
    for folder in sorted((out / "checkpoints").iterdir()):
        progress = json.loads((folder / "progress.json").read_text())
        if progress["step"] > 2:
            shutil.rmtree(folder)
        else:
            in_the_middle.append(progress["batch"])
    assert in_the_middle[-1] == 2  # of six
    assert main(command(tars, out, "--resume")) == 0
    assert "(epoch 0, batch 2)" in capsys.readouterr().out
    assert equal(out, straight)


def test_a_run_on_shards_that_is_killed_in_the_middle_of_an_epoch_ends_the_same(
    tars: Path, straight: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run = Program(*OURS, *command(tars, out, "--workers", "1"))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (out / "checkpoints" / "epoch-00000-step-00000004").is_dir():
            break
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    [(code, *_)] = finish_ranks([run])
    assert code == -signal.SIGKILL
    assert main(command(tars, out, "--resume")) == 0
    assert equal(out, straight)
