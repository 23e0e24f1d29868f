"""Weights of other libraries give the logits that these compute themselves."""

import argparse
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor
from transformers import (
    ConvNextV2Backbone,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    ConvNextV2Model,
)

from convnextv2.errors import CheckpointError
from convnextv2.model.fcmae import FCMAE
from convnextv2.weights.opened import open_weights
from convnextv2.weights.restore import load_model

from .networks import DEPTHS, DIMS, IMAGES, IN_TIMM, difference, logits, random_model


@pytest.mark.parametrize("size", IN_TIMM)
def test_timms_checkpoints_are_read(size: str, tmp_path: Path) -> None:
    theirs = timm.create_model(size, depths=DEPTHS, dims=DIMS, num_classes=5).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    torch.save(
        {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()},
        tmp_path / "timm.pth",
    )
    ours, description = load_model(tmp_path / "timm.pth")
    assert (description.kind, description.provenance["format"]) == ("classifier", "timm")
    assert difference(logits(ours), logits(theirs)) < 1e-10


@pytest.mark.parametrize("layer_norm_eps", [1e-12, 1e-3])
def test_transformers_checkpoints_are_read_with_their_epsilon(
    layer_norm_eps: float, tmp_path: Path
) -> None:
    config = ConvNextV2Config(
        hidden_sizes=list(DIMS), depths=list(DEPTHS), num_labels=5, layer_norm_eps=layer_norm_eps
    )
    theirs = ConvNextV2ForImageClassification(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    for folder in ("whole", "sharded"):
        ours, description = load_model(tmp_path / folder)
        assert description.arguments["norm_eps"] == layer_norm_eps
        with torch.inference_mode():
            assert difference(logits(ours), theirs.double()(IMAGES).logits) < 1e-10
    # A bare file says nothing of the epsilon: the library's default holds.
    bare = open_weights(tmp_path / "whole" / "model.safetensors")
    assert bare.description.arguments["norm_eps"] == 1e-12


def test_transformers_without_a_head_and_backbone_are_read(tmp_path: Path) -> None:
    config = ConvNextV2Config(
        hidden_sizes=list(DIMS), depths=list(DEPTHS), out_features=["stage1", "stage4"]
    )
    pooled, backbone = ConvNextV2Model(config).eval(), ConvNextV2Backbone(config).eval()
    for theirs in (pooled, backbone):
        for parameter in theirs.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    pooled.save_pretrained(tmp_path / "pooled")
    backbone.save_pretrained(tmp_path / "backbone")
    ours, description = load_model(tmp_path / "pooled")
    assert description.kind == "encoder"
    with torch.inference_mode():
        assert difference(logits(ours), pooled.double()(IMAGES).pooler_output) < 1e-10
    weights = open_weights(tmp_path / "backbone")
    assert {why for _, why in weights.left_out} == {"norms of a backbone's outputs"}
    assert weights.description.arguments["num_classes"] is None


def test_headless_fcmae_files_of_timm_are_encoders(tmp_path: Path) -> None:
    theirs = timm.create_model("convnextv2_atto", depths=DEPTHS, dims=DIMS, num_classes=0).eval()
    state = {
        name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("head.")
    }
    torch.save(state, tmp_path / "fcmae.pth")
    weights = open_weights(tmp_path / "fcmae.pth")
    assert (weights.description.kind, weights.description.arguments["num_classes"]) == (
        "encoder",
        None,
    )


def sparse_checkpoint(model: FCMAE) -> dict[str, Tensor]:
    """Make what the official pre-training saves of a model.

    This is utils.py:545-578 read backwards, written out by hand.
    """

    def kernel(weight: Tensor) -> Tensor:
        o, i, k, _ = weight.shape
        if i == 1:
            return torch.stack([weight[:, 0, n % k, n // k] for n in range(k * k)])
        return torch.stack([weight[:, :, n % k, n // k].T for n in range(k * k)])

    tensors = {}
    for name, tensor in model.state_dict().items():
        inside, down = (
            name.startswith("encoder.stages."),
            name.startswith("encoder.downsample_layers."),
        )
        if name == "mask_token":
            tensor = tensor.reshape(1, -1, 1, 1)
        elif inside or (down and ".0." not in name[:28]):
            if name.endswith("dwconv.weight") or (down and name.endswith(".1.weight")):
                name, tensor = name.removesuffix("weight") + "kernel", kernel(tensor)
            elif name.endswith((".dwconv.bias", ".1.bias")) and ".pwconv" not in name:
                tensor = tensor[None]
            elif ".grn." in name:
                tensor = tensor[None]
            elif ".norm." in name or down:
                name = name.replace(".weight", ".ln.weight").replace(".bias", ".ln.bias")
            elif ".pwconv" in name:
                name = name.replace(".weight", ".linear.weight").replace(".bias", ".linear.bias")
        tensors[name] = tensor
    return tensors


def test_an_official_pretraining_checkpoint_becomes_a_whole_fcmae(tmp_path: Path) -> None:
    model = FCMAE(random_model(num_classes=None), decoder_dim=12)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tensors = sparse_checkpoint(model)
    assert (
        "encoder.downsample_layers.2.1.kernel" in tensors
        and "encoder.downsample_layers.0.0.weight" in tensors
    )
    torch.save(
        {"model": tensors, "epoch": 3, "args": argparse.Namespace(lr=1.0)},
        tmp_path / "checkpoint-3.pth",
    )
    loaded, description = load_model(tmp_path / "checkpoint-3.pth")
    assert (description.kind, description.fcmae["decoder_dim"]) == ("fcmae", 12)
    assert all(
        torch.equal(tensor, loaded.state_dict()[name])
        for name, tensor in model.state_dict().items()
    )
    encoder_only = {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
    torch.save(encoder_only, tmp_path / "encoder.pth")
    assert open_weights(tmp_path / "encoder.pth").description.kind == "encoder"


def test_every_missing_unexpected_or_misshaped_tensor_is_an_error(tmp_path: Path) -> None:
    whole = random_model().state_dict()
    path = tmp_path / "x.pt"

    def refused(tensors: dict[str, Tensor], match: str) -> None:
        torch.save(tensors, path)
        with pytest.raises(CheckpointError, match=match):
            open_weights(path)

    refused(
        {k: v for k, v in whole.items() if k != "stages.1.1.grn.beta"},
        r"1 tensors are missing: stages\.1\.1\.grn\.beta",
    )
    refused({k: v for k, v in whole.items() if k != "norm.bias"}, r"norm\.bias")
    refused(whole | {"stages.0.0.extra": torch.zeros(1)}, r"stages\.0\.0\.extra")
    refused(
        whole | {"stages.0.0.pwconv1.weight": torch.zeros(3, 3)}, r"pwconv1\.weight is \(3, 3\)"
    )
    refused(whole | {"head.weight": torch.zeros(5, 32, dtype=torch.int64)}, "int64")
    refused(
        {k: v for k, v in whole.items() if not k.startswith("stages.2.")},
        "stage 3 of 4 has no blocks",
    )
    refused({"a": torch.zeros(2)}, "not a ConvNeXt of any known format")
