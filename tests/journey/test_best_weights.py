"""A run that goes on keeps its best weights, or searches for them anew."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from processes import run_ranks
from resumed import FIXED, equal, train
from runs import draw, metrics, weights

from convnextv2.checkpoint import read_progress, rewrite_progress
from convnextv2.weights.safetensors import read_tensors


@pytest.mark.parametrize("harm", ["removed", "damaged"])
def test_weights_that_were_lost_are_told_and_written_again(
    harm: str, photos: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(straight, out)
    for folder in ("best", "last"):
        file = out / folder / "model.safetensors"
        if harm == "removed":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:1000])
    capsys.readouterr()
    assert train(photos, out, "--resume") == 0
    printed = capsys.readouterr().out
    is_what = {"removed": "is missing", "damaged": "is damaged"}[harm]
    best, last = (out / folder / "model.safetensors" for folder in ("best", "last"))
    assert f"{best}: {is_what}. The search for the best weights begins anew with those" in printed
    assert f"{last}: {is_what}. It is written again from epoch-00003-" in printed
    assert equal(out, straight) and f"Report: {out / 'report.html'}" in printed
    found, expected = read_tensors(best)[0], weights(straight)  # those of the last epoch
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    evaluations = [[r for r in metrics(run) if r["kind"] == "eval"] for run in (out, straight)]
    assert evaluations[0] == evaluations[1]


def test_weights_worse_than_lost_ones_are_the_best_from_then_on(
    photos: Path, straight: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(straight, out)
    shutil.rmtree(out / "best")
    newest = sorted((out / "checkpoints").iterdir())[-1]
    rewrite_progress(newest, {**read_progress(newest), "best": 2.0, "best_epoch": 1})
    assert train(photos, out, "--resume", epochs=4) == 0
    assert (out / "best" / "model.safetensors").is_file()


def other_validation(photos: Path, root: Path, change: str) -> Path:
    """Copy the photographs, and change those for validation."""
    shutil.copytree(photos, root)
    red = root / "val" / "red"
    if change == "added":
        draw(red / "new.png", 0, 77)
    elif change == "removed":
        (red / "0.png").unlink()
    elif change == "renamed":
        (red / "0.png").rename(red / "00.png")
    else:
        (red / "0.png").rename(root / "val" / "blue" / "9.png")
    return root


def put_back(straight: Path, out: Path, *, epochs: int, best: float) -> Path:
    """Copy a run as it was after some of its epochs, with a score that no weights reach."""
    shutil.copytree(straight, out)
    for folder in sorted((out / "checkpoints").iterdir())[epochs:]:
        shutil.rmtree(folder)
    newest = sorted((out / "checkpoints").iterdir())[-1]
    rewrite_progress(newest, {**read_progress(newest), "best": best, "best_epoch": 1})
    return out


def evaluations(run: Path) -> dict[int, float]:
    return {record["epoch"]: record["top1"] for record in metrics(run) if record["kind"] == "eval"}


def epoch_of_best(run: Path) -> int:
    return json.loads((run / "best" / "model.json").read_text())["training"]["epoch"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("added", "validation images: 9 before, 10 from here on"),
        ("removed", "validation images: 9 before, 8 from here on"),
        ("renamed", "the names of the 9 validation images, or their order, have changed"),
    ],
)
def test_on_other_validation_images_the_search_for_the_best_weights_begins_anew(
    change: str,
    told: str,
    photos: Path,
    straight: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = other_validation(photos, tmp_path / "photos", change)
    out = put_back(straight, tmp_path / "run", epochs=2, best=2.0)
    capsys.readouterr()
    assert train(other, out, "--resume") == 0
    line = (
        f"  {told}. The search for the best weights begins anew with those after epoch 2, which "
        "are evaluated again.\n"
    )
    assert capsys.readouterr().out.count(line) == 1
    assert equal(out, straight)  # what is learned does not depend on them
    scores = evaluations(out)
    assert list(scores) == [1, 2, 3]
    assert epoch_of_best(out) == (2 if scores[2] > scores[3] else 3)
    assert train(other, out, "--resume", epochs=4) == 0  # the checkpoint has these images now
    assert "The search for the best" not in capsys.readouterr().out


def test_validation_images_are_compared_in_the_middle_of_an_epoch_too(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    often = ["--save_every_steps", "1", "--keep_policy", "all"]
    assert train(photos, out, *often, epochs=1) == 0
    other = other_validation(photos, tmp_path / "photos", "moved")
    put_back(out, tmp_path / "halted", epochs=3, best=2.0)
    capsys.readouterr()
    assert train(other, tmp_path / "halted", "--resume", *often, epochs=1) == 0
    printed = capsys.readouterr().out
    assert "images, or their order, have changed. The search for the best weights begins" in printed
    assert "begins anew.\n" in printed and "(epoch 0, batch 3)" in printed
    assert epoch_of_best(tmp_path / "halted") == 1


def test_a_run_that_is_done_keeps_its_best_weights_though_the_validation_images_changed(
    photos: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = other_validation(photos, tmp_path / "photos", "added")
    out = put_back(straight, tmp_path / "run", epochs=3, best=2.0)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    for _ in range(2):
        assert train(other, out, "--resume", "auto") == 0
        printed = capsys.readouterr().out
        assert "9 before, 10 from here on. The run is done, so best/ stays" in printed
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {path.name for path in before if before[path] != after[path]} <= {"recipe.yaml"}
    assert train(other, out, "--resume", epochs=4) == 0  # it goes on
    assert "with those after epoch 3, which are evaluated again" in capsys.readouterr().out
    assert epoch_of_best(out) in (3, 4)


def test_a_checkpoint_that_does_not_know_its_validation_images_goes_on_as_before(
    photos: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = other_validation(photos, tmp_path / "photos", "added")
    out = put_back(straight, tmp_path / "run", epochs=2, best=2.0)
    newest = sorted((out / "checkpoints").iterdir())[-1]
    progress = read_progress(newest)
    progress["conditions"].pop("validation", None)
    rewrite_progress(newest, progress)
    capsys.readouterr()
    assert train(other, out, "--resume") == 0
    assert "9 before" not in capsys.readouterr().out
    assert read_progress(sorted((out / "checkpoints").iterdir())[-1])["best"] == 2.0


def test_two_ranks_begin_the_search_anew_together(
    photos: Path, straight: Path, tmp_path: Path
) -> None:
    other = other_validation(photos, tmp_path / "photos", "removed")
    out = put_back(straight, tmp_path / "run", epochs=2, best=2.0)
    command = ["train", "--data_dir", str(other), *FIXED, "3", "--resume", "--out", str(out)]
    printed = run_ranks(2, *command, "--batch_size", "2")
    assert "9 before, 8 from here on. The search for the best weights begins anew" in printed
    assert epoch_of_best(out) in (2, 3)
    assert list(evaluations(out)) == [1, 2, 3]


@pytest.mark.parametrize("is_edited", [False, True], ids=["by option", "in recipe.yaml"])
def test_with_another_crop_the_search_for_the_best_weights_begins_anew(
    is_edited: bool,
    photos: Path,
    straight: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = put_back(straight, tmp_path / "run", epochs=2, best=2.0)
    first, _ = sorted((out / "checkpoints").iterdir())
    rewrite_progress(first, {**read_progress(first), "score": 2.0})
    change = ["--crop_pct", "0.5"]
    if is_edited:
        written = (out / "recipe.yaml").read_text()
        (out / "recipe.yaml").write_text(re.sub("(?m)^crop_pct: .*", "crop_pct: 0.5", written))
        assert (out / "recipe.yaml").read_text() != written
        change = []
    capsys.readouterr()
    keep = ["--keep_policy", "top_k", "--keep_checkpoints", "1"]
    assert train(photos, out, "--resume", *change, *keep) == 0
    printed = capsys.readouterr().out
    assert "  crop_pct: 0.875 before, 0.5 from here on\n" in printed
    assert (
        "  Scores with another crop_pct cannot be compared. The search for the best weights begins "
        "anew with those after epoch 2, which are evaluated again.\n" in printed
    )
    assert equal(out, straight)  # what is learned does not depend on it
    scores = evaluations(out)
    assert epoch_of_best(out) == (2 if scores[2] > scores[3] else 3)
    assert not first.exists()


def test_checkpoints_are_not_kept_for_scores_on_other_validation_images(
    photos: Path, straight: Path, tmp_path: Path
) -> None:
    other = other_validation(photos, tmp_path / "photos", "added")
    out = put_back(straight, tmp_path / "run", epochs=2, best=2.0)
    first, _ = sorted((out / "checkpoints").iterdir())
    rewrite_progress(first, {**read_progress(first), "score": 2.0})
    assert train(other, out, "--resume", "--keep_policy", "top_k", "--keep_checkpoints", "1") == 0
    assert not first.exists()
