"""Score labelled images that may have any number of labels, over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.evaluation.losses import known_binary_cross_entropy
from convnextv2.evaluation.multi_label_metrics import MultiLabelEvaluation, summarise_labels
from convnextv2.evaluation.thresholds import fit_thresholds

if TYPE_CHECKING:
    from convnextv2.data.batch import Batch


@dataclass(frozen=True, eq=False)
class LabelScores:
    """The scores of the images of all ranks, in the order of the source.

    Attributes:
        indices: int64 (N,), the indices of the images in the source. Images that could not be read
            are missing.
        logits: float32 (N, K).
        targets: int8 (N, K); see `source.Targets`.
    """

    indices: NDArray[np.int64]
    logits: NDArray[np.float32]
    targets: NDArray[np.int8]

    @property
    def probs(self) -> NDArray[np.float32]:
        """The probability of each class, float32 (N, K)."""
        found: NDArray[np.float32] = torch.from_numpy(self.logits).sigmoid().numpy()
        return found

    def thresholds(self) -> list[float]:
        """Fit a threshold for each class."""
        return fit_thresholds(self.probs, self.targets)

    def evaluation(self, thresholds: Iterable[float] = ()) -> MultiLabelEvaluation:
        """Compute the figures.

        Args:
            thresholds: A threshold for each class; empty for none.

        Raises:
            DataError: There is no image.
        """
        loss = known_binary_cross_entropy(
            torch.from_numpy(self.logits).double(), torch.from_numpy(self.targets)
        )
        return summarise_labels(
            self.probs, self.targets, float(loss), tuple(thresholds), self.logits
        )


def score_labels(
    logits_fn: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    *,
    images: int,
    num_classes: int,
    to_images: Callable[[Tensor], Tensor],
    place: Place | None = None,
) -> LabelScores:
    """Score batches that hold every image once over all ranks.

    Args:
        logits_fn: Maps images (N, C, H, W) to logits (N, num_classes).
        batches: The batches of the loader of this rank.
        images: The number of images in the source.
        num_classes: The number of classes of the model.
        to_images: Maps uint8 pixels to normalised images; see `evaluate`.
        place: This rank. All ranks call this function. None stands for a single process.

    Returns:
        The scores of the images of all ranks, the same on every rank.

    Raises:
        DataError: Images have labels of another number of classes.
    """
    # Each rank writes the rows of its own images, and the others add zeros. The sum thus has the
    # exact logits, in the same order on any number of ranks.
    logits = torch.zeros(images, num_classes)
    targets = torch.zeros(images, num_classes, dtype=torch.int64)
    seen = torch.zeros(images, dtype=torch.int64)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.inference_mode():
        for batch in batches:
            if batch.targets.shape[1:] != (num_classes,):
                raise DataError(
                    f"labels of shape {tuple(batch.targets.shape)}: expected one column for each "
                    f"of the model's {num_classes} classes. Give a table with several labels for "
                    "each image."
                )
            # Results stay on the device, so that the host does not wait after each batch.
            scores = logits_fn(to_images(batch.pixels)).float()
            parts.append((batch.indices.clone(), scores, batch.targets.clone()))
    for indices, scores, labels in parts:
        logits[indices], targets[indices], seen[indices] = scores.cpu(), labels, 1
    if place is not None and place.world_size > 1:
        logits, targets, seen = place.sum(logits), place.sum(targets), place.sum(seen)
    chosen = torch.nonzero(seen).flatten()
    return LabelScores(
        chosen.numpy(), logits[chosen].numpy(), targets[chosen].to(torch.int8).numpy()
    )
