"""Batches, and the joining of prepared images into a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from convnextv2.data.dense.source import Sample
from convnextv2.data.left_out import Failure
from convnextv2.data.shared_memory import stack
from convnextv2.errors import StorageError

Collate = Callable[[Sequence[Any]], Any]
"""Joins the targets of a batch's samples. The batch may be empty."""


class Batch(NamedTuple):
    """One batch.

    If the transform makes several versions of each image, the first version of all of them comes
    first, and targets and indices are repeated.

    Attributes:
        pixels: uint8 (N, C, H, W), channels-last in memory.
        targets: int64 (N,), class indices, -1 without a label; or int64 (N, K) if images may have
            several labels, see `source.Targets`. For annotated images, the result of the loader's
            `collate`: a tensor (N, ...), or a list of N items.
        indices: int64 (N,), into the source.
    """

    pixels: Tensor
    targets: Any
    indices: Tensor


Item = tuple[int, Tensor | Sample | Failure]
"""The index of an image, and its prepared pixels or the reason why there are none."""


class Prepared(NamedTuple):
    """A batch, and the reasons why other images of it are missing, by their indices."""

    batch: Batch
    failures: dict[int, Failure]


def join(
    targets: np.ndarray[Any, Any] | None,
    shape: tuple[int, int, int],
    collate: Collate | None,
    items: Sequence[Item],
) -> Prepared:
    """Join prepared images into a batch.

    Args:
        targets: The targets of all images, by index; None without labels.
        shape: The shape of a prepared image. An empty batch has it too.
        collate: Joins the targets of annotated images; None for other images.
        items: The prepared images, or the reasons why there are none.
    """
    good = [(index, image) for index, image in items if isinstance(image, Tensor | Sample)]
    failures = {index: why for index, why in items if not isinstance(why, Tensor | Sample)}
    empty = torch.empty(0, *shape, dtype=torch.uint8)
    try:
        pixels = _stack_pixels([_pixels_of(image) for _, image in good]) if good else empty
        annotations = [image.target for _, image in good if isinstance(image, Sample)]
        joined = collate(annotations) if collate is not None else None
    except StorageError as error:
        good, failures = [], {index: error for index, _ in items}
        pixels, joined = empty, collate([]) if collate is not None else None
    indices = torch.tensor([index for index, _ in good], dtype=torch.int64)
    if pixels.dim() == 5:
        indices = indices.repeat(pixels.shape[1])
        pixels = pixels.transpose(0, 1).flatten(0, 1)
    if good:
        pixels = pixels.permute(0, 3, 1, 2)
    if collate is not None:
        return Prepared(Batch(pixels, joined, indices), failures)
    known = (
        torch.full_like(indices, -1)
        if targets is None
        else torch.from_numpy(targets[indices.numpy()].astype(np.int64))
    )
    return Prepared(Batch(pixels, known, indices), failures)


def _pixels_of(image: Tensor | Sample) -> Tensor:
    return image.pixels if isinstance(image, Sample) else image


def _stack_pixels(images: Sequence[Tensor]) -> Tensor:
    """Stack the images channels-last, which is their layout in memory and that of the network."""
    return stack([pixels.movedim(-3, -1) for pixels in images])
