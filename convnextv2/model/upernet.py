"""UPerNet (arXiv 1807.10221) on a `Pyramid`: a class for every pixel.

It is the network that the ConvNeXt papers evaluate on ADE20K: pyramid pooling on the last map, a
feature pyramid over all four, and in training an auxiliary head on the third. Modules are named as
in MMSegmentation, except that a norm is called `norm`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm

from convnextv2.kernels.choice import are_used_for
from convnextv2.kernels.enlarged import enlarged_cross_entropy
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.layers import full_precision
from convnextv2.model.pyramid import Pyramid

IGNORED = -1
"""The class index of pixels that are ignored in training and in evaluation."""
POOL_SCALES = (1, 2, 3, 6)
"""Rows and columns of cells into which pyramid pooling averages the last map."""
FEWEST_CLASSES = 6
"""With fewer classes, PyTorch's operations are as fast as the kernel of the loss, or faster."""
AUXILIARY_CHANNELS = 256
AUXILIARY_STAGE = 2
"""The stage whose map the auxiliary head reads, counted from 0."""


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation over a batch of maps, whatever its size.

    When training on several CUDA ranks, the statistics are those of all ranks' images, as in the
    official recipes. A map of one position from a batch of one image has no variance. It is
    normalised with the running statistics, which it does not update.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("num_batches_tracked", None)  # an integer that is not used here

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) to the same shape."""
        if self._spans_ranks(x):
            # Not `nn.SyncBatchNorm`: with it, DistributedDataParallel refuses to run on a CPU.
            found: Tensor = SyncBatchNorm.apply(
                x, self.weight, self.bias, self.running_mean, self.running_var, self.eps,
                self.momentum, dist.group.WORLD, dist.get_world_size(),
            )  # fmt: skip
            return found
        learns = self.training and x.numel() > x.shape[1]
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, learns,
            self.momentum or 0.0, self.eps,
        )  # fmt: skip

    def _spans_ranks(self, x: Tensor) -> bool:
        # PyTorch's implementation refuses tensors on a CPU.
        if not (self.training and x.is_cuda and dist.is_available() and dist.is_initialized()):
            return False
        return dist.get_world_size() > 1

    def _load_from_state_dict(self, *arguments: Any) -> None:
        # The method of PyTorch's batch norm would add the integer to files without it.
        nn.Module._load_from_state_dict(self, *arguments)


def build_norm(kind: str, channels: int) -> nn.Module:
    """Build a norm over maps (N, C, H, W).

    Args:
        kind: "batch", or "group" for separate statistics of each image, over at most 32 groups of
            at least four channels. A single channel has no variance if maps have one position.
        channels: C.
    """
    assert kind in ("batch", "group"), kind
    if kind == "batch":
        return BatchNorm(channels)
    fitting = (n for n in (32, 16, 8, 4, 2) if channels % n == 0 and channels >= 4 * n)
    groups = next(fitting, 1)
    return nn.GroupNorm(groups, channels)


class ConvNorm(nn.Module):
    """Convolution without bias, norm and ReLU.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the result.
        kernel_size: Side of the kernel, an odd number.
        norm: The kind of norm, see `build_norm`.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False
        )
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.norm = build_norm(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H, W)."""
        return F.relu(self.norm(self.conv(x)))


def resize_maps(x: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Resize maps bilinearly, with the centres of pixels aligned.

    Args:
        x: (N, C, H, W).
        size: Height and width of the result.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class CellPool(nn.Module):
    """Average maps over a grid of cells, as `nn.AdaptiveAvgPool2d` does.

    Args:
        cells: Rows and columns of the grid.
    """

    over_rows: Tensor | None
    over_columns: Tensor | None

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells
        # Set for an export (see `Segmentor.fix_pooling`), because ONNX has no such pooling.
        self.register_buffer("over_rows", None, persistent=False)
        self.register_buffer("over_columns", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, cells, cells)."""
        if self.over_rows is None or self.over_columns is None:
            return F.adaptive_avg_pool2d(x, self.cells)
        return self.over_rows.to(x.dtype) @ x @ self.over_columns.to(x.dtype).T


