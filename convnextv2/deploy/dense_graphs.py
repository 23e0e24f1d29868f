"""The graphs of segmentors and detectors, from which artifacts are made.

A segmentor is one graph. A detector is cut into three. Exporters cannot write the code between
them, the choice of proposals and non-maximum suppression, because sizes in it depend on values.

    trunk    images (N, C, H, W) to the maps of the pyramid, and the anchors' logits and deltas
    boxes    regions of the maps, one for each proposal, to logits of classes and deltas of boxes
    masks    regions of the maps, one for each object, to logits of masks
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from convnextv2.deploy.graph import MAP_OUTPUTS, trunk_outputs
from convnextv2.model.detector import Detector
from convnextv2.model.upernet import CellPool, Segmentor


class SegmentorGraph(nn.Module):
    """A segmentor from images to logits, float32.

    Args:
        model: The network in evaluation mode. It is copied.
        size: Height and width of the images, for which pyramid pooling becomes constant; None for
            any multiples of the total stride.
    """

    input = "images"

    def __init__(self, model: Segmentor, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        self.model.auxiliary_head = None  # for training only
        if size is not None:
            self.model.fix_pooling(*size)
        else:
            pools = self.model.decode_head.psp_modules
            for i, layers in enumerate(pools):
                assert isinstance(layers, nn.Sequential) and isinstance(layers[0], CellPool)
                pools[i] = UpsampledCells(layers[0].cells, layers[1])

    @property
    def output_names(self) -> tuple[str, ...]:
        """The name of the output."""
        return MAP_OUTPUTS

    @property
    def total_stride(self) -> int:
        """Sides of images are multiples of it."""
        return self.model.encoder.total_stride

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Map normalised images (N, C, H, W) to logits (N, K, H // stem_stride, W // ...)."""
        logits = self.model(images.to(next(self.model.parameters()).dtype))
        assert isinstance(logits, Tensor)
        return (logits.float(),)


class UpsampledCells(nn.Module):
    """Averages maps of any size over a grid of cells, runs a layer, and resizes the result back.

    Averaging and resizing are products with matrices that are computed from the size of the map,
    because ONNX has no adaptive pooling and no resize to a dynamic size.

    Args:
        cells: Rows and columns of the grid.
        layer: Maps (N, C, cells, cells) to (N, D, cells, cells).
    """

    def __init__(self, cells: int, layer: nn.Module) -> None:
        super().__init__()
        self.cells, self.layer = cells, layer

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, H, W)."""
        height, width = x.shape[-2], x.shape[-1]
        rows = adaptive_average_matrix(height, self.cells)
        columns = adaptive_average_matrix(width, self.cells)
        cells = self.layer(rows.to(x.dtype) @ x @ columns.to(x.dtype).T)
        down, right = bilinear_matrix(height, self.cells), bilinear_matrix(width, self.cells)
        stretched: Tensor = down.to(x.dtype) @ cells @ right.to(x.dtype).T
        return stretched


def adaptive_average_matrix(positions: int, cells: int) -> Tensor:
    """Return the matrix by which `nn.AdaptiveAvgPool2d` averages along one axis.

    Args:
        positions: Length of the axis, which may be symbolic.
        cells: Number of cells.

    Returns:
        float32 (cells, positions).
    """
    at, cell = torch.arange(positions), torch.arange(cells)[:, None]
    starts = torch.div(cell * positions, cells, rounding_mode="floor")
    ends = torch.div((cell + 1) * positions + cells - 1, cells, rounding_mode="floor")
    inside = ((at >= starts) & (at < ends)).float()
    return inside / inside.sum(1, keepdim=True)


def bilinear_matrix(positions: int, cells: int) -> Tensor:
    """Return the matrix of a bilinear resize along one axis, with the centres of pixels aligned.

    Args:
        positions: Length of the result, which may be symbolic.
        cells: Length of the axis before the resize.

    Returns:
        float32 (positions, cells).
    """
    at = (torch.arange(positions).float() + 0.5) * cells / positions - 0.5
    distance = (at.clamp(0, cells - 1)[:, None] - torch.arange(cells).float()).abs()
    return (1 - distance).clamp(min=0)


class Trunk(nn.Module):
    """A detector from images to the maps of its pyramid, and the logits and deltas of its anchors.

    Args:
        model: The network in evaluation mode. It is copied.
    """

    input = "images"

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs: maps, logits and deltas, each from fine to coarse."""
        return trunk_outputs(len(self.model.levels) + 1)  # with the pooled one, which is the last

    @property
    def total_stride(self) -> int:
        """Sides of images are multiples of it."""
        return self.model.encoder.total_stride

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs in `output_names` for normalised images (N, C, H, W)."""
        dtype = next(self.model.parameters()).dtype
        maps = list(self.model.features(images.to(dtype)).values())
        logits, deltas = self.model.rpn.head([each.to(dtype) for each in maps])
        return (*maps, *logits, *deltas)


class BoxHead(nn.Module):
    """The box head of a detector, on regions that were cut out of its maps.

    Args:
        model: The detector in evaluation mode. Its head is copied.
    """

    input = "box_regions"
    output_names = ("class_logits", "box_deltas")
    total_stride = 1

    def __init__(self, model: Detector) -> None:
        super().__init__()
        heads = model.roi_heads
        self.model = copy.deepcopy(nn.Sequential(heads.box_head, heads.box_predictor)).eval()

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Map regions (R, C, 7, 7) to logits (R, K + 1) and deltas (R, 4 * (K + 1))."""
        logits, deltas = self.model(regions.to(next(self.model.parameters()).dtype))
        return logits.float(), deltas.float()


class MaskHead(nn.Module):
    """The mask head of a detector, on regions that were cut out of its maps.

    Args:
        model: The detector in evaluation mode. Its head is copied.
    """

    input = "mask_regions"
    output_names = ("mask_logits",)
    total_stride = 1

    def __init__(self, model: Detector) -> None:
        super().__init__()
        heads = model.roi_heads
        self.model = copy.deepcopy(nn.Sequential(heads.mask_head, heads.mask_predictor)).eval()

    def forward(self, regions: Tensor) -> tuple[Tensor]:
        """Map regions (R, C, 14, 14) to logits (R, K + 1, 28, 28)."""
        return (self.model(regions.to(next(self.model.parameters()).dtype)).float(),)
