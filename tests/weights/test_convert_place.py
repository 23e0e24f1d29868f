"""The places to which converted weights may be written, and the remains of a failure."""

from pathlib import Path
from typing import IO

import pytest
import torch

from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.description import Description
from convnextv2.weights.opened import Origin, Weights, open_weights

from .networks import random_model, save


@pytest.mark.parametrize(
    ("target", "out", "match"),
    [
        ("tim", "x", "expected one of official"),
        ("timm", "x.ckpt", "ending in .safetensors"),
        ("mindcv", "folder", "ending in .ckpt"),
    ],
)
def test_wrong_targets_are_refused(target: str, out: str, match: str, tmp_path: Path) -> None:
    weights = save(random_model(), tmp_path / "ours")
    with pytest.raises(CheckpointError, match=match):
        convert_weights(weights, target, tmp_path / out)
    with pytest.raises(CheckpointError, match="already exists"):
        convert_weights(weights, "timm", tmp_path / "ours")
    small = save(random_model(stem_stride=2), tmp_path / "small")
    with pytest.raises(CheckpointError, match="stem_stride = 2"):
        convert_weights(small, "official", tmp_path / "y.pt")


def test_capitals_in_a_suffix_make_no_folder(tmp_path: Path) -> None:
    weights = save(random_model(), tmp_path / "ours")
    for target, name in (("timm", "x.PTH"), ("timm", "x.SafeTensors"), ("mindcv", "x.CKPT")):
        convert_weights(weights, target, tmp_path / name, allow_drift=True)
        assert (tmp_path / name).is_file()
        assert open_weights(tmp_path / name).origin.format == target
    with pytest.raises(CheckpointError, match=r"ending in \.safetensors, \.pth, \.pt, for timm"):
        convert_weights(weights, "timm", tmp_path / "y.CKPT")


def test_a_folder_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    convert_weights(save(random_model(), tmp_path / "ours"), "transformers", tmp_path / "shoes-1.0")
    assert (tmp_path / "shoes-1.0" / "config.json").exists()


def test_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    weights = save(random_model(), tmp_path / "ours")
    for out in (tmp_path / "ours" / "model.json" / "x", Path("/proc/x/y"), Path("/proc/x/y.pt")):
        for target in ("official", "convnextv2") if not out.suffix else ("official",):
            with pytest.raises(CheckpointError, match="cannot be written"):
                convert_weights(weights, target, out)


@pytest.mark.parametrize(
    ("target", "out"), [("official", "o.pt"), ("timm", "t.pth"), ("mindcv", "m.safetensors")]
)
def test_a_write_that_fails_leaves_no_file_under_the_name(
    target: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(content: object, file: Path | IO[bytes], **more: object) -> None:
        if isinstance(file, Path | str):
            Path(file).write_bytes(b"half")
        else:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr("convnextv2.weights.safetensors.save_file", full)
    weights = save_in_memory(random_model())
    with pytest.raises(CheckpointError, match="No space left"):
        convert_weights(weights, target, tmp_path / out, allow_drift=True)
    assert not (tmp_path / out).exists()


def save_in_memory(model: ConvNeXtV2) -> Weights:
    description = Description("classifier", "custom", model.arguments)
    return Weights(model.state_dict(), description, Origin("x", "convnextv2", "safetensors", "0"))
