import json
from pathlib import Path

import pytest
import torch
from json_answers import read_answer
from PIL import Image
from runs import SMALL, draw

from convnextv2 import replay
from convnextv2.cli import main
from convnextv2.errors import RunError
from convnextv2.training.bad_step import bad_steps, read_bad_step
from convnextv2.verbs.replay import _fits
from convnextv2.weights.safetensors import read_tensors, write_tensors


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


EDITS = {
    "names": [["a", "b"]],
    "losses": [None],
    "step": 1e400,
}


def test_kept_steps_that_were_edited_or_are_of_another_run_are_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = diverged("train", photos, tmp_path / "run", "--lr", "1e5", "--log_every_steps", "1")
    (path,) = bad_steps(run)
    tensors, metadata = read_tensors(path)
    key = next(name for name in metadata if name.endswith("bad_step"))
    text = metadata[key]
    content = json.loads(text)

    def refused(tensors: dict, text: str = text) -> str:
        write_tensors(path, tensors, {key: text})
        capsys.readouterr()
        assert main(["replay", str(run)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    for name, value in EDITS.items():
        assert "is not a kept step (" in refused(tensors, json.dumps(content | {name: value}))
    assert "no images were kept" in refused(tensors, json.dumps(content | {"names": []}))
    assert "nested too deeply" in refused(tensors, "[" * 100_000)
    pixels = tensors["0.pixels"]
    for other in (pixels.float(), pixels[:2], pixels[0], pixels.sum()):
        assert "is not a kept step (" in refused(tensors | {"0.pixels": other})
    images = len(pixels)
    assert "it has 5 channels, expected 3" in refused(
        tensors | {"0.pixels": torch.zeros(images, 5, 64, 64, dtype=torch.uint8)}
    )
    for targets in (torch.full((images,), 99), torch.zeros(images, 2), torch.zeros(images)):
        line = refused(tensors | {"0.targets": targets})
        assert f"step {content['step']} is not of this run" in line


@pytest.mark.parametrize("kind", ["classifier", "multi_label", "segmentation", "detection"])
def test_targets_of_each_task_fit_it_alone(kind: str) -> None:
    pixels = torch.zeros(3, 4, 4, dtype=torch.uint8)
    targets = {
        "classifier": torch.tensor(2),
        "multi_label": torch.tensor([1, 0, -1]),
        "segmentation": torch.full((4, 4), -1),
        "detection": {
            "size": torch.tensor([4, 4]),
            "boxes": torch.zeros(1, 4),
            "labels": torch.zeros(1, dtype=torch.int64),
        },
    }
    assert [name for name, target in targets.items() if _fits(target, pixels, kind, 3)] == [kind]


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
