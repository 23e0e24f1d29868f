"""Weights of the first ConvNeXt are starts: each library's own network gives the same outputs."""

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from convnextv2.errors import CheckpointError
from convnextv2.weights.opened import open_weights
from convnextv2.weights.restore import restore

from .first_versions import (
    DEPTHS,
    DIMS,
    IMAGES,
    MODELS,
    Official,
    hub_folder,
    ours,
    outputs,
    randomised,
    save,
    timm_model,
)


@pytest.mark.parametrize("name", MODELS)
def test_a_first_version_gives_its_own_librarys_outputs(name: str, tmp_path: Path) -> None:
    theirs = randomised(MODELS[name]())
    path = save(theirs, tmp_path / "v1.pth")
    if hasattr(theirs, "config"):  # without it, transformers' default epsilon is assumed
        path = hub_folder(tmp_path / "hub", theirs, theirs.config.to_dict())
    weights = open_weights(path)
    assert weights.origin.format == name.split(",")[0]
    difference = (outputs(theirs) - outputs(ours(weights))).abs().max()
    # 1e-10 is what float64 allows; the observed difference is of the order of 1e-15.
    assert difference < 1e-10
    told = " ".join(weights.lines())
    assert "first version" in told and "changes no output" in told


@pytest.mark.parametrize("wrapper", ["module.", "visual.trunk.", "model_ema.module."])
def test_wrapped_first_versions_are_found(wrapper: str, tmp_path: Path) -> None:
    theirs = randomised(timm_model(num_classes=0))
    state = {wrapper + name: tensor for name, tensor in theirs.state_dict().items()}
    text = {"transformer.resblocks.0.ln_1.weight": torch.ones(3), "logit_scale": torch.ones(())}
    torch.save(state | text, tmp_path / "v1.pth")
    weights = open_weights(tmp_path / "v1.pth")
    assert weights.description.kind == "encoder"
    assert (outputs(theirs) - outputs(ours(weights))).abs().max() < 1e-10
    clip = weights.description.preprocessing["mean"][0] == 0.48145466
    assert clip == (wrapper == "visual.trunk.")


def test_layer_scales_are_folded_in_float64_and_kept_in_float32(tmp_path: Path) -> None:
    theirs = randomised(timm_model()).half()
    for name, parameter in theirs.named_parameters():
        if name.endswith(".gamma"):
            parameter.data.fill_(1e-6)  # times a weight of 0.05, this is 0 in float16
    weights = open_weights(save(theirs, tmp_path / "half.pth"))
    state = theirs.state_dict()
    folded = weights.tensors["stages.0.0.pwconv2.weight"]
    by_hand = (
        state["stages.0.blocks.0.gamma"].double()[:, None]
        * state["stages.0.blocks.0.mlp.fc2.weight"].double()
    )
    assert folded.dtype == torch.float32 and torch.equal(folded, by_hand.float())
    assert (folded == 0).float().mean() < 0.01 < (folded.half() == 0).float().mean()


def test_epsilons_of_other_networks_are_kept(tmp_path: Path) -> None:
    theirs = randomised(timm_model("test_convnext", depths=DEPTHS, dims=DIMS))
    config = {"architecture": "test_convnext", "num_classes": 5}
    weights = open_weights(hub_folder(tmp_path / "hub", theirs, config))
    assert weights.description.arguments["inner_eps"] == 1e-5
    assert weights.description.arguments["gelu"] == "tanh"
    assert (outputs(theirs) - outputs(ours(weights))).abs().max() < 1e-10

    xxlarge = {"depths": (3, 4, 30, 3), "dims": (4, 8, 12, 16)}
    theirs = randomised(timm_model("convnext_xxlarge", **xxlarge))
    weights = open_weights(save(theirs, tmp_path / "xxlarge.pth"))
    assert (outputs(theirs) - outputs(ours(weights))).abs().max() < 1e-10