def cell_weights(positions: int, cells: int) -> Tensor:
    """Return the matrix with which `nn.AdaptiveAvgPool2d` averages along one axis.

    Args:
        positions: Length of the axis.
        cells: Number of cells.

    Returns:
        float32 (cells, positions). Row i averages the positions from floor(i * positions / cells)
        up to but excluding ceil((i + 1) * positions / cells).
    """
    weights = torch.zeros(cells, positions)
    for i in range(cells):
        start, end = i * positions // cells, -(-(i + 1) * positions // cells)
        weights[i, start:end] = 1 / (end - start)
    return weights


class UPerHead(nn.Module):
    """Pyramid pooling, a feature pyramid, and a classifier of every position.

    Args:
        dims: Channels of the four maps.
        num_classes: Number of classes.
        channels: Channels of every layer of the head; 512 in the official recipes.
        norm: The kind of norm, see `build_norm`.
        dropout: Probability that a channel is dropped before the classifier, in training.
    """

    def __init__(
        self,
        dims: tuple[int, ...],
        num_classes: int,
        *,
        channels: int = 512,
        norm: str = "batch",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.psp_modules = nn.ModuleList(
            nn.Sequential(CellPool(scale), ConvNorm(dims[-1], channels, 1, norm))
            for scale in POOL_SCALES
        )
        self.bottleneck = ConvNorm(dims[-1] + len(POOL_SCALES) * channels, channels, 3, norm)
        self.lateral_convs = nn.ModuleList(ConvNorm(dim, channels, 1, norm) for dim in dims[:-1])
        self.fpn_convs = nn.ModuleList(ConvNorm(channels, channels, 3, norm) for _ in dims[:-1])
        self.fpn_bottleneck = ConvNorm(len(dims) * channels, channels, 3, norm)
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = _classifier(channels, num_classes)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Compute logits.

        Args:
            maps: (N, dims[i], h_i, w_i) of the four stages, from the largest to the smallest.

        Returns:
            (N, num_classes, h_0, w_0).
        """
        last = maps[-1]
        pooled = [resize_maps(pool(last), last.shape[-2:]) for pool in self.psp_modules]
        levels = [lateral(x) for lateral, x in zip(self.lateral_convs, maps[:-1], strict=True)] + [
            self.bottleneck(torch.cat([last, *pooled], dim=1))
        ]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resize_maps(levels[i], levels[i - 1].shape[-2:])
        size = levels[0].shape[-2:]
        smoothed = [conv(x) for conv, x in zip(self.fpn_convs, levels[:-1], strict=True)]
        fused = torch.cat([resize_maps(x, size) for x in (*smoothed, levels[-1])], dim=1)
        logits: Tensor = self.conv_seg(self.dropout(self.fpn_bottleneck(fused)))
        return logits


class AuxiliaryHead(nn.Module):
    """A small classifier of every position of one map, which helps in training only.

    Args:
        dim: Channels of the map.
        num_classes: Number of classes.
        norm: The kind of norm, see `build_norm`.
        dropout: Probability that a channel is dropped before the classifier, in training.
    """

    def __init__(
        self, dim: int, num_classes: int, *, norm: str = "batch", dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList([ConvNorm(dim, AUXILIARY_CHANNELS, 3, norm)])
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = _classifier(AUXILIARY_CHANNELS, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, dim, h, w) to logits (N, num_classes, h, w)."""
        for conv in self.convs:
            x = conv(x)
        logits: Tensor = self.conv_seg(self.dropout(x))
        return logits


def _classifier(channels: int, num_classes: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class Segmentor(nn.Module):
    """An encoder, its `Pyramid` and UPerNet's heads.

    Args:
        encoder: A network that was built with `num_classes=None`.
        num_classes: Number of classes.
        channels: Channels of the head; 512 in the official recipes.
        norm: The kind of norm in the heads, see `build_norm`.
        auxiliary: Whether there is an auxiliary head.
        dropout: Probability that a channel is dropped before a classifier, in training.
    """

    def __init__(
        self,
        encoder: ConvNeXtV2,
        num_classes: int,
        *,
        channels: int = 512,
        norm: str = "batch",
        auxiliary: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        # The arguments that a weights file needs to rebuild this network. The number of classes is
        # stored as for a classifier, so that one check serves both.
        self.arguments: dict[str, Any] = encoder.arguments | {"num_classes": num_classes}
        self.head_arguments: dict[str, Any] = {
            "channels": channels,
            "norm": norm,
            "auxiliary": auxiliary,
        }
        self.num_classes = num_classes
        self.pyramid = Pyramid(encoder)
        dims = self.pyramid.dims
        self.decode_head = UPerHead(
            dims, num_classes, channels=channels, norm=norm, dropout=dropout
        )
        self.auxiliary_head = (
            AuxiliaryHead(dims[AUXILIARY_STAGE], num_classes, norm=norm, dropout=dropout)
            if auxiliary
            else None
        )

    @property
    def class_tensors(self) -> tuple[str, ...]:
        """Names of the tensors that have a row for each class."""
        heads = ["decode_head"] + ["auxiliary_head"] * (self.auxiliary_head is not None)
        return tuple(f"{head}.conv_seg.{kind}" for head in heads for kind in ("weight", "bias"))

    @property
    def encoder(self) -> ConvNeXtV2:
        """The encoder."""
        return self.pyramid.encoder

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor | None]:
        """Compute logits at the resolution of the first stage.

        Args:
            images: (N, C, H, W), normalised.

        Returns:
            In evaluation, logits (N, num_classes, H // stem_stride, W // stem_stride). In training,
            also the logits of the auxiliary head, or None without one.

        Raises:
            ConvNeXtV2Error: The images are too small, or have another number of channels.
        """
        maps = self.pyramid(images)
        logits: Tensor = self.decode_head(maps)
        if not self.training:
            return logits
        if self.auxiliary_head is None:
            return logits, None
        return logits, self.auxiliary_head(maps[AUXILIARY_STAGE])

    def fix_pooling(self, height: int, width: int) -> None:
        """Replace pyramid pooling by equivalent products with constant matrices, for an export.

        Args:
            height: Height of the images in pixels. Afterwards, other sizes are not supported.
            width: Width of the images in pixels.
        """
        stride = self.encoder.total_stride
        device = next(self.parameters()).device
        for module in self.modules():
            if isinstance(module, CellPool):
                module.over_rows = cell_weights(height // stride, module.cells).to(device)
                module.over_columns = cell_weights(width // stride, module.cells).to(device)


def pixel_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross entropy over all pixels. Ignored pixels count with a loss of 0.

    MMSegmentation also divides by the number of all pixels, including ignored ones
    (avg_non_ignore=False). Its recipes, and above all their learning rates, are tuned for this.

    Args:
        logits: (N, K, h, w), at any resolution. They are resized to that of the targets.
        targets: Integers (N, H, W), class indices or `IGNORED`.

    Returns:
        A float32 scalar.
    """
    with full_precision(logits.device):
        logits, targets = logits.float(), targets.long()
        # The kernel saves time by not enlarging logits, so the grid must be coarse.
        coarse = 4 * logits[:, 0].numel() <= targets.numel()
        gains = coarse and logits.shape[1] >= FEWEST_CLASSES
        if gains and logits.device.type == "cpu" and are_used_for(logits):
            return enlarged_cross_entropy(logits, targets).mean()
        enlarged = resize_maps(logits, targets.shape[-2:])
        return F.cross_entropy(enlarged, targets, ignore_index=IGNORED, reduction="none").mean()


def segmentation_loss(
    logits: Tensor, auxiliary: Tensor | None, targets: Tensor, auxiliary_weight: float = 0.4
) -> Tensor:
    """Compute the loss of a `Segmentor` in training.

    Args:
        logits: The logits of the head.
        auxiliary: The logits of the auxiliary head, if there is one.
        targets: See `pixel_cross_entropy`.
        auxiliary_weight: Weight of the auxiliary head's loss.

    Returns:
        A float32 scalar.
    """
    loss = pixel_cross_entropy(logits, targets)
    if auxiliary is None:
        return loss
    return loss + auxiliary_weight * pixel_cross_entropy(auxiliary, targets)
