"""Losses against torch.nn.functional, timm and sums by hand."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from convnextv2.evaluation.losses import (
    asymmetric_multi_label,
    asymmetric_single_label,
    binary_cross_entropy,
    cross_entropy,
    jensen_shannon,
    known_asymmetric,
    known_binary_cross_entropy,
)

MINDCV = json.loads((Path(__file__).parents[1] / "fixtures" / "mindcv" / "losses.json").read_text())
LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])


def soft_targets(n: int, k: int) -> torch.Tensor:
    return torch.rand(n, k, generator=torch.Generator().manual_seed(1)).softmax(-1)


def test_cross_entropy_is_the_mean_negative_log_probability():
    first = -math.log(math.exp(2) / (math.exp(2) + 1 + math.exp(-1)))
    second = -math.log(math.exp(0.5) / (2 * math.exp(0.5) + math.exp(3)))
    assert float(cross_entropy(LOGITS, torch.tensor([0, 1]))) == pytest.approx(
        (first + second) / 2, rel=1e-6
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_smooths_hard_and_soft_targets_alike(smoothing, soft):
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = soft_targets(7, 5) if soft else torch.arange(7) % 5
    distribution = (targets if soft else F.one_hot(targets, 5)).double()
    smooth = distribution * (1 - smoothing) + smoothing / 5
    expected = -(smooth * logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(
        cross_entropy(logits, targets, smoothing), expected, rtol=1e-7, atol=0
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_equals_timms(smoothing):
    timm_loss = pytest.importorskip("timm.loss").BinaryCrossEntropy(smoothing=smoothing)
    targets = torch.tensor([2, 0])
    torch.testing.assert_close(
        binary_cross_entropy(LOGITS, targets, smoothing), timm_loss(LOGITS, targets)
    )


def test_binary_cross_entropy_averages_over_images_and_classes():
    smooth = [[0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3], [0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]]
    total = 0.0
    for logits, row in zip(LOGITS.tolist(), smooth, strict=True):
        for logit, target in zip(logits, row, strict=True):
            prob = 1 / (1 + math.exp(-logit))
            total -= target * math.log(prob) + (1 - target) * math.log(1 - prob)
    for targets in (torch.tensor([2, 0]), F.one_hot(torch.tensor([2, 0]), 3).float()):
        assert float(binary_cross_entropy(LOGITS, targets, 0.1)) == pytest.approx(
            total / 6, rel=1e-6
        )


@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy])
def test_losses_are_computed_in_float32_at_least(loss):
    targets = torch.tensor([0, 1])
    for dtype in (torch.bfloat16, torch.float16):
        value = loss(LOGITS.to(dtype), targets, 0.1)
        assert value.dtype == torch.float32
        assert value == loss(LOGITS.to(dtype).float(), targets, 0.1)
        assert loss(LOGITS.to(dtype), soft_targets(2, 3)).dtype == torch.float32
    assert loss(LOGITS.double(), targets).dtype == torch.float64


@pytest.mark.parametrize(
    "case", MINDCV["cases"], ids=lambda case: "-".join(map(str, case.values()))
)
def test_losses_are_mindcvs(case):
    loss = {"CE": cross_entropy, "BCE": binary_cross_entropy}[case["loss"]]
    targets = torch.tensor(MINDCV[f"{case['target']}_target"])
    value = loss(
        torch.tensor(MINDCV["logits"]), targets, case["label_smoothing"], case["reduction"]
    )
    assert value.item() == pytest.approx(case["value"], rel=1e-6)


def test_asymmetric_losses_are_mindcvs():
    logits = torch.tensor(MINDCV["logits"])
    single, multi = MINDCV["asl_single_label"], MINDCV["asl_multi_label"]
    value = asymmetric_single_label(
        logits, torch.tensor(MINDCV["index_target"]), single["label_smoothing"]
    )
    assert value.item() == pytest.approx(single["value"], rel=1e-6)
    value = asymmetric_multi_label(logits, torch.tensor(multi["target"]), multi["label_smoothing"])
    assert value.item() == pytest.approx(multi["value"], rel=1e-6)


def test_asymmetric_losses_take_one_hot_and_index_targets_alike():
    targets = torch.tensor([2, 0])
    for loss in (asymmetric_single_label, asymmetric_multi_label):
        assert loss(LOGITS, targets) == loss(LOGITS, F.one_hot(targets, 3).float())


KNOWN = torch.tensor([[1, 0, -1], [0, -1, 1]])


def test_known_binary_cross_entropy_is_the_mean_over_known_labels():
    logits = torch.tensor([[1.0, -2.0, 9.0], [0.5, 9.0, 0.0]], dtype=torch.float64)

    def term(logit: float, target: float, weight: float = 1.0) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -(weight * target * math.log(p) + (1 - target) * math.log(1 - p))

    known = [(1.0, 1, 2.0), (-2.0, 0, 3.0), (0.5, 0, 2.0), (0.0, 1, 4.0)]
    expected = sum(term(logit, target) for logit, target, _ in known) / 4
    assert known_binary_cross_entropy(logits, KNOWN).item() == pytest.approx(expected, rel=1e-12)
    soft = KNOWN.double().masked_fill(KNOWN < 0, torch.nan)
    assert known_binary_cross_entropy(logits, soft).item() == pytest.approx(expected, rel=1e-12)
    total = known_binary_cross_entropy(logits, KNOWN, reduction="sum").item()
    assert total == pytest.approx(4 * expected, rel=1e-12)
    weights = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)
    expected = sum(term(*one) for one in known) / 4
    value = known_binary_cross_entropy(logits, KNOWN, pos_weight=weights).item()
    assert value == pytest.approx(expected, rel=1e-12)
    expected = sum(term(logit, 0.9 * target + 0.05) for logit, target, _ in known) / 4
    value = known_binary_cross_entropy(logits, KNOWN, 0.1).item()
    assert value == pytest.approx(expected, rel=1e-12)
    assert known_binary_cross_entropy(logits, torch.full_like(KNOWN, -1)).item() == 0


def test_known_losses_learn_nothing_from_unknown_labels():
    for loss in (known_binary_cross_entropy, known_asymmetric):
        logits = torch.zeros(2, 3, requires_grad=True)
        soft = KNOWN.float().masked_fill(KNOWN < 0, torch.nan)
        loss(logits, soft).backward()
        assert ((logits.grad == 0) == (KNOWN < 0)).all() and logits.grad.isfinite().all()


def test_known_asymmetric_loss_is_the_authors_divided_by_the_images():
    logits, multi = torch.tensor(MINDCV["logits"]), MINDCV["asl_multi_label"]
    value = known_asymmetric(logits, torch.tensor(multi["target"]))
    assert value.item() == pytest.approx(multi["value"] / len(logits), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_jensen_shannon_equals_timms(smoothing):
    timm_loss = pytest.importorskip("timm.loss").JsdCrossEntropy(
        num_splits=3, alpha=12, smoothing=smoothing
    )
    logits = torch.randn(12, 5, generator=torch.Generator().manual_seed(2))
    targets = (torch.arange(4) % 3).repeat(3)
    torch.testing.assert_close(
        jensen_shannon(logits, targets, smoothing), timm_loss(logits, targets)
    )


WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 4.0], dtype=torch.float64)


def slowly(logits: torch.Tensor, soft: torch.Tensor, smoothing: float, binary: bool) -> float:
    """The weighted loss from its definition, image by image and class by class."""
    total = 0.0
    for row, target in zip(logits.tolist(), soft.tolist(), strict=True):
        weight = sum(t * w for t, w in zip(target, WEIGHTS.tolist(), strict=True))
        smooth = [t * (1 - smoothing) + smoothing / 4 for t in target]
        norm = math.log(sum(math.exp(f) for f in row))
        for t, f in zip(smooth, row, strict=True):
            p = 1 / (1 + math.exp(-f))
            term = (t * math.log(p) + (1 - t) * math.log(1 - p)) / 4 if binary else t * (f - norm)
            total -= weight * term
    return total / len(logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy])
def test_class_weights_follow_their_definition_for_hard_and_mixed_targets(loss, smoothing):
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 3, 3, 1])
    soft = F.one_hot(targets, 4).double()
    mixed = 0.3 * soft + 0.7 * soft.flip(0)
    binary = loss is binary_cross_entropy
    for given, rows in ((targets, soft), (soft, soft), (mixed, mixed)):
        expected = slowly(logits, rows, smoothing, binary)
        found = loss(logits, given, smoothing, "mean", WEIGHTS)
        assert float(found) == pytest.approx(expected, rel=1e-12)
        images = 24 if binary else 6
        summed = loss(logits, given, smoothing, "sum", WEIGHTS)
        assert float(summed) == pytest.approx(images * expected, rel=1e-12)
    ones = loss(logits, mixed, smoothing, "mean", torch.ones(4, dtype=torch.float64))
    assert float(ones) == pytest.approx(float(loss(logits, mixed, smoothing)), rel=1e-12)


def test_class_weights_keep_float32_in_autocast():
    logits = torch.zeros(2, 4, dtype=torch.bfloat16)
    mixed = torch.tensor([[0.7, 0.3, 0, 0], [0, 0, 0.9, 0.1]])
    weights = torch.tensor([1.001, 0.999, 1.003, 1.0])
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(logits, mixed, 0.0, "mean", weights)
    expected = math.log(4) * (0.7 * 1.001 + 0.3 * 0.999 + 0.9 * 1.003 + 0.1) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6)
