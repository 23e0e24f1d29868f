"""Licence and origin travel with weights from format to format."""

import json
from pathlib import Path

import pytest
import torch

from convnextv2.weights.convert import convert_weights
from convnextv2.weights.opened import open_weights

from .networks import random_model, save


def test_licence_and_origin_travel_with_converted_weights(tmp_path: Path) -> None:
    save(random_model(), tmp_path / "ours")
    convert_weights(open_weights(tmp_path / "ours/model.safetensors"), "timm", tmp_path / "timm")
    (tmp_path / "timm" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A card\n")
    opened = open_weights(tmp_path / "timm")
    assert "cc-by-nc-4.0" in opened.origin.notice
    convert_weights(opened, "convnextv2", tmp_path / "again")
    again = open_weights(tmp_path / "again" / "model.safetensors")
    assert "cc-by-nc-4.0" in again.origin.notice
    assert again.description.provenance["sha256"] == opened.origin.sha256
    assert (
        json.loads((tmp_path / "again" / "model.json").read_text())["provenance"]["format"]
        == "timm"
    )


@pytest.mark.parametrize(
    ("target", "out"),
    [
        ("mindcv", "c.ckpt"),
        ("mindcv", "c.safetensors"),
        ("timm", "t.pth"),
        ("timm", "t.safetensors"),
        ("timm", "t"),
        ("transformers", "h.bin"),
        ("transformers", "h"),
        ("official", "o.pt"),
        ("mmpretrain", "m.pth"),
        ("convnextv2", "ours"),
    ],
)
def test_the_notice_and_the_first_file_travel_through_every_format(
    target: str, out: str, tmp_path: Path
) -> None:
    torch.save({"model": random_model().state_dict()}, tmp_path / "official.pt")
    first = open_weights(tmp_path / "official.pt")
    convert_weights(first, target, tmp_path / out, allow_drift=True)
    path = tmp_path / out / "model.safetensors" if target == "convnextv2" else tmp_path / out
    back = open_weights(path)
    assert back.origin.notice == first.origin.notice and "CC-BY-NC" in back.origin.notice
    convert_weights(back, "official", tmp_path / "again.pt", allow_drift=True)
    told = open_weights(tmp_path / "again.pt").description.provenance
    assert (told["source_format"], told["source_sha256"]) == ("official", first.origin.sha256)


def test_folders_state_the_licence_and_own_weights_get_none(tmp_path: Path) -> None:
    torch.save({"model": random_model().state_dict()}, tmp_path / "official.pt")
    for target in ("timm", "transformers", "official", "mmpretrain"):
        convert_weights(open_weights(tmp_path / "official.pt"), target, tmp_path / target)
        assert "license: other" in (tmp_path / target / "README.md").read_text()
    assert (
        json.loads((tmp_path / "timm" / "config.json").read_text())["pretrained_cfg"]["license"]
        == "other"
    )
    (tmp_path / "timm" / "README.md").write_text("---\nlicense: mit\n---\n")
    convert_weights(open_weights(tmp_path / "timm"), "transformers", tmp_path / "mit")
    assert "license: mit" in (tmp_path / "mit" / "README.md").read_text()
    convert_weights(save(random_model(), tmp_path / "ours"), "timm", tmp_path / "own")
    assert (
        not (tmp_path / "own" / "README.md").exists()
        and not open_weights(tmp_path / "own").origin.notice
    )
