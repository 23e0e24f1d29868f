"""Evaluate any function from images to logits on labelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.evaluation.losses import cross_entropy
from convnextv2.evaluation.metrics import ClassifierEvaluation, add_over_ranks, count, summarise

if TYPE_CHECKING:
    from convnextv2.data.batch import Batch


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions for the images of this rank, in the order of evaluation.

    Attributes:
        indices: int64 (N,), the indices of the images in the source.
        targets: int64 (N,).
        classes: int64 (N, k), the k = min(5, num_classes) most probable classes, best first.
        probs: float32 (N, k), the probabilities of these classes.
    """

    indices: NDArray[np.int64]
    targets: NDArray[np.int64]
    classes: NDArray[np.int64]
    probs: NDArray[np.float32]


def evaluate(
    logits_fn: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    *,
    num_classes: int,
    to_images: Callable[[Tensor], Tensor],
    loss_fn: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    place: Place | None = None,
) -> tuple[ClassifierEvaluation, Predictions]:
    """Evaluate on batches that hold every image once.

    Args:
        logits_fn: Maps images (N, C, H, W) to logits (N, num_classes).
        batches: The batches of the loader.
        num_classes: The number of classes of the model.
        to_images: Maps uint8 pixels (N, C, H, W) from the loader to normalised images on the
            device of `logits_fn`.
        loss_fn: Maps (logits, targets) to the mean loss of the batch.
        place: This rank. Each rank has its own images, and all ranks call this function. None
            stands for a single process.

    Returns:
        The evaluation of the images of all ranks, and the predictions of this rank.

    Raises:
        DataError: A target is not one of the classes, or there is no image.
    """
    k = min(5, num_classes)
    indices: list[Tensor] = []
    targets: list[Tensor] = []
    classes: list[Tensor] = []
    probs: list[Tensor] = []
    losses: list[Tensor] = []
    # Results stay on the device until the end, so that the host does not wait after each batch.
    with torch.inference_mode():
        for batch in batches:
            _check_targets(batch.targets, num_classes)
            logits = logits_fn(to_images(batch.pixels)).float()
            assert logits.shape == (len(batch.targets), num_classes)
            losses.append(loss_fn(logits, batch.targets.to(logits.device)) * len(batch.targets))
            # Ordered by logits, because the probabilities of unlikely classes may be equal even if
            # their logits are not.
            classes.append(logits.topk(k).indices)
            probs.append(logits.softmax(-1).gather(1, classes[-1]))
            # Cloned, because each tensor from a worker process keeps a file open.
            indices.append(batch.indices.clone())
            targets.append(batch.targets.clone())
    # If there are more ranks than images, a rank may have no image. Its counts are then zero.
    all_indices, all_targets = _on_cpu(indices, (0,)).long(), _on_cpu(targets, (0,)).long()
    all_classes, all_probs = _on_cpu(classes, (0, k)).long(), _on_cpu(probs, (0, k))
    loss_sum = float(_on_cpu([loss[None] for loss in losses], (0,)).double().sum())
    counts = count(all_targets, all_classes, all_probs[:, 0], loss_sum, num_classes)
    if place is not None:
        counts = add_over_ranks(counts, place)
    predictions = Predictions(
        all_indices.numpy(), all_targets.numpy(), all_classes.numpy(), all_probs.numpy()
    )
    return summarise(counts, num_classes), predictions


def _on_cpu(parts: list[Tensor], empty: tuple[int, ...]) -> Tensor:
    return torch.cat(parts).cpu() if parts else torch.empty(empty)


def _check_targets(targets: Tensor, num_classes: int) -> None:
    wrong = targets[(targets < 0) | (targets >= num_classes)]
    if len(wrong):
        raise DataError(
            f"target = {int(wrong[0])}: is not a class of the model, which has {num_classes} (0 to "
            f"{num_classes - 1}). Evaluate on images with labels of these classes."
        )


def autocast_logits(
    model: nn.Module, place: Place, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """Return a function from images to float32 logits that computes in a given precision.

    Args:
        model: Maps images (N, C, H, W) to logits (N, classes).
        place: This rank.
        dtype: The precision of the forward pass.
    """

    def logits(images: Tensor) -> Tensor:
        with place.autocast(dtype):
            return model(images).float()

    return logits
