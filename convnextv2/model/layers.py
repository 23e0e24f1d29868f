"""The layers of ConvNeXt V2 (arXiv 2301.00808). Activations are channels-last, (..., C).

Each layer takes a dense image (N, H, W, C) or visible tiles (N, V, side, side, C). Only the
depthwise convolution needs to know which: `canvas` is None for a dense image. The statistics of GRN
run over all axes between image and channel in either case.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnextv2.kernels.choice import are_used_for
from convnextv2.kernels.functional import depthwise, layer_norm, mlp
from convnextv2.model.tiles import Canvas, fold


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which statistics of `dtype` are taken, which is at least float32.

    In float16, the sum of squares over 56 x 56 positions overflows if a channel's RMS reaches 4.6.
    """
    return torch.promote_types(dtype, torch.float32)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Leave autocast, so that operations inside run in the dtype of their arguments."""
    # The meta device has no autocast to leave.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def init_weights(module: nn.Module) -> None:
    """Give a convolution or linear layer its initial values, as the official `_init_weights` does.

    Weights are normal with a standard deviation of 0.02, and biases are 0. Other modules stay as
    they are.

    Args:
        module: Each module in turn, from `Module.apply`.
    """
    if isinstance(module, PatchConv | DepthwiseConv | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis.

    The statistics of half-precision activations are float32, in PyTorch's kernel and in ours.

    Args:
        dim: Channels.
        eps: Added to the variance before the square root is taken.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., C) to the same shape and dtype."""
        if x.is_cuda and are_used_for(x):
            return layer_norm(x, self.weight, self.bias, self.eps)
        with full_precision(x.device):
            return F.layer_norm(
                x, self.weight.shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps
            )


class GlobalResponseNorm(nn.Module):
    """GRN, Algorithm 1 of the paper: x + gamma * x * n + beta.

    n is the channel's L2 norm over the positions, divided by the mean of these norms over channels.

    Args:
        dim: Channels.
        scope: "image" takes the norm over the positions of one image, as the paper and the official
            dense code do. "batch" takes it over the positions of all images, as the official sparse
            code does (facebookresearch/ConvNeXt-V2 issue 86).
        eps: Added to the mean norm before the division.
    """

    def __init__(self, dim: int, scope: str = "image", eps: float = 1e-6) -> None:
        super().__init__()
        assert scope in ("image", "batch"), scope
        self.gamma = nn.Parameter(torch.zeros(dim))
        self.beta = nn.Parameter(torch.zeros(dim))
        self.scope = scope
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, ..., C) to the same shape and dtype, over the given positions."""
        positions = list(range(1 if self.scope == "image" else 0, x.dim() - 1))
        with full_precision(x.device):
            # For a channel that is 0 at every position, vector_norm has gradient 0, while
            # sqrt(sum of squares) has NaN.
            norm = torch.linalg.vector_norm(
                x, dim=positions, keepdim=True, dtype=statistics_dtype(x.dtype)
            )
            scale = 1 + self.gamma * (norm / (norm.mean(-1, keepdim=True) + self.eps))
            return torch.addcmul(self.beta.to(x.dtype), x, scale.to(x.dtype))


class DepthwiseConv(nn.Module):
    """7 x 7 depthwise convolution with zero padding; weight (C, 1, 7, 7), bias (C,).

    Args:
        dim: Channels.
        kernel_size: Side of the kernel in positions, an odd number.
    """

    def __init__(self, dim: int, kernel_size: int = 7) -> None:
        super().__init__()
        # The weight has channels-last strides, as its gradient has, so that distributed training
        # needs no copy between them.
        self.weight = nn.Parameter(
            torch.empty(dim, 1, kernel_size, kernel_size).to(memory_format=torch.channels_last)
        )
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, canvas: Canvas | None = None) -> Tensor:
        """Convolve each channel by itself.

        Args:
            x: (N, H, W, C), or with a canvas (N, V, side, side, C).
            canvas: The positions of the tiles; None for dense images.

        Returns:
            The result, in x's shape.
        """
        channels, _, kernel_size, _ = self.weight.shape
        if kernel_size == 7 and are_used_for(x):
            places, runs, size = (
                (None, None, (x.shape[1], x.shape[2]))
                if canvas is None
                else (canvas.rows, canvas.runs, canvas.size)
            )
            y = depthwise(x.flatten(1, -3), self.weight, self.bias, places, size, runs)
            return y.view(x.shape)
        dense = x if canvas is None else canvas.paint(x)
        # As NCHW this is a channels-last view, so neither the input nor the output is copied.
        y = F.conv2d(
            dense.permute(0, 3, 1, 2),
            self.weight,
            self.bias,
            padding=kernel_size // 2,
            groups=channels,
        ).permute(0, 2, 3, 1)
        return y if canvas is None else canvas.pick(y)


class PatchConv(nn.Module):
    """Convolution whose kernel equals its stride; weight (O, I, stride, stride), bias (O,).

    It is computed as a linear layer on folded positions. Each output depends on one patch only, so
    no mask is needed. A kernel larger than its stride would leak masked pixels.

    Args:
        in_channels: I.
        out_channels: O.
        stride: Side of a patch in positions.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, stride, stride))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., H, W, I) to (..., H // stride, W // stride, O)."""
        return F.linear(fold(x, self.stride), self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)


class DropPath(nn.Module):
    """Stochastic depth: in training, drop the branch of some images and scale up the others.

    Args:
        rate: The probability that an image's branch is dropped. The others are divided by 1 - rate.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        assert 0 <= rate < 1, rate
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, ...) to the same shape.

        There is one draw for each image, from the default generator of x's device.
        """
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(x.shape[0], device=x.device) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype).view(-1, *[1] * (x.dim() - 1))


