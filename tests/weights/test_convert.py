"""Other libraries read what is written for them."""

import json
from pathlib import Path

import pytest
import timm
import torch
from timm.models.convnext import checkpoint_filter_fn
from transformers import (
    AutoImageProcessor,
    ConvNextV2ForImageClassification,
)

from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import SIZES, ConvNeXtV2
from convnextv2.model.fcmae import FCMAE
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.description import Description
from convnextv2.weights.names import name_table
from convnextv2.weights.opened import open_weights
from convnextv2.weights.safetensors import save_weights

from .networks import DEPTHS, DIMS, IMAGES, IN_TIMM, difference, logits, random_model, save


@pytest.mark.parametrize("size", IN_TIMM)
def test_timm_reads_what_is_written_for_it(size: str, tmp_path: Path) -> None:
    model = random_model()
    weights = save(model, tmp_path / "ours", size)
    convert_weights(weights, "timm", tmp_path / "timm.safetensors")
    shape = {"depths": DEPTHS, "dims": DIMS, "num_classes": 5}
    theirs = timm.create_model(
        size, checkpoint_path=str(tmp_path / "timm.safetensors"), **shape
    ).eval()
    assert difference(logits(theirs), logits(model)) < 1e-10
    convert_weights(weights, "timm", tmp_path / "folder")
    from_folder = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    assert difference(logits(from_folder), logits(model)) < 1e-10


@pytest.mark.parametrize("size", SIZES)
def test_transformers_reads_what_is_written_for_it(size: str, tmp_path: Path) -> None:
    model = random_model()
    names = ["a", "b", "c", "d", "e"]
    convert_weights(
        save(model, tmp_path / "ours", size, class_names=names), "transformers", tmp_path / "hf"
    )
    theirs = ConvNextV2ForImageClassification.from_pretrained(tmp_path / "hf").eval()
    with torch.inference_mode():
        assert difference(theirs.double()(IMAGES).logits, logits(model)) < 1e-10
    assert theirs.config.id2label == dict(enumerate(names))
    processor = AutoImageProcessor.from_pretrained(tmp_path / "hf")
    assert processor.size["shortest_edge"] == 224 and list(processor.image_mean) == [
        0.485,
        0.456,
        0.406,
    ]


@pytest.mark.parametrize("size", IN_TIMM)
def test_timms_own_reader_of_official_files_accepts_ours(size: str, tmp_path: Path) -> None:
    model = random_model()
    convert_weights(save(model, tmp_path / "ours", size), "official", tmp_path / "official.pt")
    theirs = timm.create_model(size, depths=DEPTHS, dims=DIMS, num_classes=5).eval()
    state = torch.load(tmp_path / "official.pt", weights_only=True)
    assert all(state["model"][name].dim() == 4 for name in state["model"] if ".grn." in name)
    theirs.load_state_dict(checkpoint_filter_fn(state, theirs))
    assert difference(logits(theirs), logits(model)) < 1e-10


def test_round_trips_are_bitwise_equal(tmp_path: Path) -> None:
    original = random_model().state_dict()
    table = name_table("official", DEPTHS)
    shaped = {table[n]: t.reshape(1, 1, 1, -1) if ".grn." in n else t for n, t in original.items()}
    torch.save({"model": shaped}, tmp_path / "official.pt")
    convert_weights(open_weights(tmp_path / "official.pt"), "convnextv2", tmp_path / "ours")
    targets = {
        "official": ["o.pt", "o.safetensors", "o"],
        "timm": ["t.safetensors", "t.pth", "t"],
        "transformers": ["h.bin", "h"],
        "mmpretrain": ["m.pth", "m"],
        "mindcv": ["c.ckpt", "c.safetensors"],
    }
    for target, outs in targets.items():
        for out in outs:
            convert_weights(
                open_weights(tmp_path / "ours" / "model.safetensors"),
                target,
                tmp_path / out,
                allow_drift=True,
            )
            back = open_weights(tmp_path / out)
            assert back.origin.format == target
            assert back.tensors.keys() == original.keys()
            assert all(
                torch.equal(back.tensors[name], tensor) for name, tensor in original.items()
            ), (target, out)
    there_and_back = torch.load(tmp_path / "o.pt", weights_only=True)["model"]
    assert all(torch.equal(there_and_back[name], tensor) for name, tensor in shaped.items())


