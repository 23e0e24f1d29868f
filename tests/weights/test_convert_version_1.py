"""Networks whose GRN has not learned are written as weights of the first ConvNeXt."""

from pathlib import Path

import pytest
import timm
import torch
from transformers import AutoModel, ConvNextForImageClassification, DINOv3ConvNextModel

from convnextv2.errors import CheckpointError
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.description import Description
from convnextv2.weights.opened import open_weights
from convnextv2.weights.safetensors import save_weights

from .first_versions import MODELS, Official, outputs, untrained_grn


@pytest.mark.parametrize("size", ["custom", "convnextv2_atto", "convnextv2_xlarge"])
def test_timm_reads_first_versions_written_for_it(size: str, tmp_path: Path) -> None:
    model, weights = untrained_grn(tmp_path / "ours", size, gelu="tanh")
    convert_weights(weights, "timm-v1", tmp_path / "timm")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    assert "grn" not in " ".join(theirs.state_dict())
    assert (outputs(theirs) - outputs(model)).abs().max() < 1e-10


def test_torchvision_and_the_official_code_read_first_versions(tmp_path: Path) -> None:
    model, weights = untrained_grn(tmp_path / "ours")
    for target, theirs in (
        ("torchvision-v1", MODELS["torchvision-v1"]()),
        ("official-v1", Official(5)),
    ):
        convert_weights(weights, target, tmp_path / f"{target}.pth")
        state = torch.load(tmp_path / f"{target}.pth", weights_only=True)
        theirs.load_state_dict(state["model"] if target == "official-v1" else state)
        assert (outputs(theirs) - outputs(model)).abs().max() < 1e-10


def test_transformers_reads_first_versions(tmp_path: Path) -> None:
    model, weights = untrained_grn(tmp_path / "ours", norm_eps=1e-5)
    convert_weights(weights, "transformers-v1", tmp_path / "hf")
    theirs = ConvNextForImageClassification.from_pretrained(tmp_path / "hf")
    assert (outputs(theirs) - outputs(model)).abs().max() < 1e-10

    model, weights = untrained_grn(tmp_path / "dino", norm_eps=1e-5, inner_eps=1e-5)
    lines = convert_weights(weights, "dinov3-v1", tmp_path / "dinov3")
    assert any("the head is left out" in line for line in lines)
    theirs = AutoModel.from_pretrained(tmp_path / "dinov3")
    assert isinstance(theirs, DINOv3ConvNextModel)
    model.head = None
    assert (outputs(theirs) - outputs(model)).abs().max() < 1e-10


@pytest.mark.parametrize("target", ["official-v1", "timm-v1", "mmpretrain-v1", "torchvision-v1"])
def test_a_first_version_comes_back_bit_for_bit(target: str, tmp_path: Path) -> None:
    model, weights = untrained_grn(tmp_path / "ours")
    convert_weights(weights, target, tmp_path / "x.pth")
    back = open_weights(tmp_path / "x.pth")
    assert back.origin.format == target
    assert all(torch.equal(back.tensors[n], tensor) for n, tensor in model.state_dict().items())


def test_a_grn_that_has_learned_has_no_way_back(tmp_path: Path) -> None:
    model, _ = untrained_grn(tmp_path / "ours")
    model.stages[1][0].grn.beta.data[3] = 1e-3
    description = Description("classifier", "custom", model.arguments)
    save_weights(tmp_path / "learned", model.state_dict(), description)
    learned = open_weights(tmp_path / "learned" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"to = timm-v1: GRN is not zero \(1 tensors"):
        convert_weights(learned, "timm-v1", tmp_path / "out")
    assert not (tmp_path / "out").exists()
