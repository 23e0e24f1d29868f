"""The three forms of a block: each keeps its outputs in files, and each can start from another."""

from pathlib import Path

import pytest
import timm
import torch

from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.weights.adapt import load_encoder
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.description import Description
from convnextv2.weights.opened import Weights, open_weights
from convnextv2.weights.restore import restore
from convnextv2.weights.safetensors import save_weights

from .first_versions import DEPTHS, DIMS, outputs, randomised

FORMS = ("v2", "v2_without_grn", "v1")


def of_form(block: str, *, trained_grn: bool = True, **arguments) -> ConvNeXtV2:
    model = randomised(ConvNeXtV2(DEPTHS, DIMS, num_classes=5, block=block, **arguments))
    if not trained_grn:
        for name, parameter in model.named_parameters():
            if ".grn." in name:
                torch.nn.init.zeros_(parameter)
    return model


def save_ours(model: ConvNeXtV2, folder: Path) -> Weights:
    save_weights(folder, model.state_dict(), Description("classifier", "custom", model.arguments))
    return open_weights(folder)


@pytest.mark.parametrize("block", FORMS)
def test_our_own_files_keep_the_form_of_the_blocks(block: str, tmp_path: Path) -> None:
    model = of_form(block)
    weights = save_ours(model, tmp_path / "ours")
    assert weights.description.arguments.get("block", "v2") == block
    # Versions that know one form only can read every file that has no other.
    assert ("block" in weights.description.arguments) == (block != "v2")
    assert torch.equal(outputs(restore(weights)), outputs(model))


@pytest.mark.parametrize("block", ["v2_without_grn", "v1"])
@pytest.mark.parametrize(
    ("target", "architecture"), [("timm", "convnextv2_tiny"), ("timm-v1", "convnext_tiny")]
)
def test_every_form_is_written_for_both_versions_of_a_library(
    block: str, target: str, architecture: str, tmp_path: Path
) -> None:
    model = of_form(block)
    lines = convert_weights(save_ours(model, tmp_path / "ours"), target, tmp_path / "theirs")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'theirs'}", pretrained=True)
    assert theirs.default_cfg["architecture"] == architecture
    assert any("layer scale" in line or "GRN" in line for line in lines) == (
        (block, target) != ("v1", "timm-v1")
    )
    # The file is float32, and float64 weights are rounded once.
    assert (outputs(theirs) - outputs(model)).abs().max() < 1e-5


@pytest.mark.parametrize("block", FORMS)
@pytest.mark.parametrize("wanted", FORMS)
def test_a_model_of_another_form_starts_with_the_same_outputs(block: str, wanted: str) -> None:
    source, model = of_form(block, trained_grn=False), of_form(wanted)
    report = load_encoder(model, source.state_dict(), source="x")
    assert (outputs(model) - outputs(source)).abs().max() < 1e-6
    assert not report.fresh
    told = "\n".join(report.lines())
    if block != wanted:
        assert report.adapted or report.left_out
    assert "differ" not in told
    named = [*report.loaded, *(name for name, _ in report.adapted)]
    assert sorted(named) == sorted(model.state_dict())


@pytest.mark.parametrize("wanted", ["v2_without_grn", "v1"])
def test_a_grn_that_is_left_out_is_said_to_change_the_features(wanted: str) -> None:
    source, model = of_form("v2"), of_form(wanted)
    told = "\n".join(load_encoder(model, source.state_dict(), source="x").lines())
    assert f"block = {wanted} has no GRN, so the features will differ" in told
    assert (outputs(model) - outputs(source)).abs().max() > 1e-3
