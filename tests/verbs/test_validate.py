"""validate: views at test time, several sizes, and intervals."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from json_answers import read_answer
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss
from trees import CLASSES, network, save

from convnextv2 import validate
from convnextv2.cli import main
from convnextv2.data.folders import files
from convnextv2.data.transforms import BatchTransform, EvalTransform
from convnextv2.errors import DataError, RecipeError
from convnextv2.find import open_run_weights
from convnextv2.preprocessing import Preprocessing

HOW = {"workers": 0, "precision": "float32", "device": "cpu"}


def images_of(weights: Path, pictures: Path) -> tuple[torch.Tensor, np.ndarray]:
    """The validation photographs as the network gets them, and their classes."""
    how = Preprocessing.read(open_run_weights(weights).description.preprocessing)
    source = files([pictures / "val"])
    transform = EvalTransform(how)
    pixels = torch.stack([transform(source.pixels(i)) for i in range(len(source))])
    targets = [CLASSES.index(Path(name).parent.name) for name in source.names]
    return BatchTransform(how.mean, how.std).normalise(pixels), np.array(targets)


def test_mirrored_views_are_averaged(weights: Path, pictures: Path) -> None:
    evaluation = validate(weights, data_dir=pictures, tta="flip", **HOW)
    images, targets = images_of(weights, pictures)
    with torch.no_grad():
        both = [network()(view).double().numpy() for view in (images, images.flip(-1))]
    probs = np.mean([softmax(each, 1) for each in both], 0)
    assert evaluation.top1 == accuracy_score(targets, probs.argmax(1))
    assert evaluation.loss == pytest.approx(log_loss(targets, probs), rel=1e-5)
    scaled = validate(weights, data_dir=pictures, tta="scales", **HOW)
    assert scaled.loss != evaluation.loss


def test_an_artifact_is_mirrored_too(exported, weights: Path, pictures: Path) -> None:
    artifact = exported("torch")
    expected = validate(weights, data_dir=pictures, tta="flip", **HOW)
    found = validate(artifact, data_dir=pictures, tta="flip", workers=0)
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    with pytest.raises(RecipeError, match="takes images of one size"):
        validate(artifact, data_dir=pictures, tta="scales", workers=0)
    with pytest.raises(RecipeError, match="sizes = 96: an artifact"):
        validate(artifact, data_dir=pictures, sizes=(96,), workers=0)


def test_several_sizes_are_measured_in_one_command(
    weights: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data_dir", pictures, "--workers", 0, "--sizes", "96,64", "--json"]
    assert main(["validate", *map(str, [weights, *arguments])]) == 0
    told = capsys.readouterr()
    found = read_answer("validate", told.out)
    alone = validate(weights, data_dir=pictures, image_size=96, workers=0)
    assert found["sizes"]["96"]["loss"] == alone.loss and "At 96 px:" in told.err
    assert found["sizes"]["64"]["loss"] == found["loss"] != alone.loss
    assert found["intervals"]["top1"][0] <= found["top1"] <= found["intervals"]["top1"][1]
    with pytest.raises(RecipeError, match="not 8"):
        validate(weights, data_dir=pictures, sizes=(8,), workers=0)
    with pytest.raises(RecipeError, match="sizes = 10+: expected"):
        validate(weights, data_dir=pictures, sizes=(10**30,), workers=0)


def test_several_right_answers(
    weights: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answers.csv"
    paths = sorted((pictures / "val").glob("*/*"))
    rows = [f"{path},{path.parent.name}|cedar" for path in paths[:-1]]
    file.write_text("\n".join(["image,classes", *rows]))
    arguments = ["--data_dir", pictures, "--workers", 0, "--answers", file, "--json"]
    assert main(["validate", *map(str, [weights, *arguments])]) == 0
    found = read_answer("validate", capsys.readouterr().out)["answers"]
    images, targets = images_of(weights, pictures)
    with torch.no_grad():
        best = network()(images).argmax(1).numpy()
    right = [one in (target, 2) for one, target in zip(best, targets, strict=True)][:-1]
    assert found == {"top1": sum(right) / 23, "images": 23}


def test_a_file_of_answers_is_looked_at_before_anything_is_measured(
    weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="right classes of images .No such file or directory"):
        validate(weights, data_dir=tmp_path / "nothing", answers=tmp_path / "lost.json", **HOW)
    several = save(network(), tmp_path / "labels", kind="multi_label", thresholds=[0.5] * 4)
    with pytest.raises(RecipeError, match="works only for single-label classifiers"):
        validate(several, data_dir=tmp_path / "nothing", answers=tmp_path / "lost.json", **HOW)


@pytest.mark.parametrize("is_artifact", [False, True])
def test_the_report_of_a_folder_that_cannot_be_written_is_in_the_current_one(
    is_artifact: bool,
    exported: Callable[..., Path],
    weights: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = exported("torch") if is_artifact else weights.parent
    model = shutil.copytree(source, tmp_path / "on a disc")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    read_only = [model]
    open_file = tempfile.TemporaryFile

    def refusing(*, dir: Path) -> IO[bytes]:
        if dir.resolve() in read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))
        return open_file(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refusing)
    before = sorted(model.iterdir())
    command = ["validate", str(model), "--data_dir", str(pictures), "--workers", "0", "--json"]
    assert main(command) == 0
    told = capsys.readouterr()
    name = "on a disc-report.html" if is_artifact else "model-report.html"
    assert read_answer("validate", told.out)["report"] == name
    assert (here / name).read_text().startswith("<!doctype html>")
    assert f"nothing can be written in {model} (Read-only file system)" in told.err
    assert sorted(model.iterdir()) == before
    read_only.append(here)
    (here / name).unlink()
    assert main(command) == 2
    told = capsys.readouterr()
    assert "nor in the current folder" in told.err and "top-1" not in told.err
