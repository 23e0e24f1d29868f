"""Runs in MindCV's terms, and its files in ours."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from runs import metrics

import convnextv2
from convnextv2.cli import main
from convnextv2.weights.opened import open_weights


def test_a_run_in_mindcvs_terms_leaves_mindcvs_files(
    like_mindcv: Path, photos: Path, tmp_path: Path
) -> None:
    assert {path.name for path in like_mindcv.glob("*.ckpt")} == {
        "custom-3_6.ckpt", "custom-4_6.ckpt", "custom_best.ckpt", "optim_custom.ckpt",
    }  # fmt: skip
    header, *rows = (like_mindcv / "result.log").read_text().splitlines()
    assert header.split() == [
        "Epoch",
        "TrainLoss",
        "Top_1_Accuracy",
        "TrainTime",
        "EvalTime",
        "TotalTime",
    ]
    assert [row.split()[0] for row in rows] == ["1", "2", "3", "4"]
    held, ours = (
        open_weights(like_mindcv / "custom_best.ckpt"),
        open_weights(like_mindcv / "best" / "model.safetensors"),
    )
    assert held.origin.format == "mindcv"
    assert all(torch.equal(tensor, held.tensors[name]) for name, tensor in ours.tensors.items())
    averaged = open_weights(like_mindcv / "custom-4_6.ckpt", average=True).tensors
    last = open_weights(like_mindcv / "last" / "model.safetensors").tensors
    assert all(torch.equal(averaged[name], tensor) for name, tensor in last.items())


def test_mindcvs_checkpoint_of_an_epoch_continues_there_with_and_without_the_optimizer(
    like_mindcv: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [
        "train",
        "-c",
        str(like_mindcv.parent / "mine.yaml"),
        "--data_dir",
        str(photos),
        "--num_parallel_workers",
        "0",
    ]
    third = str(like_mindcv / "custom-3_6.ckpt")
    for name, more in (
        ("opt", ["--resume_opt", "True", "--ema", "False"]),
        ("plain", ["--ema", "False"]),
    ):
        out = tmp_path / name
        assert main([*base, "--ckpt_path", third, "--ckpt_save_dir", str(out), *more]) == 0
        assert "continues after epoch 3 of 4" in capsys.readouterr().out
        assert [line.split()[0] for line in (out / "result.log").read_text().splitlines()[1:]] == [
            "4"
        ]
        assert [record["step"] for record in metrics(out) if record["kind"] == "epoch"] == [24]
    straight = open_weights(like_mindcv / "custom-4_6.ckpt").tensors
    exact, without = (
        open_weights(tmp_path / name / "custom-4_6.ckpt").tensors for name in ("opt", "plain")
    )
    assert all(torch.equal(exact[name], tensor) for name, tensor in straight.items())
    assert not all(torch.equal(without[name], tensor) for name, tensor in straight.items())
    assert (
        main(
            [
                *base,
                "--ckpt_path",
                third,
                "--ckpt_save_dir",
                str(tmp_path / "x"),
                "--epoch_size",
                "3",
            ]
        )
        == 2
    )
    assert "nothing is left to do" in capsys.readouterr().err
    assert (
        main(
            [*base, "--init", third, "--ckpt_save_dir", str(tmp_path / "anew"), "--epoch_size", "2"]
        )
        == 0
    )
    assert "continues after" not in capsys.readouterr().out


@pytest.mark.parametrize("left_by", ["us", "MindCV"])
def test_mindcvs_resume_command_continues_the_folder_that_holds_the_checkpoint(
    left_by: str,
    like_mindcv: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "ckpt"
    if left_by == "us":
        shutil.copytree(like_mindcv, out)
    else:
        out.mkdir()
        for name in (
            "custom-3_6.ckpt",
            "custom-4_6.ckpt",
            "optim_custom.ckpt",
            "custom_best.ckpt",
            "result.log",
        ):
            shutil.copy(like_mindcv / name, out)
    command = [
        "train",
        "-c",
        str(like_mindcv.parent / "mine.yaml"),
        "--data_dir",
        str(photos),
        "--num_parallel_workers",
        "0",
    ]
    command += [
        "--ckpt_path",
        str(out / "custom-3_6.ckpt"),
        "--resume_opt",
        "True",
        "--ckpt_save_dir",
        str(out),
    ]
    assert main([*command, "--overwrite"]) == 2
    assert "would delete the weights to start from" in capsys.readouterr().err
    assert main([*command, "--epoch_size", "3"]) == 2 and len(list(out.glob("*.ckpt"))) == 4
    assert main(command) == 0
    assert ("belongs to this run, which continues from" in capsys.readouterr().out) == (
        left_by == "us"
    )
    before, after = (
        (folder / "result.log").read_text().splitlines() for folder in (like_mindcv, out)
    )
    assert after[:4] == before[:4] and [line.split()[0] for line in after[1:]] == [
        "1",
        "2",
        "3",
        "4",
    ]
    assert [record["epoch"] for record in metrics(out) if record["kind"] == "epoch"] == [1, 2, 3, 4]
    for average in (False, True):
        straight, continued = (
            open_weights(folder / "custom-4_6.ckpt", average=average).tensors
            for folder in (like_mindcv, out)
        )
        assert all(torch.equal(continued[name], tensor) for name, tensor in straight.items())
    top1 = [record["top1"] for record in metrics(like_mindcv) if record["kind"] == "epoch"]
    progress = json.loads(
        (next((out / "checkpoints").glob("epoch-00004-*")) / "progress.json").read_text()
    )
    assert progress["best"] == pytest.approx(max(top1), abs=1e-6)


def test_optimizer_state_of_another_head_or_stem_is_one_line(
    like_mindcv: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "train",
        "-c",
        str(like_mindcv.parent / "mine.yaml"),
        "--data_dir",
        str(photos),
        "--num_parallel_workers",
        "0",
    ]
    command += ["--ckpt_path", str(like_mindcv / "custom-3_6.ckpt"), "--resume_opt", "True"]
    for i, knob in enumerate((["--num_classes", "7"], ["--in_channels", "1"])):
        assert main([*command, "--ckpt_save_dir", str(tmp_path / str(i)), *knob]) == 2
        assert "Leave the state out (MindCV: resume_opt)" in capsys.readouterr().err


def test_resuming_appends_to_result_log_and_keeps_what_is_best(
    like_mindcv: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ckpt"
    shutil.copytree(like_mindcv, out)
    before = (out / "result.log").read_text()
    best = json.loads((out / "best" / "model.json").read_text())["training"]["top1"]
    config = like_mindcv.parent / "mine.yaml"
    options = [
        "--ckpt_save_dir",
        str(out),
        "--resume",
        "--epoch_size",
        "6",
        "--num_parallel_workers",
        "0",
    ]
    assert main(["train", "-c", str(config), "--data_dir", str(photos), *options]) == 0
    after = (out / "result.log").read_text()
    assert after.startswith(before) and len(after.splitlines()) == 7
    assert json.loads((out / "best" / "model.json").read_text())["training"]["top1"] >= best
    assert {"custom-5_6.ckpt", "custom-6_6.ckpt"} <= {path.name for path in out.glob("*.ckpt")}
    assert not (out / "custom-4_6.ckpt").exists()


def test_mindcvs_files_inside_a_run_know_the_run(
    like_mindcv: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, report = str(like_mindcv / "custom_best.ckpt"), (like_mindcv / "report.html").read_bytes()
    assert main(["validate", best]) == 0
    printed = capsys.readouterr().out
    assert (
        "averaged weights are measured" in printed
        and (like_mindcv / "custom_best-report.html").exists()
    )
    assert (like_mindcv / "report.html").read_bytes() == report
    assert main(["validate", str(like_mindcv)]) == 0
    assert (
        capsys.readouterr().out.split("top-1")[1].split()[0] == printed.split("top-1")[1].split()[0]
    )
    image = str(photos / "val" / "red" / "0.png")
    found = []
    for weights in (best, str(like_mindcv)):
        assert (
            main(["infer", "--image_path", image, "--ckpt_path", weights, "--precision", "float32"])
            == 0
        )
        found.append(ast.literal_eval(capsys.readouterr().out))
    assert found[0] == found[1] and set(found[0]) == {"red", "green", "blue"}
    assert main(["infer", "--image_path", str(photos / "val"), "--ckpt_path", best]) == 2
    assert "a folder, expected one image" in capsys.readouterr().err
    shutil.copy(best, tmp_path / "plain.ckpt")
    config = [
        "-c",
        str(like_mindcv.parent / "mine.yaml"),
        "--data_dir",
        str(photos),
        "--ckpt_path",
        str(tmp_path / "plain.ckpt"),
    ]
    assert main(["validate", *config]) == 2
    assert "has no averaged weights. Use --ema False" in capsys.readouterr().err
    for knob, value in {
        "num_classes": "7",
        "in_channels": "1",
        "dims": "8,16,24,40",
        "model": "convnextv2_atto",
    }.items():
        others = ["--depths", "none", "--dims", "none"] if knob == "model" else []
        assert main(["validate", *config, "--ema", "False", f"--{knob}", value, *others]) == 2
        assert f"Leave {knob} out" in capsys.readouterr().err
    assert main(["validate", *config, "--ema", "False"]) == 0


def test_the_average_of_a_checkpoint_in_a_run_keeps_the_names_of_its_classes(
    like_mindcv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    averaged = convnextv2.validate(like_mindcv / "custom-4_6.ckpt", device="cpu")
    assert "its averaged weights" in (out := capsys.readouterr().out)
    assert "Rows of 3 classes: by name" in out
    # last/ holds the same average.
    last = convnextv2.validate(like_mindcv / "last" / "model.safetensors", device="cpu")
    assert averaged.confusion.tolist() == last.confusion.tolist()
    assert averaged.loss == pytest.approx(last.loss)
