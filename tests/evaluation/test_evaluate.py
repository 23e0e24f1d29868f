"""evaluate: every image counts once, whatever the batches and the ranks."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.evaluation.evaluate import Predictions, evaluate
from convnextv2.evaluation.losses import binary_cross_entropy, cross_entropy
from convnextv2.evaluation.metrics import ClassifierEvaluation


class Batch(NamedTuple):
    pixels: Tensor
    targets: Tensor
    indices: Tensor


GENERATOR = torch.Generator().manual_seed(0)
PIXELS = torch.randint(0, 256, (23, 1, 2, 3), dtype=torch.uint8, generator=GENERATOR)
TARGETS = torch.randint(0, 6, (23,), generator=GENERATOR)
WEIGHT = torch.randn(6, 6, generator=GENERATOR)


def logits_of(images: Tensor) -> Tensor:
    return images.flatten(1) @ WEIGHT


def to_images(pixels: Tensor) -> Tensor:
    assert pixels.dtype == torch.uint8
    return pixels.float() / 64 - 2


def batches(size: int, part: slice = slice(None)) -> list[Batch]:
    whole = (PIXELS[part], TARGETS[part], torch.arange(23)[part])
    return [Batch(*parts) for parts in zip(*(tensor.split(size) for tensor in whole), strict=True)]


@pytest.mark.parametrize("loss_fn", [cross_entropy, binary_cross_entropy])
@pytest.mark.parametrize("size", [1, 7, 23])
def test_the_batch_size_changes_nothing(size, loss_fn):
    logits = logits_of(to_images(PIXELS))
    evaluation, _ = evaluate(
        logits_of, batches(size), num_classes=6, to_images=to_images, loss_fn=loss_fn
    )
    assert evaluation.images == 23
    assert evaluation.loss == pytest.approx(float(loss_fn(logits, TARGETS)), rel=1e-5)
    assert evaluation.top1 == pytest.approx(float((logits.argmax(1) == TARGETS).double().mean()))
    assert evaluation.top5 == pytest.approx(
        float((logits.topk(5).indices == TARGETS[:, None]).any(1).double().mean())
    )


def test_predictions_name_each_image_with_its_best_classes():
    _, predictions = evaluate(logits_of, batches(7)[::-1], num_classes=6, to_images=to_images)
    probs = logits_of(to_images(PIXELS)).softmax(-1)
    assert sorted(predictions.indices.tolist()) == list(range(23))
    order = np.argsort(predictions.indices)
    np.testing.assert_array_equal(predictions.targets[order], TARGETS)
    np.testing.assert_array_equal(predictions.classes[order], probs.topk(5).indices)
    np.testing.assert_allclose(predictions.probs[order], probs.topk(5).values, rtol=1e-5)


@dataclass(frozen=True)
class Rank(Place):
    """A rank that is a thread of this process."""

    others: tuple[list[Tensor], threading.Barrier] = field(
        default_factory=lambda: ([], threading.Barrier(1))
    )

    def sum(self, counts: Tensor) -> Tensor:
        tensors, barrier = self.others
        tensors[self.rank] = counts
        barrier.wait(10)
        total = torch.stack(tensors).sum(0)
        barrier.wait(10)
        return total


def test_ranks_with_any_share_add_up_to_one_process():
    """The third rank has no image at all."""
    whole, _ = evaluate(logits_of, batches(23), num_classes=6, to_images=to_images)
    others = ([torch.empty(0)] * 3, threading.Barrier(3))
    parts = [batches(4, slice(0, 13)), batches(4, slice(13, 23)), []]

    def rank(number: int) -> tuple[ClassifierEvaluation, Predictions]:
        place = Rank(torch.device("cpu"), number, 3, 3, others)
        return evaluate(logits_of, parts[number], num_classes=6, to_images=to_images, place=place)

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(rank, range(3)))
    assert [len(predictions.targets) for _, predictions in results] == [13, 10, 0]
    assert results[2][1].classes.shape == (0, 5)
    for summed, _ in results:
        assert summed.images == 23
        np.testing.assert_array_equal(summed.pairs, whole.pairs)
        assert (summed.top1, summed.top5, summed.macro_f1) == (
            whole.top1,
            whole.top5,
            whole.macro_f1,
        )
        assert summed.loss == pytest.approx(whole.loss, rel=1e-6)
        assert summed.ece == pytest.approx(whole.ece, rel=1e-6)


def test_logits_of_low_precision_are_measured_in_float32():
    evaluation, predictions = evaluate(
        lambda images: logits_of(images).bfloat16(), batches(7), num_classes=6, to_images=to_images
    )
    assert predictions.probs.dtype == np.float32 and predictions.probs.shape == (23, 5)
    expected = cross_entropy(logits_of(to_images(PIXELS)).bfloat16(), TARGETS)
    assert evaluation.loss == pytest.approx(float(expected), rel=1e-5)


def test_nothing_is_differentiated():
    weight = WEIGHT.clone().requires_grad_()
    evaluate(
        lambda images: images.flatten(1) @ weight, batches(7), num_classes=6, to_images=to_images
    )
    assert weight.grad is None


@pytest.mark.parametrize("target", [-1, 6])
def test_a_target_that_is_no_class_is_an_error_of_the_user(target):
    batch = Batch(PIXELS[:1], torch.tensor([target]), torch.tensor([0]))
    with pytest.raises(DataError, match=f"target = {target}"):
        evaluate(logits_of, [batch], num_classes=6, to_images=to_images)


def test_no_image_is_an_error_of_the_user():
    with pytest.raises(DataError, match="No image"):
        evaluate(logits_of, [], num_classes=6, to_images=to_images)
