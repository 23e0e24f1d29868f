"""ConvNeXt V2 (arXiv 2301.00808): the network, its sizes, and `create_model`.

The network consists of the layers in `model.layers`:

- a stem and three downsampling layers: convolutions whose kernel equals their stride
- four stages of blocks: 7 x 7 depthwise convolution, layer norm, and an MLP that widens four times
- GRN within the MLP, in place of the layer scale that the first ConvNeXt has
- the mean over all positions, a layer norm, and a linear head
- initial weights: normal with a standard deviation of 0.02; biases and GRN are 0

Tensors are named as in the official dense checkpoints. Public functions take and return images and
feature maps as (N, C, H, W), unless they say otherwise; internally, they are channels-last.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from convnextv2.errors import ConvNeXtV2Error
from convnextv2.model.layers import (
    BLOCKS,
    Block,
    LayerNorm,
    PatchConv,
    init_weights,
    statistics_dtype,
)
from convnextv2.model.tiles import Tiles
from convnextv2.sizes import MAX_BLOCKS, MAX_CHANNELS, MAX_CLASSES, MAX_WIDTH

# Name -> (depths, dims), from appendix A.1 of the paper. It has no small and no xlarge: these two
# are sizes of the first ConvNeXt (arXiv 2201.03545), whose public weights can initialise a V2 too.
# Every size must also be named in the help of `model` in `recipe.groups.model`. A size that timm
# builds from 1 x 1 convolutions must be added to `weights.names.CONV_MLP`, and one that timm does
# not have to `weights.configurations`.
SIZES: dict[str, tuple[tuple[int, int, int, int], tuple[int, int, int, int]]] = {
    "convnextv2_atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "convnextv2_femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "convnextv2_pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "convnextv2_nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "convnextv2_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnextv2_small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnextv2_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnextv2_large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnextv2_xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
    "convnextv2_huge": ((3, 3, 27, 3), (352, 704, 1408, 2816)),
}

_LEFT_OUT = {"inner_eps": 1e-6, "block": "v2"}
"""Arguments that older versions do not know. If they have these values, they are not written to
files, so that those versions can read the files."""

_CHOICES: dict[str, tuple[str | int, ...]] = {
    "stem_stride": (4, 2, 1),
    "block": BLOCKS,
    "gelu": ("exact", "tanh"),
    "grn_scope": ("image", "batch"),
}


class ConvNeXtV2(nn.Module):
    """ConvNeXt V2 for classification, for pooled or multi-scale features, or as FCMAE's encoder.

    Args:
        depths: Blocks of each stage, four numbers.
        dims: Channels of each stage, four numbers.
        in_channels: Channels of the images.
        num_classes: Rows of the head; 0 for pooled features (final norm, no head), None for the
            bare encoder (neither).
        stem_stride: 4 for photographs; 2 or 1 let small images keep their positions. The total
            stride is 8 times that.
        drop_path_rate: The rate of stochastic depth in the last block. The rates of the blocks
            increase linearly from 0.
        head_init_scale: Factor on the head's initial weights.
        block: "v2"; "v2_without_grn"; or "v1", the block of the first ConvNeXt with its layer
            scale. See `Block`.
        gelu: "exact" (erf) or "tanh".
        grn_scope: "image" or "batch", see `GlobalResponseNorm`.
        norm_eps: Epsilon of the final norm. Checkpoints of transformers use 1e-12.
        inner_eps: Epsilon of all other norms. It is 1e-6 except in timm's convnext_xxlarge, whose
            norms all have 1e-5.
        grad_checkpoint: Recompute the blocks in the backward pass instead of keeping their
            activations.

    Raises:
        ConvNeXtV2Error: An argument has an invalid value.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        *,
        in_channels: int = 3,
        num_classes: int | None = 1000,
        stem_stride: int = 4,
        drop_path_rate: float = 0.0,
        head_init_scale: float = 1.0,
        block: str = "v2",
        gelu: str = "exact",
        grn_scope: str = "image",
        norm_eps: float = 1e-6,
        inner_eps: float = 1e-6,
        grad_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        arguments: dict[str, Any] = {
            "depths": list(depths),
            "dims": list(dims),
            "in_channels": in_channels,
            "num_classes": num_classes,
            "stem_stride": stem_stride,
            "gelu": gelu,
            "grn_scope": grn_scope,
            "norm_eps": norm_eps,
            "inner_eps": inner_eps,
            "block": block,
        }
        training = {"drop_path_rate": drop_path_rate, "head_init_scale": head_init_scale}
        _check_arguments(arguments | training)
        arguments = {name: _plain(value) for name, value in arguments.items()}
        # The arguments that a weights file needs to rebuild this network.
        self.arguments = {
            name: value
            for name, value in arguments.items()
            if name not in _LEFT_OUT or value != _LEFT_OUT[name]
        }
        self.depths, self.dims = tuple(arguments["depths"]), tuple(arguments["dims"])
        self.in_channels, self.num_classes = arguments["in_channels"], arguments["num_classes"]
        self.block = block
        self.stem_stride, self.total_stride = stem_stride, 8 * stem_stride
        self.grad_checkpoint = grad_checkpoint

        stem = PatchConv(in_channels, dims[0], stem_stride), LayerNorm(dims[0], inner_eps)
        self.downsample_layers = nn.ModuleList([nn.Sequential(*stem)])
        for narrow, wide in pairwise(dims):
            self.downsample_layers.append(
                nn.Sequential(LayerNorm(narrow, inner_eps), PatchConv(narrow, wide, 2))
            )
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        form: dict[str, Any] = {"block": block, "gelu": gelu, "grn_scope": grn_scope}
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Block(dim, drop_path_rate=next(rates), norm_eps=inner_eps, **form)
                for _ in range(depth)
            )
            for depth, dim in zip(depths, dims, strict=True)
        )
        self.norm = None if num_classes is None else LayerNorm(dims[-1], norm_eps)
        self.head = nn.Linear(dims[-1], num_classes) if num_classes else None
        self.apply(init_weights)
        if self.head is not None:
            with torch.no_grad():
                self.head.weight.mul_(head_init_scale)
        # Distillation puts a layer here that maps pooled features to those of a teacher.
        self.projection: nn.Module | None = None

    def forward(self, images: Tensor, *, projected: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Compute the logits, or the features of a network without a head.

        Rows and columns of an image that do not fill a stride are ignored, as in the official code.

        Args:
            images: (N, C, H, W), normalised. H and W are at least the total stride.
            projected: Whether to return the projection of the pooled features too.

        Returns:
            Logits (N, num_classes). Pooled features (N, dims[3]) if there is no head. The last
            feature map (N, dims[3], h, w) if there is no norm either. With `projected`, the logits
            or pooled features, and the projection.

        Raises:
            ConvNeXtV2Error: The images are too small, have another number of channels, or are not
                floating-point numbers of four dimensions.
        """
        x = self.encode(images)  # (N, h, w, dims[3])
        if self.norm is None:
            return x.permute(0, 3, 1, 2)
        pooled = self.pool(x)
        logits = pooled if self.head is None else self.head(pooled)
        if not projected:
            return logits
        assert self.projection is not None
        return logits, self.projection(pooled)

    def pool(self, x: Tensor) -> Tensor:
        """Average the last stage's output over its positions, and apply the final norm.

        Args:
            x: (N, h, w, dims[3]), from `encode`.

        Returns:
            (N, dims[3]), in the same dtype.
        """
        assert self.norm is not None, "a bare encoder has no final norm"
        pooled: Tensor = self.norm(x.mean((1, 2), dtype=statistics_dtype(x.dtype)).to(x.dtype))
        return pooled

    def features(self, images: Tensor) -> list[Tensor]:
        """Compute the outputs of the four stages.

        Args:
            images: (N, C, H, W), normalised. H and W are at least the total stride.

        Returns:
            For stage i, (N, dims[i], H // stride, W // stride) with a stride of stem_stride * 2^i.

        Raises:
            ConvNeXtV2Error: The images are too small, or have another number of channels.
        """
        return [x.permute(0, 3, 1, 2) for x in self._stage_outputs(images, None)]

    def encode(self, images: Tensor, visible: Tiles | None = None) -> Tensor:
        """Compute the last stage's output, channels-last.

        Args:
            images: (N, C, H, W), normalised. H and W are at least the total stride.
            visible: Tiles whose side is k times the total stride; None for the whole images.
                Masked tiles are never read.

        Returns:
            (N, h, w, dims[3]), or (N, V, k, k, dims[3]) for the visible tiles.

        Raises:
            ConvNeXtV2Error: The images are too small, or have another number of channels.
        """
        return self._stage_outputs(images, visible)[-1]

    def _stage_outputs(self, images: Tensor, visible: Tiles | None) -> list[Tensor]:
        self._check(images)
        # (N, H, W, C), or (N, V, side, side, C) of the visible tiles
        x = images.permute(0, 2, 3, 1) if visible is None else visible.cut(images)
        canvas = None
        outputs = []
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = downsample(x)
            if visible is not None:
                canvas = visible.canvas(x.shape[-2])
            for block in stage:  # type: ignore[attr-defined]  # a ModuleList of ModuleLists
                if self.grad_checkpoint and self.training:
                    x = checkpoint(block, x, canvas, use_reentrant=False)
                else:
                    x = block(x, canvas)
            outputs.append(x)
        return outputs

    def _check(self, images: Tensor) -> None:
        if images.dim() != 4:
            raise ConvNeXtV2Error(
                f"images have the shape {tuple(images.shape)}: expected (N, C, H, W). Give a "
                "single image as images[None]."
            )
        if not images.is_floating_point():
            raise ConvNeXtV2Error(
                f"images are {images.dtype}: expected floating-point numbers. Divide pixels by "
                "255, subtract the mean and divide by the standard deviation."
            )
        _, channels, height, width = images.shape
        if channels != self.in_channels:
            raise ConvNeXtV2Error(
                f"images have {channels} channels: the model expects {self.in_channels}. Build it "
                f"with in_channels={channels}."
            )
        if min(height, width) < self.total_stride:
            raise ConvNeXtV2Error(
                f"images are {height} x {width} px: the model needs at least {self.total_stride} "
                "px a side. Enlarge them, or use a smaller stem_stride."
            )


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise ConvNeXtV2Error for the first argument of a `ConvNeXtV2` with an impossible value."""
    for name, value in arguments.items():
        if name in _CHOICES:
            is_right = value in _CHOICES[name]
            expected = f"one of {', '.join(map(str, _CHOICES[name]))}"
        elif name in ("depths", "dims"):
            most = MAX_BLOCKS if name == "depths" else MAX_WIDTH
            is_right = len(value) == 4 and all(_is_count(number, most) for number in value)
            expected = f"four whole numbers >= 1 and <= {most:,}"
        elif name == "in_channels":
            is_right = _is_count(value, MAX_CHANNELS)
            expected = f"a whole number >= 1 and <= {MAX_CHANNELS:,}"
        elif name == "num_classes":
            is_right = value is None or value == 0 or _is_count(value, MAX_CLASSES)
            expected = f"a whole number from 0 to {MAX_CLASSES:,}, or None for the bare encoder"
        elif name == "drop_path_rate":
            is_right, expected = 0 <= value < 1, "a number >= 0 and < 1"
        elif name == "head_init_scale":
            is_right, expected = math.isfinite(value), "a finite number"
        else:
            is_right, expected = 0 < value < math.inf, "a number > 0"
        if not is_right:
            raise ConvNeXtV2Error(f"{name} = {value!r}: expected {expected}.")


def _is_count(value: Any, most: int) -> bool:
    try:
        return 1 <= operator.index(value) <= most  # NumPy's integers are accepted, too
    except TypeError:
        return False


def _plain(value: Any) -> Any:
    """Return Python's numbers in place of NumPy's, which cannot be written as JSON."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def create_model(name: str, **arguments: Any) -> ConvNeXtV2:
    """Build a ConvNeXt V2 by name, with random weights.

    Args:
        name: "convnextv2_atto" to "convnextv2_huge", one of `SIZES`.
        **arguments: As for `ConvNeXtV2`.

    Returns:
        The model, on the CPU and in training mode.

    Raises:
        ConvNeXtV2Error: The name is unknown.
    """
    if name not in SIZES:
        raise ConvNeXtV2Error(f"model = {name!r}: expected one of {', '.join(SIZES)}.")
    depths, dims = SIZES[name]
    return ConvNeXtV2(depths, dims, **arguments)
