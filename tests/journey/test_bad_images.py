"""Images that cannot be read, in every verb that reads them for a run."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
from runs import SMALL, weights

import convnextv2
from convnextv2.cli import main
from convnextv2.errors import DataError
from convnextv2.tasks.measure import measure


@pytest.fixture
def spoilt(photos: Path, tmp_path: Path) -> Path:
    """One training image of 25 and two validation images of 10 cannot be read."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "train" / "red" / "letter.jpg").write_text("Dear reader, this is not a picture.")
    (folder / "val" / "green" / "empty.png").write_bytes(b"")
    whole = (folder / "val" / "blue" / "0.png").read_bytes()
    (folder / "val" / "blue" / "0.png").write_bytes(whole[: len(whole) // 2])
    return folder


LEFT_OUT = "2 validation images could not be read and were left out: "


@pytest.mark.parametrize("bad_images", ["skip", "quarantine"])
def test_what_validation_leaves_out_is_told_each_time(
    spoilt: Path, tmp_path: Path, bad_images: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = ["--epochs", "2", "--bad_images", bad_images, "--drop_last", "False", *SMALL]
    assert main(["train", "--data_dir", str(spoilt), "--out", str(run), *options]) == 0
    out = capsys.readouterr().out
    # After each of two epochs, and for the report.
    assert out.count(LEFT_OUT) == 3
    assert out.count("val/blue/0.png, ") == 3 and out.count("val/green/empty.png.") == 3
    assert "1 training image could not be read and was left out: " in out
    page = (run / "report.html").read_text()
    assert "validation images left out" in page
    evaluation = convnextv2.validate(run)
    assert evaluation.images == 8 and LEFT_OUT in capsys.readouterr().out
    listed = run / "quarantine.jsonl"
    assert listed.exists() == (bad_images == "quarantine")
    if bad_images == "quarantine":
        records = [json.loads(line) for line in listed.read_text().splitlines()]
        assert {(Path(each["name"]).name, each["used"]) for each in records} == {
            ("letter.jpg", "training"),
            ("0.png", "evaluation"),
            ("empty.png", "evaluation"),
        }
        assert len(records) == 3 and all(each["reason"] for each in records)


def test_a_list_of_one_run_says_nothing_about_other_images(spoilt: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(spoilt, other)
    options = ["--epochs", "1", "--bad_images", "quarantine", *SMALL]
    assert main(["train", "--data_dir", str(spoilt), "--out", str(run), *options]) == 0
    before = (run / "quarantine.jsonl").read_bytes()
    assert convnextv2.validate(run, data_dir=str(other)).images == 8
    assert (run / "quarantine.jsonl").read_bytes() == before


def test_a_run_goes_on_without_what_it_left_out(
    spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The image is left out even if it could be read by now."""
    run = tmp_path / "run"
    options = ["--bad_images", "quarantine", "--drop_last", "False", *SMALL]
    command = ["train", "--data_dir", str(spoilt), "--out", str(run), *options]
    assert main([*command, "--epochs", "1"]) == 0
    before = (run / "quarantine.jsonl").read_bytes()
    shutil.copy(spoilt / "train" / "red" / "0.jpg", spoilt / "train" / "red" / "letter.jpg")
    shutil.copy(spoilt / "val" / "green" / "0.png", spoilt / "val" / "green" / "empty.png")
    capsys.readouterr()
    resumed = ["train", "--out", str(run), "--resume", "--epochs", "2"]
    assert main([*resumed, "--resume_allow", "epochs"]) == 0
    out = capsys.readouterr().out
    assert "1 training image could not be read and was left out: " in out and LEFT_OUT in out
    assert (run / "quarantine.jsonl").read_bytes() == before


@pytest.mark.parametrize("bad_images", ["skip", "quarantine"])
def test_pretraining_reports_without_its_bad_images(
    photos: Path, tmp_path: Path, bad_images: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of eight images of the gallery are bad."""
    folder, run = tmp_path / "photos", tmp_path / "run"
    folder.mkdir()
    for i, path in enumerate(sorted((photos / "train").glob("*/*.jpg"))[:12]):
        shutil.copy(path, folder / f"{i:02}.jpg")
    for name in ("00.jpg", "11.jpg"):
        (folder / name).write_bytes(b"")
    options = ["--epochs", "1", "--decoder_dim", "16", "--drop_last", "False", *SMALL]
    command = ["pretrain", "--data_dir", str(folder), "--out", str(run), *options]
    assert main([*command, "--bad_images", bad_images]) == 0
    out = capsys.readouterr().out
    assert "2 training images could not be read" in out
    assert "2 gallery images could not be read and were left out: " in out
    assert "data:image/" in (run / "report.html").read_text()
    assert (run / "quarantine.jsonl").exists() == (bad_images == "quarantine")


def test_a_report_without_any_image_for_its_gallery_is_still_a_report(
    pretrained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The images of the pre-training are gone by the time a classifier is trained from it."""
    folder, pre = tmp_path / "unlabelled", tmp_path / "pre"
    folder.mkdir()
    for path in (photos / "train" / "red").iterdir():
        shutil.copy(path, folder)
    options = ["--epochs", "1", "--decoder_dim", "16", *SMALL]
    assert main(["pretrain", "--data_dir", str(folder), "--out", str(pre), *options]) == 0
    shutil.rmtree(folder)
    run = tmp_path / "run"
    options = ["--init", str(pre), "--epochs", "1", *SMALL]
    assert main(["train", "--data_dir", str(photos), "--out", str(run), *options]) == 0
    assert "No reconstructions in the report: " in capsys.readouterr().out
    assert (run / "report.html").stat().st_size > 10_000
    assert weights(run)


def test_an_image_that_goes_away_before_the_report_costs_an_example_only(
    trained: Path, photos: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)

    def measure_and_lose(*arguments):
        measured = measure(*arguments)
        (folder / "val" / "red" / "0.png").unlink()
        return measured

    monkeypatch.setattr("convnextv2.verbs.validate.measure", measure_and_lose)
    convnextv2.validate(trained, data_dir=str(folder))
    out = capsys.readouterr().out
    assert "An example is left out of the report: " in out and "red/0.png: cannot be opened" in out
    assert "Report: " in out


def test_no_process_outlives_a_run_that_failed(spoilt: Path, tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(DataError, match="letter.jpg|0.png|empty.png") as caught:
        convnextv2.train(
            data_dir=spoilt, out=tmp_path / "run", model="custom", depths=[1, 1, 1, 1],
            dims=[8, 16, 24, 32], image_size=64, batch_size=4, drop_last=False, workers=1,
            bad_images="fail", precision="float32", device="cpu", tensorboard=False, epochs=1,
        )  # fmt: skip
    assert caught.tb is not None  # which notebooks keep, with all that it leads to
    assert set(multiprocessing.active_children()) == before
