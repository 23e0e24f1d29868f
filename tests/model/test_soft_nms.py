import numpy as np
import pytest
import torch

from convnextv2.model.soft_nms import soft_nms


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return common / (area(a) + area(b) - common)


def plainly(
    boxes: list[list[float]], scores: list[float], threshold: float, least: float
) -> list[tuple[int, float]]:
    """Algorithm 1 of Bodla et al. with the linear weight, pair by pair."""
    left = dict(enumerate(scores))
    kept = []
    while left:
        best = max(left, key=lambda i: left[i])
        score = left.pop(best)
        if score < least:
            continue
        kept.append((best, score))
        for i in left:
            overlap = iou(boxes[best], boxes[i])
            if overlap >= threshold:
                left[i] *= 1 - overlap
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_soft_nms_equals_its_plain_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 40, (60, 2))
    boxes = np.concatenate([corners, corners + random.uniform(5, 40, (60, 2))], axis=1)
    scores = random.uniform(0.01, 1, 60)
    kept, found = soft_nms(torch.tensor(boxes), torch.tensor(scores), min_score=0.05)
    expected = plainly(boxes.tolist(), scores.tolist(), 0.5, 0.05)
    assert kept.tolist() == [i for i, _ in expected]
    assert found.tolist() == pytest.approx([score for _, score in expected], rel=1e-12)
    assert len(expected) < 60


def test_a_value_computed_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 8], [20.0, 0, 30, 10]])
    kept, scores = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.5]))
    assert kept.tolist() == [0, 2, 1]  # IoU 0.8 leaves a fifth of the second score
    assert scores.tolist() == pytest.approx([0.9, 0.5, 0.16])


def test_soft_nms_of_no_boxes_keeps_none() -> None:
    kept, scores = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert len(kept) == len(scores) == 0
