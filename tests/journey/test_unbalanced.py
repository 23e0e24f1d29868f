"""Unbalanced classes and early stopping, as a user meets them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import SMALL, draw, metrics, weights

from convnextv2 import Predictor, export, inspect, predict, validate
from convnextv2.cli import main
from convnextv2.deploy.artifact import open_artifact
from convnextv2.errors import CheckpointError, RecipeError

COUNTS = {"blue": 2, "green": 4, "red": 22}


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rare")
    for colour, name in enumerate(("red", "green", "blue")):
        for i in range(COUNTS[name]):
            draw(root / "train" / name / f"{i}.jpg", colour, 100 * colour + i)
        for i in range(3):
            draw(root / "val" / name / f"{i}.png", colour, 1000 + 10 * colour + i)
    return root


def train(photos: Path, out: Path, *options: str, epochs: int = 2) -> int:
    command = ["train", "--data_dir", str(photos), "--out", str(out), "--epochs", str(epochs)]
    return main([*command, *SMALL, *options])


@pytest.fixture(scope="module")
def plain(rare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "plain"
    assert train(rare, out, "--lr", "0.001") == 0
    return out


def test_a_run_says_that_classes_are_unbalanced_and_what_was_done(
    rare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = ("--logit_adjustment", "1", "--best_by", "balanced_accuracy", "--lr", "0.003")
    assert train(rare, out, *options, epochs=4) == 0
    printed = capsys.readouterr().out
    told = "Unbalanced classes: red has 22 training images, blue has 2, 11 to 1"
    assert printed.count(told) == 1
    assert "Countermeasures: logit_adjustment 1 in the loss." in printed
    assert printed.count("Fewer than 10 validation images: 3 of 3 classes") == 1
    balance = json.loads((out / "best" / "model.json").read_text())["balance"]
    assert balance["class_counts"] == [2, 4, 22] and balance["prior"] == "balanced"
    evals = [record for record in metrics(out) if record["kind"] == "eval"]
    # The later of two equal scores is kept.
    best = max(evals, key=lambda record: (record["balanced_accuracy"], record["epoch"]))
    trained = json.loads((out / "best" / "model.json").read_text())["training"]
    assert (trained["epoch"], trained["macro_f1"]) == (best["epoch"], best["macro_f1"])
    page = (out / "report.html").read_text()
    assert told in page and "meant for images whose classes are equally frequent." in page
    assert "Training images</th>" in page and "balanced accuracy" in page
    inspect(out)
    assert "2 to 22 training images of a class" in capsys.readouterr().out


def test_a_prior_after_training_is_bayes_rule_wherever_it_is_used(
    rare: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(rare / "val" / name / "0.png") for name in COUNTS]

    def found(source: Path, **options) -> np.ndarray:
        rows = predict(source, images, device="cpu", precision="float32", **options)
        named = [{one["class"]: one["prob"] for one in row["predictions"]} for row in rows]
        return np.array([[row[name] for name in COUNTS] for row in named])

    ours = found(plain)
    prior = np.array([2, 4, 22]) / 28
    expected = ours / prior / (ours / prior).sum(1, keepdims=True)
    assert np.abs(expected - ours).max() > 0.05
    np.testing.assert_allclose(found(plain, prior="balanced"), expected, rtol=1e-4)
    half = ours / prior**0.5
    np.testing.assert_allclose(
        found(plain, prior=0.5), half / half.sum(1, keepdims=True), rtol=1e-4
    )
    np.testing.assert_allclose(found(plain, prior="natural"), ours, rtol=1e-4)

    artifact = export(
        plain, prior="balanced", format="torch", out=str(tmp_path / "a"), seconds=0, images=8
    )
    np.testing.assert_allclose(found(artifact), expected, rtol=1e-3)
    card = open_artifact(artifact).card
    assert card.balance["prior"] == "balanced" and card.balance["class_counts"] == [2, 4, 22]
    with pytest.raises(RecipeError, match="keeps the prior that it was exported with"):
        predict(artifact, images, prior="balanced")
    predictor = Predictor(plain, device="cpu", precision="float32", prior="balanced")
    named = {one["class"]: one["prob"] for one in predictor(images[0])[0]["predictions"]}
    np.testing.assert_allclose([named[name] for name in COUNTS], expected[0], rtol=1e-4)

    # What validate counts is what predict answers.
    whole = [str(rare / "val")]
    rows = predict(plain, whole, device="cpu", precision="float32", prior="balanced")
    right = [row["predictions"][0]["class"] in row["image"] for row in rows]
    capsys.readouterr()
    evaluation = validate(plain, prior="balanced", device="cpu")
    assert evaluation.top1 == pytest.approx(np.mean(right))
    assert "meant for images whose classes are equally frequent." in capsys.readouterr().out
    page = (plain / "report.html").read_text()
    assert "Countermeasures: prior balanced after training." in page
    with pytest.raises(RecipeError, match="is about the probabilities of a classifier"):
        export(plain, prior="balanced", outputs="features", out=str(tmp_path / "b"))
    with pytest.raises(RecipeError, match="the server uses the prior of its model"):
        predict("model", whole, prior="balanced", server="http://127.0.0.1:9")


def test_weights_that_tell_no_counts_take_no_prior(rare: Path, plain: Path, tmp_path: Path) -> None:
    assert main(["convert", str(plain), "--to", "timm", "--out", str(tmp_path / "timm")]) == 0
    assert len(predict(tmp_path / "timm", [str(rare / "val")])) == 9
    with pytest.raises(CheckpointError, match="does not state which class frequencies"):
        predict(tmp_path / "timm", [str(rare / "val")], prior="balanced")


def test_a_run_with_drawn_classes_resumes_exactly_inside_an_epoch(
    rare: Path, tmp_path: Path
) -> None:
    options = ("--sampling", "sqrt", "--save_every_steps", "4", "--keep_policy", "all")
    straight, halted = tmp_path / "straight", tmp_path / "halted"
    assert train(rare, straight, *options) == 0
    shutil.copytree(straight, halted)
    names = sorted(path.name for path in (halted / "checkpoints").iterdir())
    inside = [name for name in names if name == "epoch-00001-step-00000012"]
    assert inside == ["epoch-00001-step-00000012"]  # an epoch has 7 steps
    for name in names[names.index(inside[0]) + 1 :]:
        shutil.rmtree(halted / "checkpoints" / name)
    assert main(["train", "--out", str(halted), "--resume"]) == 0
    expected, found = weights(straight), weights(halted)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert main(["train", "--out", str(halted), "--resume", "--sampling", "balanced"]) == 2


def test_patience_ends_a_run_as_any_other_ends(
    rare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    still = ("--lr", "0", "--min_lr", "0", "--patience", "2", "--mindcv_files")
    assert train(rare, out, *still, epochs=9) == 0
    printed = capsys.readouterr().out
    assert "Stopped after epoch 3 of 9: top1 has not improved on" in printed
    assert "after epoch 1, for 2 epochs (patience 2)" in printed
    assert [record["epoch"] for record in metrics(out) if record["kind"] == "eval"] == [1, 2, 3]
    assert "3 of 9" in (out / "report.html").read_text()
    assert list(out.glob("custom-3_*.ckpt")) and (out / "result.log").read_text().count("\n") == 4
    assert main(["train", "--out", str(out), "--resume"]) == 0
    printed = capsys.readouterr().out
    assert f"{out} is done (3 epochs)." in printed and "Stopped after epoch 3 of 9" in printed
    assert main(["train", "--out", str(out), "--resume", "--patience", "4"]) == 0
    assert "Stopped after epoch 5 of 9" in capsys.readouterr().out
    assert metrics(out)[-1]["epoch"] == 5


def test_an_older_checkpoint_and_another_figure_are_continued_with_patience(
    rare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from convnextv2.checkpoint import read_progress, rewrite_progress

    out = tmp_path / "run"
    still = ("--lr", "0", "--min_lr", "0", "--patience", "3")
    assert train(rare, out, *still, epochs=2) == 0
    last = sorted((out / "checkpoints").iterdir())[-1]
    progress = read_progress(last)
    assert progress.pop("best_epoch") == 1
    rewrite_progress(last, progress)  # as an older version wrote it
    other = tmp_path / "other"
    shutil.copytree(out, other)
    assert main(["train", "--out", str(out), "--resume", "--epochs", "9"]) == 0
    assert "Stopped after epoch 4 of 9" in capsys.readouterr().out
    changed = ("--resume", "--epochs", "9", "--best_by", "loss")
    assert main(["train", "--out", str(other), *changed]) == 2
    assert main(["train", "--out", str(other), *changed, "--resume_allow", "best_by"]) == 0
    printed = capsys.readouterr().out
    assert "Scores with another best_by cannot be compared. The search for the best" in printed
    assert "Stopped after epoch 5 of 9: loss has not" in printed
