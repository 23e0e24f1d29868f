"""Runs that start from weights of the first ConvNeXt."""

import json
from pathlib import Path

import pytest
import timm
import torch
from runs import SMALL, weights

import convnextv2
from convnextv2 import find
from convnextv2.cli import main
from convnextv2.weights.opened import open_weights


@pytest.fixture(scope="module")
def first_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ConvNeXt of the first version in a folder as timm's on the Hub, with CLIP's statistics."""
    folder = tmp_path_factory.mktemp("hub") / "convnext_tiny.in12k_ft_in1k"
    folder.mkdir()
    torch.manual_seed(1)
    shape = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32), "ls_init_value": 0.5}
    model = timm.create_model("convnext_tiny", num_classes=7, **shape)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    prepared = {"input_size": [3, 64, 64], "crop_pct": 1.0, "interpolation": "bicubic"}
    prepared |= {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "num_classes": 7}
    config = {"architecture": "convnext_tiny", "pretrained_cfg": prepared}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def options_of(data: Path, out: Path, *more: str) -> list[str]:
    return ["--data_dir", str(data), "--out", str(out), "--epochs", "2", *SMALL[8:], *more]


def test_training_starts_from_a_first_version_and_grn_learns(
    photos: Path, first_version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = ["--init", str(first_version), "--image_size", "64", "--batch_size", "4"]
    assert main(["train", *options_of(photos, tmp_path / "run", *init)]) == 0
    said = capsys.readouterr().out
    assert "GRN starts at zero" in said and "its model card says apache-2.0." in said
    assert "mean [0.48, 0.46, 0.41]" in said
    tensors = weights(tmp_path / "run")
    assert all(tensor.any() for name, tensor in tensors.items() if name.endswith("grn.gamma"))
    told = open_weights(tmp_path / "run" / "last" / "model.safetensors")
    assert told.origin.notice == "its model card says apache-2.0."
    assert told.description.preprocessing["mean"] == [0.48, 0.46, 0.41]


def test_a_run_with_frozen_grn_stays_a_first_version(
    photos: Path, first_version: Path, tmp_path: Path
) -> None:
    init = ["--init", str(first_version), "--image_size", "64", "--batch_size", "4"]
    command = ["train", *options_of(photos, tmp_path / "run", *init, "--freeze_grn")]
    assert main(command) == 0
    convnextv2.convert(tmp_path / "run", to="timm-v1", out=tmp_path / "timm")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours = convnextv2.weights.restore.load_model(tmp_path / "run" / "best" / "model.safetensors")[0]
    with torch.inference_mode():
        torch.testing.assert_close(theirs(images), ours(images), rtol=1e-4, atol=1e-5)


def test_masked_pretraining_continues_from_a_first_version(
    photos: Path, first_version: Path, tmp_path: Path
) -> None:
    init = ["--init", str(first_version), "--image_size", "64", "--batch_size", "4"]
    command = ["pretrain", *options_of(photos, tmp_path / "run", *init, "--decoder_dim", "16")]
    assert main(command) == 0
    start, end = open_weights(first_version).tensors, weights(tmp_path / "run")
    name = "stages.2.0.dwconv.weight"
    moved = (end[f"encoder.{name}"] - start[name]).abs().max()
    assert 0 < moved < 0.1  # the encoder learned, from where it was


def test_the_word_pretrained_takes_public_weights_of_the_size(
    photos: Path,
    first_version: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = []

    def download(name: str) -> Path:
        asked.append(name)
        return first_version

    monkeypatch.setattr(find, "download", download)
    small = ["--image_size", "64", "--batch_size", "4"]
    start = ["--init", "pretrained", "--model", "convnextv2_tiny", *small]
    # The weights that are found here are smaller than a tiny, so the size does not fit.
    assert main(["train", *options_of(photos, tmp_path / "run", *start)]) == 2
    captured = capsys.readouterr()
    assert asked == ["timm/convnext_tiny.in12k_ft_in1k"]
    assert "convnext_tiny.in12k_ft_in1k (28.59 M parameters, apache-2.0" in captured.out
    named = ["--init", "convnext_tiny.in12k_ft_in1k", *small]
    assert main(["train", *options_of(photos, tmp_path / "named", *named)]) == 0
    assert asked[1:] == ["timm/convnext_tiny.in12k_ft_in1k"]
    start[3] = "convnextv2_huge"
    assert main(["train", *options_of(photos, tmp_path / "huge", *start)]) == 2
    assert "no public weights for model = convnextv2_huge" in capsys.readouterr().err


def test_public_weights_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("convnext_tiny.in12k_ft_in1k ")]
    assert line.split() == ["convnext_tiny.in12k_ft_in1k", "28.59", "84.19", "224", "apache-2.0"]
    (line,) = [line for line in lines if line.startswith("convnextv2_atto.fcmae_ft_in1k ")]
    assert line.endswith("cc-by-nc-4.0   no commercial use.")
    assert main(["models", "nothing", "--weights"]) == 2


def test_random_weights_on_few_images_are_mentioned(
    photos: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--data_dir", str(photos), "--epochs", "1", *SMALL]
    assert main([*command, "--out", str(tmp_path / "scratch")]) == 0
    assert "The run starts from random weights, with 24 images." in capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "tuned"), "--init", str(trained)]) == 0
    assert "random weights" not in capsys.readouterr().out


def test_runs_keep_the_form_of_their_blocks(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--data_dir", str(photos), "--epochs", "1", *SMALL]
    first = tmp_path / "first"
    masked = ["pretrain", *small, "--out", str(first), "--block", "v1", "--decoder_dim", "16"]
    assert main(masked) == 0
    assert main(["inspect", str(first)]) == 0
    assert "stem_stride 4, block v1, gelu exact" in capsys.readouterr().out
    started = ["train", *small, "--out", str(tmp_path / "run"), "--init", str(first)]
    assert main(started) == 0
    assert "From init: block v1" in capsys.readouterr().out
    told = open_weights(tmp_path / "run" / "best" / "model.safetensors")
    assert told.description.arguments["block"] == "v1"
    assert main(["predict", str(tmp_path / "run"), str(photos / "val" / "red" / "0.png")]) == 0
    capsys.readouterr()
    again = ["train", *small, "--init", str(first), "--block", "v2"]
    assert main([*again, "--out", str(tmp_path / "v2")]) == 0
    assert "stages.0.0.grn.beta" in capsys.readouterr().out
    gamma = weights(tmp_path / "v2")["stages.0.0.grn.gamma"]
    assert gamma.any()  # GRN learns from zero


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--freeze_grn"], "freeze_grn = True: there is no GRN to freeze, and block is v1."),
        (["--mindcv_files"], "mindcv_files = True: MindCV's ConvNeXt V2 has GRN"),
    ],
)
def test_what_needs_grn_is_refused_without_it(
    options: list[str],
    message: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["train", *options_of(photos, tmp_path / "run", "--block", "v1", *options)]
    assert main(command) == 2
    assert message in capsys.readouterr().err
