"""Masks of objects, each cropped to its own box, so that hundreds of objects need little memory.

A stack of whole masks takes n x H x W bytes, and four times that while the loss is computed. The
memory of cropped masks depends only on the sizes of the objects.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import roi_align


def resample(pixels: Tensor, places: Tensor, boxes: Tensor, objects: Tensor, side: int) -> Tensor:
    """Crop boxes from masks and resample them.

    The result is that of `roi_align` on whole masks.

    Args:
        pixels: uint8 (P,), the cropped masks of an image one after another, row by row.
        places: int64 (n, 5) on the CPU: where each mask begins in `pixels`, then y, x, height and
            width of its place in the image. A mask must be surrounded by two rows and columns of
            zeros, except at the edges of the image.
        boxes: float32 (m, 4), x0, y0, x1, y1 in the image.
        objects: int64 (m,), the object whose mask each box is cropped from.
        side: The side of the result.

    Returns:
        float32 (m, side, side).
    """
    cut = boxes.new_zeros(len(boxes), side, side)
    boxes_of: dict[int, list[int]] = {}
    for box, number in enumerate(objects.tolist()):
        boxes_of.setdefault(number, []).append(box)
    for number, of_this in boxes_of.items():
        start, top, left, height, width = places[number].tolist()
        mask = pixels[start : start + height * width].view(1, 1, height, width).to(boxes.dtype)
        chosen = torch.tensor(of_this, device=objects.device)
        moved = boxes[chosen] - boxes.new_tensor([left, top, left, top])
        cut[chosen] = roi_align(mask, [moved], (side, side), 1.0)[:, 0]
    return cut
