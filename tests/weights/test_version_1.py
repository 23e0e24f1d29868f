"""Weights of the first ConvNeXt are starts: each library's own network gives the same outputs."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from timm.models.convnext import ConvNeXt as NetworkOfTimm
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig
from transformers import (
    AutoModel,
    ConvNextConfig,
    ConvNextForImageClassification,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
)

from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.weights.adapt import load_encoder
from convnextv2.weights.build import build_model
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.description import Description
from convnextv2.weights.opened import Weights, open_weights
from convnextv2.weights.restore import restore
from convnextv2.weights.safetensors import save_weights

DEPTHS, DIMS = (1, 2, 1, 1), (8, 16, 24, 32)
IMAGES = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def randomised(model: nn.Module) -> nn.Module:
    """Make every parameter random, layer scales of both signs included."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.double().parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator) + 0.05)
    return model.eval()


def blocks_of_torchvision() -> list[CNBlockConfig]:
    following = [*DIMS[1:], None]
    return [CNBlockConfig(*of) for of in zip(DIMS, following, DEPTHS, strict=True)]


class OfficialBlock(nn.Module):
    """The block of facebookresearch/ConvNeXt with its names, written after the paper."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(nn.functional.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Official(nn.Module):
    """The network of facebookresearch/ConvNeXt with its names; DINOv3's own files have them too."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(3, DIMS[0], 4, 4), ChannelNorm(DIMS[0], eps=1e-6))]
        )
        for narrow, wide in zip(DIMS[:-1], DIMS[1:], strict=True):
            down = nn.Sequential(ChannelNorm(narrow, eps=1e-6), nn.Conv2d(narrow, wide, 2, 2))
            self.downsample_layers.append(down)
        self.stages = nn.ModuleList(
            nn.Sequential(*(OfficialBlock(dim) for _ in range(depth)))
            for dim, depth in zip(DIMS, DEPTHS, strict=True)
        )
        self.norm = nn.LayerNorm(DIMS[-1], eps=1e-6)
        self.head = nn.Linear(DIMS[-1], classes) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
        return self.head(self.norm(x.mean((2, 3))))


def timm_model(name: str = "convnext_tiny", **arguments) -> nn.Module:
    return timm.create_model(
        name, **({"depths": DEPTHS, "dims": DIMS, "num_classes": 5} | arguments)
    )


def transformers_model() -> nn.Module:
    config = ConvNextConfig(
        hidden_sizes=list(DIMS), depths=list(DEPTHS), num_labels=5, layer_norm_eps=1e-6
    )
    return ConvNextForImageClassification(config)


def dinov3_model() -> nn.Module:
    return DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=[*DIMS], depths=[*DEPTHS]))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "timm-v1": timm_model,
    "timm-v1, convolutional MLP": lambda: timm_model("convnext_atto"),
    "timm-v1, without layer scale": lambda: NetworkOfTimm(
        depths=DEPTHS, dims=DIMS, num_classes=5, ls_init_value=None
    ),  # timm.create_model passes no None on
    "official-v1": lambda: Official(5),
    "official-v1, without head": lambda: Official(0),
    "torchvision-v1": lambda: torchvision.models.convnext.ConvNeXt(
        blocks_of_torchvision(), num_classes=5
    ),
    "transformers-v1": transformers_model,
    "dinov3-v1": dinov3_model,
}


def outputs(model: nn.Module, images: Tensor = IMAGES) -> Tensor:
    """Return the logits, or the pooled features of a network without a head."""
    with torch.inference_mode():
        found = model.double().eval()(images)
    return next(
        (getattr(found, name) for name in ("logits", "pooler_output") if hasattr(found, name)),
        found,
    )


def ours(weights: Weights) -> nn.Module:
    """Build our network in float64, which `restore` would round to float32."""
    model = build_model(weights.description).double()
    model.load_state_dict(weights.tensors)
    return model


def save(model: nn.Module, path: Path) -> Path:
    torch.save({name: tensor.clone() for name, tensor in model.state_dict().items()}, path)
    return path


def hub_folder(folder: Path, model: nn.Module, config: dict) -> Path:
    folder.mkdir()
    save(model, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


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
        ("other\nlicense_name: dinov3-license", "allows commercial use, and the agreement"),
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


def untrained_grn(folder: Path, size: str = "custom", **arguments) -> tuple[ConvNeXtV2, Weights]:
    """Return a model in which all but GRN is random, and its weights."""
    model = ConvNeXtV2(DEPTHS, DIMS, **({"num_classes": 5} | arguments))
    model = randomised(model).float()
    for name, parameter in model.named_parameters():
        if ".grn." in name:
            parameter.data.zero_()
    save_weights(folder, model.state_dict(), Description("classifier", size, model.arguments))
    return model, open_weights(folder / "model.safetensors")


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
