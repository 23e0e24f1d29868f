"""Weights that were not trained here: validated, converted, trained further, refused."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from runs import SMALL, draw, metrics

import convnextv2
from convnextv2.cli import main
from convnextv2.weights.description import Description
from convnextv2.weights.opened import open_weights
from convnextv2.weights.safetensors import save_weights


def test_weights_of_another_size_and_encoders_without_head_are_refused(
    photos: Path,
    pretrained: Path,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [
        "train",
        "--data_dir",
        str(photos),
        "--out",
        str(tmp_path / "a"),
        "--init",
        str(pretrained),
        "--image_size",
        "64",
        "--model",
        "convnextv2_atto",
    ]
    assert main([*arguments, "--batch_size", "4"]) == 2
    assert "the model is convnextv2_atto" in capsys.readouterr().err
    assert main(["predict", str(pretrained), str(photos / "val")]) == 2
    assert "without a classifier" in capsys.readouterr().err
    assert main(["reconstruct", str(trained), str(photos / "val")]) == 2
    assert "cannot reconstruct" in capsys.readouterr().err


def test_weights_that_do_not_say_how_images_are_prepared_are_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = convnextv2.ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=3)
    save_weights(
        tmp_path / "ours", model.state_dict(), Description("classifier", "custom", model.arguments)
    )
    assert main(["predict", str(tmp_path / "ours"), str(photos / "val")]) == 2
    assert "does not state the preprocessing of its images" in capsys.readouterr().err


def test_convert_and_inspect_from_the_command_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["convert", str(trained), "--to", "transformers", "--out", str(tmp_path / "hf")]) == 0
    )
    assert main(["inspect", str(tmp_path / "hf")]) == 0
    printed = capsys.readouterr().out
    assert (
        "Hugging Face transformers" in printed
        and "classifier, 3 classes" in printed
        and "blue, green, red" in printed
    )
    assert main(["convert", str(trained), "--to", "mindcv", "--out", str(tmp_path / "m.ckpt")]) == 2
    assert "--allow-drift" in capsys.readouterr().err
    assert (
        main(
            [
                "convert",
                str(trained),
                "--to",
                "mindcv",
                "--out",
                str(tmp_path / "m.ckpt"),
                "--allow-drift",
            ]
        )
        == 0
    )


def test_weights_of_others_are_validated_as_they_are(
    trained: Path,
    like_mindcv: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["validate", str(trained)]) == 0
    expected = capsys.readouterr().out.split("top-1")[1].split()[0]
    assert (
        main(["convert", str(trained), "--to", "transformers", "--out", str(tmp_path / "hf")]) == 0
    )
    data = [
        "--data_dir",
        str(photos),
        "--image_size",
        "64",
        "--batch_size",
        "4",
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    assert main(["validate", str(tmp_path / "hf"), *data, "--precision", "float32"]) == 0
    assert capsys.readouterr().out.split("top-1")[1].split()[0] == expected
    config = ["-c", str(like_mindcv.parent / "mine.yaml"), *data]
    assert main(["validate", *config, "--ckpt_path", str(like_mindcv / "custom-4_6.ckpt")]) == 0
    printed = capsys.readouterr().out
    figures = ast.literal_eval(
        next(line for line in printed.splitlines() if line.startswith("{'Top_1_Accuracy'"))
    )
    assert (
        set(figures) == {"Top_1_Accuracy", "loss"}
        and "its averaged weights are measured" in printed
    )
    last = [record for record in metrics(like_mindcv) if record["kind"] == "eval"][-1]
    assert figures["Top_1_Accuracy"] == last["top1"]
    micro = Path(__file__).parents[1] / "fixtures" / "mindcv" / "micro.ckpt"
    many = tmp_path / "many"
    for i in range(11):
        draw(many / "val" / str(i) / "0.png", 0, i)
    assert main(["validate", str(micro), "--data_dir", str(many), *data[2:]]) == 2
    assert "a classifier of 10 classes, the data have 11" in capsys.readouterr().err


def test_foreign_weights_that_name_their_classes_are_validated_by_name(
    trained: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(trained), "--to", "transformers", "--out", "hf"]) == 0
    shutil.copytree(photos / "val" / "green", tmp_path / "few" / "val" / "green")
    data = {
        "data_dir": "few",
        "image_size": 64,
        "workers": 0,
        "device": "cpu",
        "precision": "float32",
    }
    assert convnextv2.validate("hf", **data).top1 == 1.0
    assert "Rows of 1 of 3 classes: by name (green = 1)." in capsys.readouterr().out
    assert (tmp_path / "hf" / "report.html").exists() and not (tmp_path / "report.html").exists()
    (tmp_path / "few" / "val" / "green").rename(tmp_path / "few" / "val" / "emerald")
    assert main(["validate", "hf", "--data_dir", "few"]) == 2
    assert (
        "it names its classes differently (blue, green, red); the data's classes are emerald."
        in capsys.readouterr().err
    )
    shutil.copytree(photos / "val" / "red", tmp_path / "few" / "val" / "red")
    assert main(["validate", "hf", "--data_dir", "few"]) == 2
    assert (
        "class 'emerald' of the data is not among its 3 (blue, green, red)"
        in capsys.readouterr().err
    )
    shutil.copytree(photos / "val" / "blue", tmp_path / "few" / "val" / "azure")
    (tmp_path / "few" / "val" / "red").rename(tmp_path / "few" / "val" / "ruby")
    assert convnextv2.validate("hf", **data, class_order="text").top1 == 1.0
    assert (
        "Rows of 3 classes: sorted as text (azure = 0, emerald = 1, ruby = 2)."
        in capsys.readouterr().out
    )


def test_the_report_of_a_cached_repository_is_not_written_into_the_cache(
    trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cached = tmp_path / "hub" / "models--me--shoes" / "snapshots" / "0123"
    assert main(["convert", str(trained), "--to", "transformers", "--out", str(cached)]) == 0
    before = sorted(cached.iterdir())
    convnextv2.validate(cached, data_dir=str(photos), workers=0, device="cpu")
    assert sorted(cached.iterdir()) == before and (tmp_path / "shoes-report.html").exists()


def test_the_licence_of_the_initial_weights_is_that_of_the_run(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(
        {"model": convnextv2.ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=3).state_dict()},
        tmp_path / "off.pth",
    )
    pre, run = tmp_path / "pre", tmp_path / "run"
    options = ["--data_dir", str(photos), "--epochs", "1", *SMALL]
    assert (
        main(
            [
                "pretrain",
                "--init",
                str(tmp_path / "off.pth"),
                "--out",
                str(pre),
                "--decoder_dim",
                "16",
                *options,
            ]
        )
        == 0
    )
    assert main(["train", "--init", str(pre), "--out", str(run), *options]) == 0
    assert main(["train", "--out", str(run), "--resume", "--epochs", "2"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "CC-BY-NC" in printed and "started from" in printed
    told = open_weights(run / "best" / "model.safetensors").description.provenance
    assert told["init"]["init"]["format"] == "official"
    assert main(["predict", str(run), str(photos / "val" / "red"), "--json"]) == 0
    captured = capsys.readouterr()
    assert "CC-BY-NC" in captured.err and all(
        json.loads(line) for line in captured.out.splitlines()
    )
    assert (
        main(
            [
                "infer",
                "--image_path",
                str(photos / "val" / "red" / "0.png"),
                "--ckpt_path",
                str(run),
            ]
        )
        == 0
    )
    captured = capsys.readouterr()
    assert "CC-BY-NC" in captured.err and ast.literal_eval(captured.out)
    assert main(["validate", str(run)]) == 0
    assert "CC-BY-NC" in capsys.readouterr().out


def test_what_foreign_weights_tell_is_used_where_nobody_set_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixture = Path(__file__).parents[1] / "fixtures" / "mindcv" / "micro.ckpt"
    arguments = [
        "train",
        "--data_dir",
        str(photos),
        "--init",
        str(fixture),
        "--image_size",
        "64",
        "--batch_size",
        "4",
    ]
    arguments += [
        "--workers",
        "0",
        "--epochs",
        "1",
        "--tensorboard",
        "False",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "From init: model custom, depths 1,1,2,1" in printed.replace("[", "").replace(
        "]", ""
    ).replace(", 1", ",1").replace(", 2", ",2")
    assert "68 tensors loaded" in printed and "a head of 10 classes, the model has 3" in printed
    description = open_weights(tmp_path / "run" / "last" / "model.safetensors").description
    assert description.arguments["gelu"] == "tanh" and description.arguments["dims"] == [
        8,
        16,
        32,
        64,
    ]


def test_the_hub_is_asked_only_for_names_of_repositories(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import huggingface_hub

    assert main(["convert", str(trained), "--to", "timm", "--out", str(tmp_path / "cached")]) == 0
    asked = []

    def fetch(name: str, allow_patterns: list[str], endpoint: str | None = None) -> str:
        asked.append(name)
        assert not any(pattern.endswith((".bin", ".pt", ".pth")) for pattern in allow_patterns)
        return str(tmp_path / "cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert main(["inspect", "timm/convnextv2_atto.fcmae"]) == 0
    assert asked == ["timm/convnextv2_atto.fcmae"]
    assert main(["inspect", str(tmp_path / "missing.pt")]) == 2 and len(asked) == 1

    def unreachable(name: str, allow_patterns: list[str], endpoint: str | None = None) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    capsys.readouterr()
    assert main(["inspect", "timm/convnextv2_atto.fcmae"]) == 2
    assert (
        "cannot be fetched from the Hugging Face Hub (no route to host)" in capsys.readouterr().err
    )
