"""A start from a run that has learned some of the new run's validation images is announced."""

import shutil
from pathlib import Path

import pytest
from runs import SMALL

from convnextv2.cli import main

LEARNED = "So its weights may have learned some of the validation images"


def train(data: Path, out: Path, *more: str) -> int:
    return main(
        ["train", "--data_dir", str(data), "--out", str(out), *SMALL, "--epochs", "1", *more]
    )


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs without a split for validation, and a run on them."""
    root = tmp_path_factory.mktemp("learned")
    shutil.copytree(photos / "train", root / "photos")
    assert train(root / "photos", root / "run", "--seed", "3", "--val_fraction", "0.4") == 0
    return root


def test_a_start_from_a_run_that_held_out_other_images_is_announced(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = ["--init", str(whole / "run"), "--val_fraction", "0.4"]
    capsys.readouterr()
    assert train(whole / "photos", tmp_path / "other", *init, "--seed", "4") == 0
    printed = capsys.readouterr().out
    assert LEARNED in printed
    remedy = "--seed 3 --val_fraction 0.4"
    assert f"{remedy} holds out the same images as there." in printed
    assert train(whole / "photos", tmp_path / "same", *init[:2], *remedy.split()) == 0
    assert LEARNED not in capsys.readouterr().out


def test_nothing_is_announced_for_other_data_or_a_split_of_its_own(
    whole: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole / "photos", tmp_path / "copy")
    init = ["--init", str(whole / "run"), "--seed", "4"]
    capsys.readouterr()
    assert train(tmp_path / "copy", tmp_path / "a", *init) == 0
    assert train(photos, tmp_path / "b") == 0  # its validation images have a folder
    assert train(photos, tmp_path / "c", "--init", str(tmp_path / "b"), "--seed", "4") == 0
    assert LEARNED not in capsys.readouterr().out


def test_a_run_that_has_learned_all_images_is_announced(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(whole / "photos", tmp_path / "all", "--val_while_train", "False") == 0
    capsys.readouterr()
    assert train(whole / "photos", tmp_path / "run", "--init", str(tmp_path / "all")) == 0
    printed = capsys.readouterr().out
    assert f"{LEARNED}, and what is measured on them may be too good. Measure the model" in printed
