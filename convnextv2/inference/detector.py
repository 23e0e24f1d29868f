"""A detector that is ready to use: from the pixels of an image to its objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.data.dense import rle
from convnextv2.data.dense.objects_geometry import ObjectEvalTransform
from convnextv2.data.dense.rle import Rle
from convnextv2.data.transforms import normaliser
from convnextv2.device import autocast
from convnextv2.evaluation.detection import FoundObjects
from convnextv2.model.detector import Detector


class ObjectFinder:
    """Finds the objects in images, one image at a time.

    `ObjectEvalTransform` resizes an image. This class normalises it and pads it with zeros to a
    multiple of the total stride.

    Args:
        model: The network in evaluation mode.
        transform: The preprocessing of images.
        class_names: The names of the classes.
        device: Where to compute.
        dtype: The precision of the forward pass.
    """

    def __init__(
        self,
        model: Detector,
        transform: ObjectEvalTransform,
        class_names: list[str],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.model, self.transform, self.class_names = model.to(device), transform, class_names
        self._device, self._dtype = device, dtype
        how = transform.preprocessing
        self._normalise = normaliser(how)

    @property
    def has_masks(self) -> bool:
        """True if the detector also predicts masks."""
        return self.model.has_masks

    def __call__(
        self,
        pixels: Tensor,
        original: tuple[int, int],
        index: int = 0,
        *,
        threshold: float = 0.0,
        masks: bool = True,
    ) -> FoundObjects:
        """Find the objects in an image.

        Args:
            pixels: uint8 (C, h, w), as `ObjectEvalTransform` prepares them.
            original: Height and width of the image before that.
            index: The index of the image in its source.
            threshold: Objects with a lower score are left out. Their masks take no time.
            masks: Whether to return masks, if the detector predicts them.

        Returns:
            The objects, in px of the original image. Masks are encoded one by one, so that no more
            than one is in memory as pixels.
        """
        with torch.inference_mode(), autocast(self._device, self._dtype):
            images = padded(
                self._normalise(channels_last(pixels[None]).to(self._device)),
                self.model.encoder.total_stride,
            )
            size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
            [found] = self.model(images, [size], threshold=threshold, masks=masks)
        scale = np.array([original[1] / size[1], original[0] / size[0]] * 2)
        boxes = found["boxes"].double().cpu().numpy() * scale
        pasted = None
        if "masks" in found:
            probs = found["masks"].float().cpu()
            pasted = tuple(
                paste(prob, box, original) for prob, box in zip(probs, boxes, strict=True)
            )
        return FoundObjects(
            index,
            boxes,
            found["scores"].double().cpu().numpy(),
            found["labels"].cpu().numpy(),
            pasted,
        )


def padded(images: Tensor, multiple: int) -> Tensor:
    """Pad images (N, C, H, W) with zeros at the right and bottom to multiples of `multiple`."""
    height, width = images.shape[-2:]
    return F.pad(images, [0, -width % multiple, 0, -height % multiple])


def channels_last(pixels: Tensor) -> Tensor:
    """Lay out pixels (N, C, H, W) in memory as the loader does."""
    return pixels.contiguous(memory_format=torch.channels_last)


def paste(probs: Tensor, box: NDArray[np.float64], size: tuple[int, int]) -> Rle:
    """Stretch the predicted mask of an object over its box, and cut it at a probability of 0.5.

    Args:
        probs: float32 (s, s), the probabilities at the centres of s x s equal parts of the box.
        box: float64 (4,), x0, y0, x1, y1 in px.
        size: Height and width of the image.

    Returns:
        The mask of the whole image.
    """
    x0, y0, x1, y1 = box.tolist()
    top, bottom = max(0, int(np.floor(y0))), min(size[0], int(np.ceil(y1)))
    left, right = max(0, int(np.floor(x0))), min(size[1], int(np.ceil(x1)))
    if bottom <= top or right <= left or x1 <= x0 or y1 <= y0:
        return rle.encode_within(np.zeros((0, 0), bool), (0, 0), size)
    # From -1 to 1 over the box, at the centres of pixels.
    y = (torch.arange(top, bottom, dtype=torch.float64) + 0.5 - y0) / (y1 - y0) * 2 - 1
    x = (torch.arange(left, right, dtype=torch.float64) + 0.5 - x0) / (x1 - x0) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).float()
    stretched = F.grid_sample(probs[None, None], grid[None], align_corners=False)[0, 0]
    return rle.encode_within((stretched >= 0.5).numpy(), (top, left), size)


def coco_results(
    found: FoundObjects, image_id: Any, category_ids: list[int], threshold: float = 0.0
) -> list[dict[str, Any]]:
    """Write the objects found in an image as COCO's results.

    Args:
        found: The objects.
        image_id: The id of the image in the results.
        category_ids: The id of each class.
        threshold: Objects with a lower score are left out.
    """
    results = []
    for i, (x0, y0, x1, y1) in enumerate(found.boxes.tolist()):
        if found.scores[i] < threshold:
            continue
        record: dict[str, Any] = {
            "image_id": image_id,
            "category_id": category_ids[int(found.labels[i])],
            "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
            "score": round(float(found.scores[i]), 5),
        }
        if found.masks is not None:
            record["segmentation"] = rle.to_json(found.masks[i])
        results.append(record)
    return results
