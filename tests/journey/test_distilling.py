"""Students of a teacher: resumed, on several ranks, with images that have no labels."""

import shutil
from pathlib import Path

import pytest
import torch
from processes import run_ranks
from runs import SMALL, draw, metrics, weights
from trees import network, save

from convnextv2 import replay
from convnextv2.cli import main
from convnextv2.files import sha256_of
from convnextv2.run import Run
from convnextv2.weights.description import read_model_json
from convnextv2.weights.restore import load_model
from convnextv2.weights.safetensors import read_tensors

NAMES = ["red", "green", "blue"]  # the data's are sorted
NOTICE = "Only for those who asked."


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    provenance = {"notice": NOTICE}
    return save(network(num_classes=3), folder, class_names=NAMES, provenance=provenance)


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("more")
    for i in range(8):
        draw(folder / f"{i}.png", i % 3, 300 + i)
    return folder


def command(verb: str, photos: Path, out: Path, teacher: Path, *options: str) -> list[str]:
    own = ["--data_dir", str(photos), "--out", str(out), "--teacher", str(teacher), *SMALL]
    return [verb, *own, "--epochs", "2", "--lr", "0.01", *options]


def same_tensors(one: Path, other: Path) -> bool:
    a, b = read_tensors(one)[0], read_tensors(other)[0]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("verb", ["train", "pretrain"])
def test_a_student_is_resumed_bit_for_bit(
    verb: str, photos: Path, teacher: Path, more: Path, tmp_path: Path
) -> None:
    options = "--ema --accumulate 2 --save_every_steps 1 --keep_checkpoints 9".split()
    if verb == "train":
        options += f"--distill both --task_weight 0.5 --mixup 0.8 --unlabelled {more}".split()
    else:
        options += "--decoder_dim 16 --precision bfloat16".split()
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    given = command(verb, photos, whole, teacher, *options)
    assert main(given) == 0
    shutil.copytree(whole, resumed)
    done = Run(resumed).checkpoints()
    for later in done[3:]:  # in the middle of the first epoch
        shutil.rmtree(later)
    assert main([verb, "--out", str(resumed), "--resume"]) == 0
    last = Run(whole).last_checkpoint()
    assert last is not None
    names = ["model", "average", "optimizer", "beside"]
    for name in names:
        path = last.relative_to(whole) / f"{name}.safetensors"
        assert same_tensors(whole / path, resumed / path), name
    beside = read_tensors(last / "beside.safetensors")[0]
    assert beside and all(name.startswith("projection.") for name in beside)
    assert not any(name.startswith("projection.") for name in weights(whole))
    load_model(whole / "last" / "model.safetensors")


def test_a_student_says_who_its_teacher_was(
    photos: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(command("train", photos, run, teacher, "--batch_size", "auto",
                        "--global_batch", "8")) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert "classes by name: blue = 2, green = 1, red = 0" in printed
    provenance = read_model_json(run / "last" / "model.json").provenance
    assert provenance["teacher"]["sha256"] == sha256_of(teacher)
    assert provenance["notice"] == NOTICE
    line = next(line for line in printed.splitlines() if line.startswith("The teacher on"))
    report = (run / "report.html").read_text()
    assert "teacher&#39;s top-1" in report and line.split()[-1].rstrip(".") in report
    assert main(["inspect", str(run)]) == 0
    assert f"custom, sha256 {sha256_of(teacher)}" in capsys.readouterr().out

    other = save(network(num_classes=3, seed=5), tmp_path / "other", class_names=NAMES)
    resume = ["train", "--out", str(run), "--resume", "--epochs", "3"]
    config = ["--config", str(run / "recipe.yaml")]
    assert main([*resume, *config, "--teacher", str(other)]) == 2
    assert "the run had another one" in capsys.readouterr().err
    assert main([*resume, *config, "--teacher", ""]) == 2
    assert "the run had another one" in capsys.readouterr().err
    assert main(command("train", photos, run, run, "--overwrite")) == 2  # itself as its teacher
    assert f"would delete the teacher, {run}" in capsys.readouterr().err and run.is_dir()


def test_images_without_labels_join_in_and_none_of_validation(
    photos: Path, teacher: Path, more: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = command("train", photos, tmp_path / "run", teacher, "--num_samples", "6")
    assert main([*given, "--unlabelled", str(photos), "--distill", "features"]) == 0
    printed = capsys.readouterr().out
    assert "9 of its images are for validation, and are left out." in printed
    assert "6 of its images have labels, and are used once." in printed
    assert "6 images for training, 3 classes (blue, green, red), and 18 without labels" in printed
    steps = [line["step"] for line in metrics(tmp_path / "run") if line["kind"] == "train"]
    assert steps[-1] == 12  # two epochs of 24 images in batches of 4
    assert main(["train", "--data_dir", str(photos), "--unlabelled", str(more), *SMALL]) == 2
    assert "without a teacher" in capsys.readouterr().err


@pytest.mark.parametrize("elastic", [True, False])
def test_two_ranks_learn_what_one_learns(
    elastic: bool, photos: Path, teacher: Path, more: Path, tmp_path: Path
) -> None:
    options = f"--distill both --task_weight 0 --unlabelled {more} --epochs 1 --mixup 0".split()
    options += ["--batch_size", "2", *(["--elastic"] if elastic else [])]
    one, two = tmp_path / "one", tmp_path / "two"
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the ranks have
    assert main(command("train", photos, one, teacher, *options, "--accumulate", "2")) == 0
    torch.set_num_threads(before)
    run_ranks(2, *command("train", photos, two, teacher, *options))
    a, b = weights(one), weights(two)
    if elastic:
        assert all(torch.equal(a[name], b[name]) for name in a)
    else:
        assert all(torch.allclose(a[name], b[name], atol=1e-3) for name in a)


def test_a_student_that_diverged_is_replayed_with_its_teacher(
    photos: Path, teacher: Path, more: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = f"--distill both --unlabelled {more} --log_every_steps 1 --save_every_steps 1".split()
    assert main(command("train", photos, out, teacher, *options, "--lr", "1e5")) == 2
    images = replay(out)
    assert len(images) == 4 and not any(image.is_finite for image in images)
