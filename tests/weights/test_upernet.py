"""Segmentors in the files of transformers, MMSegmentation and the official code."""

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from maps import draw_maps
from torch import Tensor
from transformers import (
    ConvNextConfig,
    ConvNextV2Config,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from convnextv2.cli import main
from convnextv2.errors import CheckpointError
from convnextv2.weights.opened import Weights, open_weights
from convnextv2.weights.restore import restore

DEPTHS, DIMS, CLASSES, CHANNELS = [1, 1, 2, 1], [8, 16, 24, 32], 3, 16
PROCESSOR = {
    "image_processor_type": "SegformerImageProcessor",
    "do_reduce_labels": True,
    "size": {"height": 96, "width": 96},
}


def theirs(version: int = 2) -> UperNetForSemanticSegmentation:
    """transformers' network with random parameters and statistics."""
    torch.manual_seed(version)
    kind = ConvNextV2Config if version == 2 else ConvNextConfig
    backbone = kind(
        depths=DEPTHS,
        hidden_sizes=DIMS,
        out_features=[f"stage{i}" for i in (1, 2, 3, 4)],
    )
    names = {0: "wall", 1: "door", 2: "lamp"}
    network = UperNetForSemanticSegmentation(
        UperNetConfig(
            backbone_config=backbone, hidden_size=CHANNELS, id2label=names, num_labels=CLASSES
        )
    )
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.rand_like(tensor) if name.endswith("var") else torch.randn_like(tensor)
            tensor.copy_(drawn + 0.5 if name.endswith("var") else 0.3 * drawn)
    return network.eval()


def in_mmsegmentation(network: UperNetForSemanticSegmentation, block: str) -> dict[str, Tensor]:
    """The tensors as MMSegmentation names them, for its own ConvNeXt or for the official one."""
    depthwise, pointwise = {
        "mmpretrain": ("depthwise_conv", "pointwise_conv"),
        "official": ("dwconv", "pwconv"),
    }[block]
    rules = (
        (r"backbone\.embeddings\.patch_embeddings", "backbone.downsample_layers.0.0"),
        (r"backbone\.embeddings\.layernorm", "backbone.downsample_layers.0.1"),
        (r"encoder\.stages\.(\d)\.downsampling_layer\.", r"downsample_layers.\1."),
        (r"encoder\.stages\.(\d)\.layers\.", r"stages.\1."),
        (r"\.dwconv\.", f".{depthwise}."),
        (r"\.pwconv(\d)\.", rf".{pointwise}\1."),
        (r"(stages.*)\.layernorm\.", r"\1.norm."),
        (r"layer_scale_parameter", "gamma"),
        (r"grn\.weight", "grn.gamma"),
        (r"grn\.bias", "grn.beta"),
        (r"\.batch_norm\.", ".bn."),
        (r"\.classifier\.", ".conv_seg."),
    )
    renamed = {}
    for name, tensor in network.state_dict().items():
        if found := re.match(r"backbone\.hidden_states_norms\.stage(\d)\.(\w+)", name):
            name = f"backbone.norm{int(found[1]) - 1}.{found[2]}"
        for old, new in rules:
            name = re.sub(old, new, name)
        renamed[name] = tensor
    return renamed


def logits_of(opened: Weights, images: Tensor) -> Tensor:
    """Logits at the size of the images."""
    with torch.no_grad():
        return F.interpolate(restore(opened).eval()(images), images.shape[-2:], mode="bilinear")


@pytest.mark.parametrize("version", [1, 2])
def test_a_segmentor_of_transformers_gives_its_logits(tmp_path: Path, version: int) -> None:
    network = theirs(version)
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    opened = open_weights(tmp_path)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = network(images).logits
    assert opened.description.kind == "segmentation"
    assert opened.description.class_names == ["wall", "door", "lamp"]
    assert opened.description.preprocessing["image_size"] == [96, 96]
    assert opened.left_out == []
    assert (logits_of(opened, images) - expected).abs().max() <= 1e-5 * expected.abs().max()
    (ratio,) = [line for line in opened.lines() if "aspect ratio" in line]
    assert ratio and not any("not known" in line for line in opened.lines())


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("block", ["mmpretrain", "official"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_checkpoint_of_mmsegmentation_gives_the_same_logits(
    tmp_path: Path, version: int, block: str, wrapper: str
) -> None:
    network = theirs(version)
    state = {wrapper + name: t for name, t in in_mmsegmentation(network, block).items()}
    torch.save({"meta": {"epoch": 1}, "state_dict": state}, tmp_path / "upernet.pth")
    opened = open_weights(tmp_path / "upernet.pth")
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = network(images).logits
    assert opened.description.head == {"channels": CHANNELS, "norm": "batch", "auxiliary": True}
    assert opened.description.preprocessing["image_size"] == [512, 512]
    assert (logits_of(opened, images) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_another_auxiliary_head_is_left_out_and_named(tmp_path: Path) -> None:
    network = theirs()
    state = in_mmsegmentation(network, "mmpretrain")
    state["auxiliary_head.convs.1.conv.weight"] = torch.zeros(256, 256, 3, 3)
    torch.save(state, tmp_path / "upernet.pth")
    opened = open_weights(tmp_path / "upernet.pth")
    assert opened.description.head["auxiliary"] is False
    assert {reason for _, reason in opened.left_out} == {
        "an auxiliary head of another form, which helps in training only"
    }
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(images).logits
    assert (logits_of(opened, images) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_an_incomplete_head_is_refused(tmp_path: Path) -> None:
    state = in_mmsegmentation(theirs(), "official")
    del state["decode_head.fpn_convs.1.conv.weight"]
    torch.save(state, tmp_path / "upernet.pth")
    with pytest.raises(CheckpointError, match=r"1 tensors are missing: decode_head.fpn_convs.1"):
        open_weights(tmp_path / "upernet.pth")


@pytest.mark.parametrize("block", ["mmpretrain", "official"])
def test_the_encoder_of_another_dense_network_is_taken_without_the_norms_of_its_maps(
    tmp_path: Path, block: str
) -> None:
    """mmpretrain calls the norm before a classifier as MMDetection does that of the last map."""
    state = {
        name: tensor
        for name, tensor in in_mmsegmentation(theirs(), block).items()
        if name.startswith("backbone.")
    }
    state["neck.lateral_convs.0.conv.weight"] = torch.zeros(8, 8, 1, 1)
    torch.save({"state_dict": state}, tmp_path / "detector.pth")
    opened = open_weights(tmp_path / "detector.pth")
    assert opened.description.kind == "encoder"
    assert "norm.weight" not in opened.tensors
    left = dict(opened.left_out)
    assert left["backbone.norm3.weight"] == "norms of a backbone's outputs"
    assert left["neck.lateral_convs.0.conv.weight"] == "beside the network"


def test_such_weights_predict_and_start_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = draw_maps(tmp_path / "data", train=4, val=2), tmp_path / "theirs"
    theirs().save_pretrained(folder)
    images, out = str(data / "images" / "val"), str(tmp_path / "out")
    assert main(["predict", str(folder), images, "--out", out, "--device", "cpu"]) == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) >= 2
    small = "--image_size 64 --batch_size 4 --workers 0 --epochs 1 --device cpu --tensorboard False"
    head = ["--head_channels", str(CHANNELS), "--model", "custom", "--depths", "1,1,2,1"]
    command = ["train", "--task", "segmentation", "--data_dir", str(data), "--init", str(folder)]
    run = ["--dims", "8,16,24,32", "--out", str(tmp_path / "run")]
    assert main([*command, *head, *run, *small.split()]) == 0
    text = capsys.readouterr().out
    assert "conv_seg" in text  # the classes are others, and that is said
    assert not re.search(r"random.*fpn_convs", text)
