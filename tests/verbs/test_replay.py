from pathlib import Path

import pytest
from json_answers import read_answer
from PIL import Image
from runs import SMALL, draw

from convnextv2 import replay
from convnextv2.cli import main
from convnextv2.errors import RunError
from convnextv2.training.bad_step import bad_steps, read_bad_step


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("replay") / "photos"
    for colour, name in enumerate(("red", "green")):
        for i in range(8):
            draw(root / "train" / name / f"{i}.png", colour, 10 * colour + i)
            draw(root / "val" / name / f"{i}.png", colour, 100 + 10 * colour + i)
    return root


def diverged(verb: str, photos: Path, out: Path, *more: str) -> Path:
    """A run whose weights become so large that a loss is not finite."""
    options = ["--data_dir", str(photos), "--out", str(out), *SMALL, "--epochs", "4", *more]
    assert main([verb, *options]) == 2
    return out


def test_a_step_that_was_not_finite_can_be_looked_at(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = diverged("train", photos, tmp_path / "run", "--lr", "1e5", "--log_every_steps", "1")
    error = capsys.readouterr().err
    (path,) = bad_steps(run)
    kept = read_bad_step(path)
    assert f"loss = {kept.losses[0]} at step {kept.step}, which is not taken" in error
    assert str(path) in error and kept.names[0][0] in error
    images = replay(run)
    assert sorted(image.name for image in images) == sorted(kept.names[0])
    assert not any(image.is_finite for image in images)  # each of them, with such weights
    assert {image.target for image in images} <= {"red", "green"}
    printed = capsys.readouterr().out
    assert "4 of 4 images are not finite." in printed
    assert main(["replay", str(run), "--json"]) == 0
    told = capsys.readouterr()
    answer = read_answer("replay", told.out)
    assert len(answer) == 4 and None in {row["loss"] for row in answer} | {
        row["gradient_norm"] for row in answer
    }
    assert "4 of 4 images are not finite." in told.err
    with Image.open(run / "bad_steps" / f"step-{kept.step:08d}.png") as picture:
        assert picture.width > 2 * 96
    with pytest.raises(RunError, match=f"There are: {kept.step}"):
        replay(run, step=999)


def test_a_step_without_weights_from_before_it_still_shows_its_images(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = diverged("pretrain", photos, tmp_path / "run", "--lr", "1e12")
    assert (
        "mask_token: has a weight of 1e+12 after step 1, so it is not saved"
        in capsys.readouterr().err
    )
    assert not list(run.glob("checkpoints/*"))
    assert main(["replay", str(run)]) == 0
    assert "so only images are shown" in capsys.readouterr().out


def test_a_healthy_run_has_nothing_to_replay(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--data_dir", str(photos), "--out", str(out), *SMALL, "--epochs", "1"]
    assert main(["train", *options]) == 0
    with pytest.raises(RunError, match="all steps were finite"):
        replay(out)
