"""The graphs of segmentors and detectors, from which artifacts are made.

A segmentor is one graph. A detector is cut into three. Exporters cannot write the code between
them, the choice of proposals and non-maximum suppression, because sizes in it depend on values.

    trunk    images (N, C, H, W) to the maps of the pyramid, and the anchors' logits and deltas
    boxes    regions of the maps, one for each proposal, to logits of classes and deltas of boxes
    masks    regions of the maps, one for each object, to logits of masks
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from convnextv2.deploy.graph import BOX_OUTPUTS, MAP_OUTPUTS, MASK_OUTPUTS, trunk_outputs
from convnextv2.model.detector import Detector
from convnextv2.model.upernet import POOL_SCALES, Segmentor


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
            head, layers = self.model.decode_head, []
            for pool in head.psp_modules:
                assert isinstance(pool, nn.Sequential)
                layers.append(pool[1])
            head.psp_modules = nn.ModuleList([UpsampledPyramid(POOL_SCALES, layers)])

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


class UpsampledPyramid(nn.Module):
    """Averages maps of any size over several grids of cells, runs a layer, and resizes the results.

    Averaging and resizing are products with matrices that are computed from the size of the map,
    because ONNX has no adaptive pooling and no resize to a dynamic size. The matrices of all grids
    are computed together: with separate ones, the export would take a quarter longer.

    Args:
        grids: For each grid, its number of rows and of columns.
        layers: For each grid, maps (N, C, cells, cells) to (N, D, cells, cells).
    """

    def __init__(self, grids: Sequence[int], layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.grids, self.layers = tuple(grids), nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, len(grids) * D, H, W)."""
        height, width = x.shape[-2], x.shape[-1]
        rows = adaptive_average_matrices(height, self.grids)
        columns = adaptive_average_matrices(width, self.grids)
        # The product also has cells in the rows of one grid and the columns of another. They are
        # not used.
        cells = rows.to(x.dtype) @ x @ columns.to(x.dtype).T
        down, right = (bilinear_matrices(side, self.grids).to(x.dtype) for side in (height, width))
        maps = []
        for layer, end, count in zip(self.layers, accumulate(self.grids), self.grids, strict=True):
            own = slice(end - count, end)
            maps.append(down[:, own] @ layer(cells[..., own, own]) @ right[:, own].T)
        return torch.cat(maps, dim=1)


def adaptive_average_matrices(positions: int, grids: Sequence[int]) -> Tensor:
    """Return the matrices by which `nn.AdaptiveAvgPool2d` averages along one axis.

    Args:
        positions: Length of the axis, which may be symbolic.
        grids: The number of cells of each grid.

    Returns:
        float32 (sum of grids, positions), with the cells of the first grid first.
    """
    at, (cell, count) = torch.arange(positions), _cells(grids)
    starts = torch.div(cell * positions, count, rounding_mode="floor")[:, None]
    ends = torch.div((cell + 1) * positions + count - 1, count, rounding_mode="floor")[:, None]
    inside = ((at >= starts) & (at < ends)).float()
    return inside / inside.sum(1, keepdim=True)


def bilinear_matrices(positions: int, grids: Sequence[int]) -> Tensor:
    """Return the matrices of a bilinear resize along one axis, with the centres of pixels aligned.

    Args:
        positions: Length of the result, which may be symbolic.
        grids: The length of the axis before the resize, for each grid.

    Returns:
        float32 (positions, sum of grids), with the cells of the first grid first.
    """
    cell, count = _cells(grids)
    at = (torch.arange(positions).float() + 0.5)[:, None] * count / positions - 0.5
    distance = (torch.minimum(at.clamp(min=0), count.float() - 1) - cell).abs()
    return (1 - distance).clamp(min=0)


def _cells(grids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the number of each cell in its grid, and how many this has; int64 (sum of grids,)."""
    return (
        torch.tensor([cell for count in grids for cell in range(count)]),
        torch.tensor([count for count in grids for _ in range(count)]),
    )


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
    output_names = BOX_OUTPUTS
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
    output_names = MASK_OUTPUTS
    total_stride = 1

    def __init__(self, model: Detector) -> None:
        super().__init__()
        heads = model.roi_heads
        self.model = copy.deepcopy(nn.Sequential(heads.mask_head, heads.mask_predictor)).eval()

    def forward(self, regions: Tensor) -> tuple[Tensor]:
        """Map regions (R, C, 14, 14) to logits (R, K + 1, 28, 28)."""
        return (self.model(regions.to(next(self.model.parameters()).dtype)).float(),)