def test_a_pretrained_encoder_goes_out_without_its_decoder(tmp_path: Path) -> None:
    encoder = random_model(num_classes=None)
    model = FCMAE(encoder, decoder_dim=8)
    save_weights(
        tmp_path / "ours",
        model.state_dict(),
        Description("fcmae", "custom", encoder.arguments, model.arguments),
    )
    lines = convert_weights(
        open_weights(tmp_path / "ours" / "model.safetensors"), "timm", tmp_path / "t.safetensors"
    )
    assert "decoder" in lines[0]
    back = open_weights(tmp_path / "t.safetensors")
    assert all(
        torch.equal(back.tensors[name], tensor) for name, tensor in encoder.state_dict().items()
    )


def test_a_headless_encoder_is_read_by_timm(tmp_path: Path) -> None:
    model = random_model(num_classes=None)
    save_weights(
        tmp_path / "ours", model.state_dict(), Description("encoder", "custom", model.arguments)
    )
    convert_weights(
        open_weights(tmp_path / "ours" / "model.safetensors"), "timm", tmp_path / "timm"
    )
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    with torch.inference_mode():
        features = theirs.double().forward_features(IMAGES)
    assert difference(features, logits(model)) < 1e-10


@pytest.mark.parametrize("stride", [1, 2])
def test_small_stems_go_only_where_they_can_be_built(stride: int, tmp_path: Path) -> None:
    model = random_model(stem_stride=stride)
    weights = save(model, tmp_path / "ours")
    convert_weights(weights, "transformers", tmp_path / "hf")
    theirs = ConvNextV2ForImageClassification.from_pretrained(tmp_path / "hf").eval()
    with torch.inference_mode():
        assert difference(theirs.double()(IMAGES).logits, logits(model)) < 1e-10
    if stride == 2:
        with pytest.raises(
            CheckpointError, match=r"timm cannot build it\. Convert to transformers\.$"
        ):
            convert_weights(weights, "timm", tmp_path / "timm")
        with pytest.raises(CheckpointError, match=r"Convert to transformers\.$"):
            convert_weights(weights, "official", tmp_path / "o.pt")
        return
    convert_weights(weights, "timm", tmp_path / "timm")
    from_folder = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    assert difference(logits(from_folder), logits(model)) < 1e-10


def test_a_custom_model_of_a_known_size_has_timms_shapes(tmp_path: Path) -> None:
    depths, dims = SIZES["convnextv2_atto"]
    model = ConvNeXtV2(depths, dims, num_classes=5).eval()
    convert_weights(save(model, tmp_path / "ours", "custom"), "timm", tmp_path / "timm.safetensors")
    theirs = timm.create_model(
        "convnextv2_atto", num_classes=5, checkpoint_path=str(tmp_path / "timm.safetensors")
    ).eval()
    assert difference(logits(theirs), logits(model)) < 1e-10


def test_classes_of_one_name_stay_apart_in_label2id(tmp_path: Path) -> None:
    weights = save(
        random_model(), tmp_path / "ours", class_names=["crane", "owl", "crane", "a", "b"]
    )
    lines = convert_weights(weights, "transformers", tmp_path / "hf")
    assert "share a name" in lines[0]
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["label2id"] == {"crane (0)": 0, "owl": 1, "crane (2)": 2, "a": 3, "b": 4}


def test_rounding_to_float32_is_said(tmp_path: Path) -> None:
    torch.save(random_model().double().state_dict(), tmp_path / "x.pt")
    assert any(
        "float64" in line
        for line in convert_weights(open_weights(tmp_path / "x.pt"), "timm", tmp_path / "t.pth")
    )
