"""Small networks of the first ConvNeXt: those of each library, and ours with GRN at zero."""

import json
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torchvision
from timm.models.convnext import ConvNeXt as NetworkOfTimm
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
)

from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.weights.build import build_model
from convnextv2.weights.description import Description
from convnextv2.weights.opened import Weights, open_weights
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


def untrained_grn(folder: Path, size: str = "custom", **arguments) -> tuple[ConvNeXtV2, Weights]:
    """Return a model in which all but GRN is random, and its weights."""
    model = ConvNeXtV2(DEPTHS, DIMS, **({"num_classes": 5} | arguments))
    model = randomised(model).float()
    for name, parameter in model.named_parameters():
        if ".grn." in name:
            parameter.data.zero_()
    save_weights(folder, model.state_dict(), Description("classifier", size, model.arguments))
    return model, open_weights(folder / "model.safetensors")
