"""A run folder whose log is damaged or lost is read as far as it can be."""

import json
from pathlib import Path

import pytest
from runs import SMALL, draw, metrics

from convnextv2.cli import main
from convnextv2.run import Run

TRAIN = {"kind": "train", "step": 2, "epoch": 0.5, "lr": 0.1, "loss": 1.0}
EPOCH = {"kind": "epoch", "step": 4, "epoch": 1, "last_loss": None, "total_s": 3.0}


@pytest.mark.parametrize(
    "wrong",
    [
        TRAIN | {"loss": "1.0"},
        {name: value for name, value in TRAIN.items() if name != "loss"},
        TRAIN | {"images_per_second": "fast"},
        TRAIN | {"kind": 5},
        TRAIN | {"step": None},
        EPOCH | {"total_s": "3"},
        EPOCH | {"top1": [0.5]},
        EPOCH | {"epoch": float("inf")},
        EPOCH | {"step": float("nan")},
        [1, 2],
    ],
    ids=str,
)
def test_records_of_wrong_types_are_left_out_and_counted(wrong: object, tmp_path: Path) -> None:
    lines = [json.dumps(each) + "\n" for each in (TRAIN, wrong, EPOCH)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    run = Run(tmp_path)
    assert run.metrics() == [TRAIN, EPOCH]
    assert run.damaged_lines() == 1


def test_losses_that_are_no_numbers_stay(tmp_path: Path) -> None:
    """A loss that has become NaN is what a user looks for in the log."""
    run = Run(tmp_path)
    run.log(TRAIN | {"loss": float("nan")})
    assert len(run.metrics()) == 1


@pytest.mark.parametrize("lost", [True, False])
def test_a_resume_without_the_log_says_that_it_is_lost(
    lost: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(8):
        draw(tmp_path / "data" / "ab"[i % 2] / f"{i}.png", i % 2, i)
    run = tmp_path / "run"
    command = ["train", "--data_dir", str(tmp_path / "data"), "--out", str(run), *SMALL]
    assert main([*command, "--epochs", "1"]) == 0
    if lost:
        (run / "metrics.jsonl").unlink()
    capsys.readouterr()
    allowed = ["--resume_allow", "epochs"]
    assert main([*command, "--epochs", "2", "--resume", *allowed]) == 0
    told = capsys.readouterr()
    line = "metrics.jsonl: has no record of the epochs so far, so the curves begin here."
    assert (line in told.out + told.err) == lost
    epochs = [record["epoch"] for record in metrics(run) if record["kind"] == "epoch"]
    assert epochs == ([2] if lost else [1, 2])
