"""pretrain and train end to end, as a user runs them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from runs import SMALL, metrics, weights

import convnextv2
from convnextv2.cli import main
from convnextv2.errors import RunError
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.start import settle_auto
from convnextv2.weights.opened import open_weights


def test_pretraining_leaves_a_run_with_encoder_decoder_and_report(pretrained: Path) -> None:
    opened = open_weights(pretrained / "last" / "model.safetensors")
    tensors, description = opened.tensors, opened.description
    assert (
        description.kind == "fcmae"
        and {"mask_token", "encoder.stages.0.0.grn.gamma", "pred.weight"} <= tensors.keys()
    )
    assert {record["kind"] for record in metrics(pretrained)} == {"train", "epoch"}
    assert "data:image/" in (pretrained / "report.html").read_text()


def test_training_from_it_learns_and_leaves_best_and_last(trained: Path) -> None:
    best = max(record["top1"] for record in metrics(trained) if record["kind"] == "eval")
    assert best == 1.0  # the colour of noise is easy
    description = open_weights(trained / "best" / "model.safetensors").description
    assert description.class_names == ["blue", "green", "red"]
    assert description.training["top1"] == best
    assert (trained / "report.html").stat().st_size > 10_000
    assert json.loads((trained / "last" / "model.json").read_text())["preprocessing"][
        "image_size"
    ] == [64, 64]


def test_a_run_is_never_written_over(
    photos: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "metrics.jsonl").read_bytes()
    assert main(["train", "--data_dir", str(photos), "--out", str(trained), *SMALL]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_a_run_that_failed_before_its_first_step_can_be_started_again(
    photos: Path, tmp_path: Path
) -> None:
    arguments = [
        "train",
        "--data_dir",
        str(photos),
        "--out",
        str(tmp_path / "run"),
        "--epochs",
        "1",
        *SMALL,
    ]
    assert main([*arguments, "--init", "nowhere"]) == 2
    assert main(arguments) == 0


def test_overwrite_refuses_a_folder_that_is_no_run(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert (
        main(["train", "--data_dir", str(photos), "--out", str(tmp_path), "--overwrite", *SMALL])
        == 2
    )
    assert "not overwritten" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").exists()


def test_resume_continues_to_the_same_weights_bit_for_bit(photos: Path, tmp_path: Path) -> None:
    options = [
        "--data_dir",
        str(photos),
        "--lr",
        "0.01",
        "--ema",
        "--mixup",
        "0.3",
        "--erase_prob",
        "0.3",
        "--drop_path_rate",
        "0.2",
        *SMALL,
    ]
    assert main(["train", "--out", str(tmp_path / "straight"), "--epochs", "3", *options]) == 0
    # The length of a run shapes its learning rate, so the halted one has the same length and loses
    # its last checkpoint.
    assert (
        main(
            [
                "train",
                "--out",
                str(tmp_path / "halted"),
                "--epochs",
                "3",
                "--keep_checkpoints",
                "9",
                *options,
            ]
        )
        == 0
    )
    checkpoints = sorted((tmp_path / "halted" / "checkpoints").iterdir())
    assert len(checkpoints) == 3
    shutil.rmtree(checkpoints[-1])
    shutil.rmtree(tmp_path / "halted" / "last")
    torch.manual_seed(12345)  # what ran before must not matter
    assert main(["train", "--out", str(tmp_path / "halted"), "--resume"]) == 0
    straight, halted = weights(tmp_path / "straight"), weights(tmp_path / "halted")
    assert all(torch.equal(straight[name], halted[name]) for name in straight)
    kept = [
        (record["kind"], record["step"], record.get("loss"))
        for record in metrics(tmp_path / "halted")
    ]
    assert kept == [
        (record["kind"], record["step"], record.get("loss"))
        for record in metrics(tmp_path / "straight")
    ]


def test_resuming_with_another_verb_or_model_is_refused(
    photos: Path, pretrained: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [(folder / "recipe.yaml").read_text() for folder in (pretrained, trained)]
    assert main(["train", "--resume", "--out", str(pretrained)]) == 2
    assert "belongs to a run for pre-training" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", str(trained), "--dims", "8,8,8,8"]) == 2
    assert "another model" in capsys.readouterr().err
    assert [(folder / "recipe.yaml").read_text() for folder in (pretrained, trained)] == before


def test_workers_change_nothing(photos: Path, tmp_path: Path) -> None:
    for workers in ("0", "2"):
        options = [
            "--epochs",
            "1",
            "--workers",
            workers,
            "--color_jitter",
            "0.4",
            "--auto_augment",
            "randaug-m9-mstd0.5-inc1",
        ]
        small = [
            value
            for pair in zip(SMALL[::2], SMALL[1::2], strict=True)
            if pair[0] != "--workers"
            for value in pair
        ]
        assert (
            main(
                [
                    "train",
                    "--data_dir",
                    str(photos),
                    "--out",
                    str(tmp_path / workers),
                    *options,
                    *small,
                ]
            )
            == 0
        )
    one, two = weights(tmp_path / "0"), weights(tmp_path / "2")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_bad_images_stop_the_run_by_name_or_are_skipped_and_counted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "train" / "red" / "letter.jpg").write_text("Dear reader, this is not a picture.")
    whole = (folder / "train" / "red" / "0.jpg").read_bytes()
    (folder / "train" / "red" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    arguments = ["train", "--data_dir", str(folder), "--epochs", "1", *SMALL]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 2
    assert ".jpg: is " in capsys.readouterr().err
    assert (
        main(
            [
                *arguments,
                "--out",
                str(tmp_path / "b"),
                "--bad_images",
                "skip",
                "--drop_last",
                "False",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert (
        "2 training images could not be read" in out and "letter.jpg" in out and "half.jpg" in out
    )


def test_a_broken_loss_keeps_the_last_good_checkpoint(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "train",
        "--data_dir",
        str(photos),
        "--out",
        str(tmp_path / "run"),
        "--epochs",
        "6",
        *SMALL,
    ]
    assert (
        main(
            [
                *arguments,
                "--optimizer",
                "sgd",
                "--lr",
                "1e12",
                "--min_lr",
                "1e12",
                "--warmup_epochs",
                "2",
            ]
        )
        == 2
    )
    message = capsys.readouterr().err
    assert "loss = " in message and ".jpg" in message
    assert (tmp_path / "run" / "recipe.yaml").exists()


def test_one_channel_models_train_and_predict(photos: Path, tmp_path: Path) -> None:
    arguments = [
        "train",
        "--data_dir",
        str(photos),
        "--out",
        str(tmp_path / "run"),
        "--epochs",
        "1",
        "--in_channels",
        "1",
        *SMALL,
    ]
    assert main(arguments) == 0
    assert len(convnextv2.predict(tmp_path / "run", photos / "val", top_k=1)) == 9


def test_the_best_checkpoints_are_kept_by_score(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = [
        "--epochs",
        "6",
        "--lr",
        "0.01",
        "--keep_policy",
        "top_k",
        "--keep_checkpoints",
        "2",
        "--scale",
        "0.5,1",
    ]
    assert main(["train", "--data_dir", str(photos), "--out", str(out), *options, *SMALL]) == 0
    top1 = {record["epoch"]: record["top1"] for record in metrics(out) if record["kind"] == "eval"}
    best = sorted(top1, key=lambda epoch: top1[epoch], reverse=True)[:2]
    kept = {int(path.name.split("-")[1]) for path in (out / "checkpoints").iterdir()}
    assert kept == {*best, 6}
    assert (
        main(
            [
                "train",
                "--data_dir",
                str(photos),
                "--out",
                str(tmp_path / "all"),
                "--epochs",
                "4",
                "--ckpt_save_policy",
                "None",
                *SMALL,
            ]
        )
        == 0
    )
    assert len(list((tmp_path / "all" / "checkpoints").iterdir())) == 4


def test_clean_and_augmented_versions_train_with_jsd(photos: Path, tmp_path: Path) -> None:
    options = [
        "--loss",
        "jsd",
        "--aug_splits",
        "3",
        "--auto_augment",
        "augmix-m5",
        "--epochs",
        "1",
        "--label_smoothing",
        "0.1",
    ]
    assert (
        main(["train", "--data_dir", str(photos), "--out", str(tmp_path / "run"), *options, *SMALL])
        == 0
    )


def test_classes_that_were_renamed_stop_a_resumed_run(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    command = [
        "train",
        "--data_dir",
        str(data),
        "--out",
        str(tmp_path / "run"),
        *SMALL,
        "--resume",
        "auto",
    ]
    assert main([*command, "--epochs", "1"]) == 0
    for split in ("train", "val"):
        (data / split / "blue").rename(data / split / "yellow")
    assert main([*command, "--epochs", "2"]) == 2
    assert (
        "was trained on other classes: 'blue' is now 'green' (3 of 3 differ)"
        in capsys.readouterr().err
    )


def test_resume_auto_deletes_no_weights(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = [
        "train",
        "--data_dir",
        str(photos),
        "--out",
        str(out),
        *SMALL,
        "--epochs",
        "1",
        "--resume",
        "auto",
    ]
    assert main(command) == 0
    shutil.rmtree(out / "checkpoints")  # by somebody who needs room
    assert main(command) == 2
    assert "has weights in last/, but no checkpoint to resume from" in capsys.readouterr().err
    assert (out / "last" / "model.safetensors").is_file()


def test_resume_auto_deletes_nothing_that_no_run_wrote(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The folder with a recipe of that name, the images and notes is named for the run as well.
    out = tmp_path / "project"
    shutil.copytree(photos, out / "images")
    (out / "recipe.yaml").write_text("epochs: 1\n")
    command = [
        "train",
        "--data_dir",
        str(out / "images"),
        "--out",
        str(out),
        *SMALL,
        "--resume",
        "auto",
    ]
    before = sorted(out.rglob("*"))
    assert main(command) == 2
    assert "would delete files that no run wrote: images." in capsys.readouterr().err
    assert sorted(out.rglob("*")) == before


@pytest.mark.parametrize(
    "kept", ["epoch-00001-step-00000009.damaged", "epoch-00001-step-00000009-mine"]
)
def test_resume_auto_keeps_copies_of_checkpoints(kept: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "epoch-00002-step-00000018.tmp").mkdir(parents=True)
    (tmp_path / "bad_steps").mkdir()
    for name in ("recipe.yaml", "metrics.jsonl", "recipe.yaml.tmp", ".lock", "quarantine.jsonl"):
        (tmp_path / name).touch()
    assert settle_auto(Recipe(resume="auto"), tmp_path).overwrite  # a kill left all of that
    (tmp_path / "checkpoints" / kept).mkdir()
    with pytest.raises(RunError, match=kept):
        settle_auto(Recipe(resume="auto"), tmp_path)
