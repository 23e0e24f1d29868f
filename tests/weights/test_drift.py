import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models.convnext import checkpoint_filter_fn
from transformers import (
    ConvNextV2Backbone,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
)

from convnextv2.errors import CheckpointError
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.opened import open_weights
from convnextv2.weights.restore import load_model

from .networks import DEPTHS, DIMS, IMAGES, difference, logits, random_model, save


def test_drift_is_measured_and_must_be_allowed(tmp_path: Path) -> None:
    weights = save(random_model(gelu="tanh"), tmp_path / "ours")
    with pytest.raises(
        CheckpointError,
        match=r"gelu exact, not tanh: logits differ by up to .*e-0[2-5]\. Pass --allow-drift",
    ):
        convert_weights(weights, "official", tmp_path / "o.pt")
    assert not (tmp_path / "o.pt").exists()
    lines = convert_weights(weights, "official", tmp_path / "o.pt", allow_drift=True)
    assert "differ" in lines[0]
    convert_weights(weights, "transformers", tmp_path / "hf")  # expresses it
    theirs = ConvNextV2ForImageClassification.from_pretrained(tmp_path / "hf").eval()
    with torch.inference_mode():
        assert (
            difference(
                theirs.double()(IMAGES).logits,
                logits(load_model(tmp_path / "ours/model.safetensors")[0]),
            )
            < 1e-10
        )
    convert_weights(weights, "timm", tmp_path / "timm")
    from_folder = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    assert (
        difference(logits(from_folder), logits(load_model(tmp_path / "ours/model.safetensors")[0]))
        < 1e-10
    )


def test_the_stated_drift_is_what_the_other_library_shows(tmp_path: Path) -> None:
    model = random_model(gelu="tanh")
    lines = convert_weights(
        save(model, tmp_path / "ours", "convnextv2_tiny"),
        "official",
        tmp_path / "o.pt",
        allow_drift=True,
    )
    stated = float(lines[0].split("up to ")[1].split()[0])
    theirs = timm.create_model("convnextv2_tiny", depths=DEPTHS, dims=DIMS, num_classes=5).eval()
    theirs.load_state_dict(
        checkpoint_filter_fn(torch.load(tmp_path / "o.pt", weights_only=True), theirs)
    )
    images = torch.randn(
        4, 3, 128, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    assert difference(logits(theirs, images), logits(model, images)) == pytest.approx(
        stated, rel=0.06
    )


def test_an_epsilon_of_a_norm_that_is_not_there_is_no_drift(tmp_path: Path) -> None:
    backbone = ConvNextV2Backbone(ConvNextV2Config(hidden_sizes=list(DIMS), depths=list(DEPTHS)))
    backbone.save_pretrained(tmp_path / "backbone")
    lines = convert_weights(open_weights(tmp_path / "backbone"), "timm", tmp_path / "timm")
    assert "Left out: hidden_states_norms" in lines[0].replace("convnextv2.", "")


def test_a_drift_below_the_rounding_of_float32_is_a_note(tmp_path: Path) -> None:
    model = random_model(norm_eps=1.000001e-6)
    weights = save(model, tmp_path / "ours")
    lines = convert_weights(weights, "timm", tmp_path / "t.safetensors")
    said = (
        r"norm_eps 1e-06, not 1.000001e-06: logits differ by up to (.*), "
        r"no more than by float32's rounding \((.*)\)"
    )
    found = re.search(said, lines[0])
    assert found, lines
    images = torch.randn(
        4, 3, 128, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    exact = logits(model, images)
    theirs = timm.create_model("convnextv2_tiny", depths=DEPTHS, dims=DIMS, num_classes=5)
    theirs.load_state_dict(load_file(tmp_path / "t.safetensors"))
    drift, rounding = float(found[1]), float(found[2])
    assert difference(logits(theirs.eval(), images), exact) == pytest.approx(drift, rel=0.1)
    assert drift < rounding < 1e-4 * float(exact.abs().max())
    with pytest.raises(CheckpointError, match="Pass --allow-drift"):
        convert_weights(
            save(random_model(norm_eps=1e-3), tmp_path / "far"),
            "timm",
            tmp_path / "far.safetensors",
        )
