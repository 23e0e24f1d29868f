import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models.convnext import checkpoint_filter_fn
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    ConvNextV2Backbone,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    ConvNextV2Model,
)

from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import SIZES, ConvNeXtV2
from convnextv2.model.fcmae import FCMAE
from convnextv2.preprocessing import Preprocessing
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.description import Description
from convnextv2.weights.names import dense_kernel, name_table
from convnextv2.weights.opened import Origin, Weights, open_weights
from convnextv2.weights.restore import load_model
from convnextv2.weights.safetensors import save_weights

DEPTHS, DIMS = (1, 2, 2, 1), (8, 16, 24, 32)
IMAGES = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


IN_TIMM = [size for size in SIZES if size != "convnextv2_xlarge"]


def random_model(**arguments) -> ConvNeXtV2:
    """Every parameter random: zeros in GRN would hide a swap."""
    torch.manual_seed(5)
    model = ConvNeXtV2(DEPTHS, DIMS, **{"num_classes": 5} | arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def save(model: ConvNeXtV2, folder: Path, name: str = "custom", **more) -> Weights:
    """Write our own weights file of a model, under the name of a size.

    The depths and widths may be smaller than those of that size.
    """
    size = [224, 224]
    preprocessing = {
        "image_size": size,
        "channels": model.in_channels,
        "eval_preset": "timm",
        "interpolation": "bicubic",
    }
    preprocessing |= {
        "crop_pct": 0.875,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    save_weights(
        folder,
        model.state_dict(),
        Description("classifier", name, model.arguments, preprocessing=preprocessing, **more),
    )
    return open_weights(folder / "model.safetensors")


def logits(model: torch.nn.Module, images: Tensor = IMAGES) -> Tensor:
    with torch.inference_mode():
        return model.double()(images)


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


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


def test_mmpretrains_and_mindcvs_names_are_as_published() -> None:
    mmpretrain, mindcv = name_table("mmpretrain", (3, 3, 9, 3)), name_table("mindcv", (3, 3, 9, 3))
    assert mmpretrain["downsample_layers.0.0.weight"] == "backbone.downsample_layers.0.0.weight"
    assert mmpretrain["stages.2.8.dwconv.bias"] == "backbone.stages.2.8.depthwise_conv.bias"
    assert mmpretrain["stages.2.8.pwconv2.weight"] == "backbone.stages.2.8.pointwise_conv2.weight"
    assert mmpretrain["stages.0.0.grn.beta"] == "backbone.stages.0.0.grn.beta"
    assert (mmpretrain["norm.weight"], mmpretrain["head.bias"]) == (
        "backbone.norm3.weight",
        "head.fc.bias",
    )
    assert mindcv["downsample_layers.3.0.weight"] == "feature.6.0.gamma"
    assert mindcv["downsample_layers.3.1.weight"] == "feature.6.1.weight"
    assert mindcv["stages.3.2.norm.bias"] == "feature.7.2.norm.beta"
    assert mindcv["stages.3.2.grn.gamma"] == "feature.7.2.grn.gamma"
    assert (mindcv["norm.weight"], mindcv["head.weight"]) == ("norm.gamma", "classifier.weight")


@pytest.mark.parametrize("depthwise", [False, True])
def test_sparse_kernels_against_a_sparse_convolution_in_plain_python(depthwise: bool) -> None:
    """Entry col * k + row of a kernel belongs to the neighbour (row, col) of the k x k window."""
    generator = torch.Generator().manual_seed(0)
    k, inputs, outputs = (7, 4, 4) if depthwise else (2, 3, 5)
    shape = (k * k, outputs) if depthwise else (k * k, inputs, outputs)
    kernel = torch.randn(shape, dtype=torch.float64, generator=generator)
    active = {
        (y, x): torch.randn(inputs, dtype=torch.float64, generator=generator)
        for y, x in [(0, 1), (2, 2), (3, 0), (5, 5)]
    }
    side, stride, start = (6, 1, -(k // 2)) if depthwise else (6, 2, 0)
    dense = torch.zeros(1, inputs, side, side, dtype=torch.float64)
    for (y, x), values in active.items():
        dense[0, :, y, x] = values
    weight = dense_kernel(kernel)
    options = {
        "stride": stride,
        "padding": k // 2 if depthwise else 0,
        "groups": inputs if depthwise else 1,
    }
    result = torch.nn.functional.conv2d(dense, weight, **options)
    for y, x in itertools.product(range(result.shape[2]), range(result.shape[3])):
        expected = torch.zeros(outputs, dtype=torch.float64)
        for row, col in itertools.product(range(k), range(k)):
            values = active.get((y * stride + start + row, x * stride + start + col))
            if values is not None:
                entry = kernel[col * k + row]
                expected += values * entry if depthwise else values @ entry
        assert torch.allclose(result[0, :, y, x], expected, atol=1e-12)


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
    import argparse

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


def test_drift_is_measured_and_must_be_allowed(tmp_path: Path) -> None:
    weights = save(random_model(gelu="tanh"), tmp_path / "ours")
    with pytest.raises(
        CheckpointError,
        match=r"gelu exact, not tanh: logits differ by up to .*e-0[2-5]\. Give --allow-drift",
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
    with pytest.raises(CheckpointError, match="exists already"):
        convert_weights(weights, "timm", tmp_path / "ours")
    small = save(random_model(stem_stride=2), tmp_path / "small")
    with pytest.raises(CheckpointError, match="stem_stride = 2"):
        convert_weights(small, "official", tmp_path / "y.pt")


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


def test_what_an_image_processor_does_otherwise_is_said(tmp_path: Path) -> None:
    weights = save(random_model(), tmp_path / "ours")

    def lines(target: str, out: str, **preprocessing) -> str:
        weights.description.preprocessing.update(preprocessing)
        return " ".join(convert_weights(weights, target, tmp_path / out))

    assert "image processor" not in lines("transformers", "a")
    assert "warps images of 384 px, ours crops" in lines("transformers", "b", image_size=[384, 384])
    assert "image processor" not in lines("transformers", "c", eval_preset="official")
    assert "antialiased" in lines("timm", "d", eval_preset="mindcv")
    assert "are not part of this file" in lines("timm", "e.safetensors")


def test_an_epsilon_of_a_norm_that_is_not_there_is_no_drift(tmp_path: Path) -> None:
    backbone = ConvNextV2Backbone(ConvNextV2Config(hidden_sizes=list(DIMS), depths=list(DEPTHS)))
    backbone.save_pretrained(tmp_path / "backbone")
    lines = convert_weights(open_weights(tmp_path / "backbone"), "timm", tmp_path / "timm")
    assert "Left out: hidden_states_norms" in lines[0].replace("convnextv2.", "")


def test_a_folder_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    convert_weights(save(random_model(), tmp_path / "ours"), "transformers", tmp_path / "shoes-1.0")
    assert (tmp_path / "shoes-1.0" / "config.json").exists()


def test_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    weights = save(random_model(), tmp_path / "ours")
    for out in (tmp_path / "ours" / "model.json" / "x", Path("/proc/x/y"), Path("/proc/x/y.pt")):
        for target in ("official", "convnextv2") if not out.suffix else ("official",):
            with pytest.raises(CheckpointError, match="cannot be written"):
                convert_weights(weights, target, out)


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
    assert "same name" in lines[0]
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["label2id"] == {"crane (0)": 0, "owl": 1, "crane (2)": 2, "a": 3, "b": 4}


def test_rounding_to_float32_is_said(tmp_path: Path) -> None:
    torch.save(random_model().double().state_dict(), tmp_path / "x.pt")
    assert any(
        "float64" in line
        for line in convert_weights(open_weights(tmp_path / "x.pt"), "timm", tmp_path / "t.pth")
    )


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


def test_what_other_libraries_cannot_say_of_values_is_told(tmp_path: Path) -> None:
    weights = save(random_model(), tmp_path / "ours")
    ranged = replace(
        weights,
        description=replace(
            weights.description,
            preprocessing=weights.description.preprocessing | {"value_range": [0.0, 4000.0]},
        ),
    )
    for target, format in (("timm", "timm"), ("transformers", "transformers")):
        lines = convert_weights(ranged, target, tmp_path / target, allow_drift=True)
        assert any(
            format in line.lower() and "0 to 4000 must be made 0 to 255" in line for line in lines
        )
    assert not any(
        "range of values" in line
        for line in convert_weights(weights, "timm", tmp_path / "plain", allow_drift=True)
    )
    convert_weights(ranged, "official", tmp_path / "official", allow_drift=True)
    assert open_weights(tmp_path / "official").description.preprocessing["value_range"] == [
        0.0,
        4000.0,
    ]


def test_a_drift_below_the_rounding_of_float32_is_a_note(tmp_path: Path) -> None:
    model = random_model(norm_eps=1.000001e-6)
    weights = save(model, tmp_path / "ours")
    lines = convert_weights(weights, "timm", tmp_path / "t.safetensors")
    said = (
        r"norm_eps 1e-06, not 1.000001e-06: logits differ by up to (.*), "
        r"less than by float32's rounding \((.*)\)"
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
    with pytest.raises(CheckpointError, match="Give --allow-drift"):
        convert_weights(
            save(random_model(norm_eps=1e-3), tmp_path / "far"),
            "timm",
            tmp_path / "far.safetensors",
        )


@pytest.mark.parametrize(
    ("preset", "antialias", "is_told"),
    [("timm", None, False), ("mindcv", None, True), ("mindcv", True, False), ("timm", False, True)],
)
def test_images_that_were_not_antialiased_are_told_and_others_are_not(
    preset: str, antialias: bool | None, is_told: bool, tmp_path: Path
) -> None:
    weights = save(random_model(), tmp_path / "ours")
    how = Preprocessing((64, 64), eval_preset=preset, antialias=antialias).to_json()
    weights.description.preprocessing.update(how)
    lines = convert_weights(weights, "timm", tmp_path / "timm")
    assert any("antialiased when they are shrunk" in line for line in lines) == is_told