BLOCKS = ("v2", "v2_without_grn", "v1")
"""The forms of `Block`, also listed in `recipe.groups.model` and `weights.description`."""


class Block(nn.Module):
    """ConvNeXt V2 block: x + DropPath(W2 GRN(GELU(W1 LN(D7(x))))).

    GELU and the GRN after it are computed in `kernels.functional.mlp`. The forms of GELU are also
    listed in `model.convnext`, `recipe.groups.model` and `weights.description`.

    Two older forms are available for comparison. Without GRN, the block is x + DropPath(W2 GELU(W1
    LN(D7(x)))). That of the first ConvNeXt multiplies this branch by a layer scale, one trained
    number per channel, which starts at 1e-6 (arXiv 2201.03545, section 2.6 and appendix A.1).

    Args:
        dim: Channels.
        block: "v2", "v2_without_grn" or "v1", one of `BLOCKS`.
        drop_path_rate: The probability that an image's branch is dropped in training.
        gelu: "exact" or "tanh".
        grn_scope: "image" or "batch", see `GlobalResponseNorm`.
        norm_eps: Epsilon of the layer normalisation.
    """

    def __init__(
        self,
        dim: int,
        *,
        block: str = "v2",
        drop_path_rate: float = 0.0,
        gelu: str = "exact",
        grn_scope: str = "image",
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        assert gelu in ("exact", "tanh"), gelu
        assert block in BLOCKS, block
        self.dwconv = DepthwiseConv(dim)
        self.norm = LayerNorm(dim, norm_eps)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.grn = GlobalResponseNorm(4 * dim, grn_scope) if block == "v2" else None
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6)) if block == "v1" else None
        self.drop_path = DropPath(drop_path_rate)
        self.gelu_form = "none" if gelu == "exact" else "tanh"

    def expanded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the widened features in the middle of the block, for inspection.

        Args:
            x: Dense (N, H, W, C).

        Returns:
            (N, H, W, 4 C) after GELU, and the same after GRN. Without GRN, both are the first.
        """
        y = F.gelu(self.pwconv1(self.norm(self.dwconv(x))), approximate=self.gelu_form)
        return y, y if self.grn is None else self.grn(y)

    def forward(
        self, x: Tensor, canvas: Canvas | None = None, wanted: Canvas | None = None
    ) -> Tensor:
        """Compute the block.

        Args:
            x: (N, H, W, C), or with a canvas (N, V, side, side, C).
            canvas: The positions of the tiles of x; None if x is dense.
            wanted: The tiles of a dense x to return; None for all of x. The layers after GRN
                process no other position.

        Returns:
            The result in x's shape, or (N, V, side, side, C) for the wanted tiles.
        """
        y = self.norm(self.dwconv(x, canvas))
        pick = None if wanted is None else wanted.pick
        y = mlp(y, self.pwconv1, self.grn, self.pwconv2, gelu=self.gelu_form, pick=pick)
        if self.gamma is not None:  # in float32 if half precision meets a float32 scale
            y = (y * self.gamma).to(y.dtype)
        return (x if pick is None else pick(x)) + self.drop_path(y)
