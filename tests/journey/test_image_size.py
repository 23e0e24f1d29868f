"""Runs of a given length that choose their image size."""

from pathlib import Path

import pytest
from runs import SMALL

from convnextv2.cli import main
from convnextv2.run import Run
from convnextv2.training.deadline import Deadline

AUTO = [*SMALL, "--image_size", "auto"]


def test_a_run_records_the_size_that_was_chosen(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The size is chosen for an hour, and the run ends after two epochs nevertheless.
    monkeypatch.setattr(Deadline, "epochs", property(lambda self: 2))
    out = tmp_path / "run"
    command = ["train", "--data_dir", str(photos), "--out", str(out)]
    assert main([*command, *AUTO, "--time", "1h"]) == 0
    size = Run(out).recipe.image_size
    assert isinstance(size, int) and f"image_size auto: {size} px" in capsys.readouterr().out
    assert main(["train", "--resume", "--out", str(out), "--image_size", "auto"]) == 0
    assert Run(out).recipe.image_size == size


def test_auto_is_refused_where_nothing_is_chosen(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--data_dir", str(photos), "--out", str(tmp_path / "run"), *AUTO]
    assert main(["train", *command]) == 2
    assert "image_size = auto: the size is chosen to fit `time`" in capsys.readouterr().err
    assert main(["train", *command, "--time", "9s", "--teacher", str(photos)]) == 2
    assert "cannot be measured with teacher" in capsys.readouterr().err
    assert main(["pretrain", *command, "--time", "9s"]) == 2
    assert "Give a number of px" in capsys.readouterr().err
    assert main(["benchmark", "--image_size", "auto"]) == 2
    assert "image_size = auto" in capsys.readouterr().err
