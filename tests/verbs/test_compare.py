import re
import shutil
from pathlib import Path

import pytest
from json_answers import read_answer
from runs import SMALL, draw, metrics

import convnextv2
from convnextv2.cli import main
from convnextv2.errors import CheckpointError, DataError, RecipeError

SAVED = ("--epochs", "2", "--lr", "0.01")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare") / "photos"
    for colour, name in enumerate(("red", "green", "blue")):
        for i in range(8):
            draw(root / "train" / name / f"{i}.png", colour, 10 * colour + i)
            draw(root / "val" / name / f"{i}.png", colour, 100 + 10 * colour + i)
    return root


@pytest.fixture(scope="module")
def runs(photos: Path) -> list[str]:
    """Two runs that differ: one hardly learns anything."""
    made = []
    for name, more in (("weak", ("--lr", "1e-5")), ("strong", ("--epochs", "4"))):
        out = str(photos.parent / name)
        options = ["--data_dir", str(photos), "--out", out, *SMALL, *SAVED, *more]
        assert main(["train", *options]) == 0
        made.append(out)
    return made


def hits(run: str, photos: Path) -> dict[str, bool]:
    """Return whether `predict` classifies each validation image correctly."""
    rows = convnextv2.predict(run, [str(photos / "val")], device="cpu", precision="float32")
    return {row["image"]: Path(row["image"]).parent.name == row["predictions"][0]["class"]
            for row in rows}  # fmt: skip


def test_gains_and_losses_are_those_of_the_predictions(
    photos: Path, runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    asked = ["compare", *runs, "--out", str(page), "--device", "cpu", "--precision", "float32"]
    capsys.readouterr()
    assert main([*asked, "--json"]) == 0
    answer = read_answer("compare", capsys.readouterr().out)
    weak, strong = (hits(run, photos) for run in runs)
    first, second = answer["models"]
    assert first["paired"] is None and first["top1"] == pytest.approx(sum(weak.values()) / 24)
    assert second["top1"] == pytest.approx(sum(strong.values()) / 24)
    paired = second["paired"]
    assert paired["gained"] == sum(strong[name] and not weak[name] for name in weak) > 0
    assert paired["lost"] == sum(weak[name] and not strong[name] for name in weak)
    assert paired["images"] == 24 and paired["interval"][0] <= paired["difference"]
    text = page.read_text()
    assert "Settings that differ" in text and ">epochs</th><td>2</td><td>4</td>" in text
    assert ">seed</th>" not in text  # it is the same


def test_weights_outside_a_run_are_compared_as_in_it(
    photos: Path, runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loose = Path(
        shutil.copy(Path(runs[1]) / "best" / "model.safetensors", tmp_path / "w.safetensors")
    )
    asked = ["compare", runs[1], str(loose), "--data_dir", str(photos), "--device", "cpu", "--json"]
    assert main([*asked, "--out", str(tmp_path / "page.html")]) == 0
    run, weights = read_answer("compare", capsys.readouterr().out)["models"]
    assert weights["top1"] == run["top1"]
    assert weights["paired"]["gained"] == weights["paired"]["lost"] == 0


def test_a_run_that_has_learned_the_images_held_out_by_another_is_refused(
    photos: Path, tmp_path: Path
) -> None:
    data, made = str(photos / "train"), []  # no split: images are held out by chance
    for seed in ("1", "2"):
        made.append(str(tmp_path / seed))
        options = ["--data_dir", data, "--out", made[-1], *SMALL, "--epochs", "1", "--seed", seed]
        assert main(["train", *options]) == 0
    page = str(tmp_path / "page.html")
    with pytest.raises(
        DataError, match="seed = 1: .* was trained with seed = 2, so it has learned"
    ):
        convnextv2.compare(made, out=page, device="cpu")
    for verb in (convnextv2.validate, convnextv2.explain, convnextv2.probe):
        with pytest.raises(DataError, match="seed = 3: .* was trained with seed = 1"):
            verb(made[0], seed=3, device="cpu")
    with pytest.raises(DataError, match="val_fraction = 0.5: .* was trained with val_fraction = "):
        convnextv2.validate(made[0], val_fraction=0.5, device="cpu")
    for more in ({}, {"data_dir": data}):  # the images that the run itself held out
        found = convnextv2.validate(made[0], **more, device="cpu")
        again = convnextv2.compare([made[0]] * 2, **more, out=page, device="cpu")
        assert again.exists() and found.top1 >= 0


def share(value: float) -> str:
    return f"{100 * value:.1f}".removesuffix(".0") + "%"


def test_the_curves_are_those_of_the_records(runs: list[str], tmp_path: Path) -> None:
    page = convnextv2.compare(runs, out=str(tmp_path / "page.html"), device="cpu").read_text()
    for title, kind, figure, written in (
        (
            "Validation accuracy",
            "eval",
            "top1",
            lambda y: f"{100 * y:.1f}".removesuffix(".0") + "%",
        ),
        ("Training loss", "train", "loss", lambda y: f"{y:.3g}"),
    ):
        told = re.search(f'aria-label="{title}: ([^"]*)"', page)[1]
        for letter, run in zip("AB", runs, strict=True):
            records = [record for record in metrics(Path(run)) if record["kind"] == kind]
            first, last = (written(records[i][figure]) for i in (0, -1))
            assert f"{letter} from {first} to {last} at epoch {records[-1]['epoch']:g}" in told


def test_pre_training_is_compared_by_curves_and_settings(
    photos: Path, runs: list[str], tmp_path: Path
) -> None:
    made = []
    for ratio in ("0.5", "0.75"):
        out = str(tmp_path / ratio)
        options = ["--data_dir", str(photos / "train"), "--out", out, *SMALL, "--epochs", "1"]
        assert main(["pretrain", *options, "--decoder_dim", "8", "--mask_ratio", ratio]) == 0
        made.append(out)
    page = convnextv2.compare(made, out=str(tmp_path / "page.html"), device="cpu").read_text()
    assert ">mask_ratio</th><td>0.5</td><td>0.75</td>" in page and "Training loss" in page
    assert "Top-1" not in page
    with pytest.raises(CheckpointError, match="only single-label classifiers"):
        convnextv2.compare([made[0], runs[0]], out=str(tmp_path / "none.html"), device="cpu")


def test_what_cannot_be_compared_is_refused(
    photos: Path, runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecipeError, match="1 given, expected 2 to 8"):
        convnextv2.compare([runs[0]])
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file" / "page.html", Path("/proc/none/page.html")):
        with pytest.raises(RecipeError, match="out = "):  # before any image is read
            convnextv2.compare([runs[0], tmp_path / "no-run"], out=out)
    others = tmp_path / "others"
    for colour, name in enumerate(("cat", "dog", "emu")):
        for i in range(4):
            draw(others / "train" / name / f"{i}.png", colour, i)
    out = str(tmp_path / "other")
    options = ["--data_dir", str(others), "--out", out, *SMALL, *SAVED, "--val_fraction", "0.25"]
    assert main(["train", *options]) == 0
    with pytest.raises(DataError, match=r"'blue' is not among the 3 trained ones \(cat"):
        convnextv2.compare([runs[0], out], out=str(tmp_path / "none.html"), device="cpu")
    assert not (tmp_path / "none.html").exists()