def test_heads_that_are_no_classifiers_are_left_out(tmp_path: Path) -> None:
    theirs = randomised(timm_model("convnext_large_mlp"))
    weights = open_weights(save(theirs, tmp_path / "mlp.pth"))
    assert dict(weights.left_out)["head.fc.weight"].startswith("a head with a hidden layer")
    with torch.inference_mode():
        pooled = theirs.head.norm(theirs.head.global_pool(theirs.forward_features(IMAGES)))
    assert (pooled.flatten(1) - outputs(ours(weights))).abs().max() < 1e-10

    tower = randomised(timm_model())
    for tag, kind in (("clip_laion2b", "encoder"), ("clip_laion2b_augreg_ft_in1k", "classifier")):
        prepared = {"tag": tag, "input_size": [3, 256, 256], "crop_pct": 1.0, "mean": [0.5] * 3}
        prepared |= {"std": [0.5] * 3, "interpolation": "bicubic", "num_classes": 5}
        config = {"architecture": "convnext_base", "pretrained_cfg": prepared}
        weights = open_weights(hub_folder(tmp_path / tag, tower, config))
        assert weights.description.kind == kind
        assert weights.description.preprocessing["image_size"] == [256, 256]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("convnext_atto_ols", {}, "overlapping"),
        ("convnext_tiny_hnf", {}, "normalises before it pools"),
        ("convnext_atto_rms", {}, "no bias"),
        ("convnext_tiny", {"kernel_sizes": (7, 5, 5, 3)}, "depthwise kernels of 5 x 5"),
        ("convnext_tiny", {"patch_size": 2}, "first stage downsamples"),
        ("convnext_tiny", {"use_grn": True}, "both GRN and a layer scale"),
    ],
)
def test_other_networks_called_convnext_are_refused(
    name: str, arguments: dict, message: str, tmp_path: Path
) -> None:
    theirs = timm_model(name, **arguments)
    with pytest.raises(CheckpointError, match=message):
        open_weights(save(theirs, tmp_path / "other.pth"))


def test_networks_of_other_families_are_no_convnext(tmp_path: Path) -> None:
    vgg = torchvision.models.vgg11(num_classes=2, init_weights=False)
    vgg.classifier = nn.Identity()
    with pytest.raises(CheckpointError, match="not a ConvNeXt of any known format"):
        open_weights(save(vgg, tmp_path / "vgg.pth"))


def test_a_layer_scale_that_is_missing_in_a_block_is_named(tmp_path: Path) -> None:
    state = timm_model().state_dict()
    del state["stages.1.blocks.1.gamma"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match=r"1 of 5 blocks have no layer scale: stages\.1\.1"):
        open_weights(tmp_path / "cut.pth")


def test_grn_learns_from_the_first_step_on(tmp_path: Path) -> None:
    model = restore(open_weights(save(randomised(timm_model()), tmp_path / "v1.pth"))).double()
    model.train()(IMAGES).square().mean().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if ".grn." in n}
    assert len(gradients) == 2 * sum(DEPTHS)
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("apache-2.0", "its model card says apache-2.0."),
        ("other\nlicense_name: dinov3-license", "allows commercial use, but the agreement"),
        ("CC-BY-NC-4.0", "no commercial use"),
        ("other\nlicense_name: fair-noncommercial-research-license", "no commercial use"),
    ],
)
def test_licences_of_first_versions_travel(licence: str, said: str, tmp_path: Path) -> None:
    theirs = timm_model(num_classes=0)
    folder = hub_folder(tmp_path / "hub", theirs, {"architecture": "convnext_tiny"})
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    notice = open_weights(folder).origin.notice
    assert said in notice and "Meta's released ConvNeXt V2" not in notice


def test_layouts_of_dinov3_say_so(tmp_path: Path) -> None:
    theirs = Official(0)
    state = copy.deepcopy(theirs.state_dict())
    state |= {f"norms.3.{name}": state[f"norm.{name}"] for name in ("weight", "bias")}
    torch.save(state, tmp_path / "dinov3.pth")
    weights = open_weights(tmp_path / "dinov3.pth")
    assert "EUPE's licence is for research only" in weights.origin.notice
    assert [reason for _, reason in weights.left_out] == ["norms of a backbone's outputs"] * 2
