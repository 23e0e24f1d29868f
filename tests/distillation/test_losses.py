"""The losses of distillation, against values computed by hand in NumPy."""

import numpy as np
import pytest
import torch

from convnextv2.distillation.losses import feature_loss, soft_label_loss


def softmax(logits: np.ndarray) -> np.ndarray:
    grown = np.exp(logits - logits.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_labels_are_the_divergence_of_the_student_from_the_teacher(temperature: float) -> None:
    student, teacher = torch.randn(5, 7), 3 * torch.randn(5, 7)
    p, q = (softmax(logits.double().numpy() / temperature) for logits in (teacher, student))
    expected = temperature**2 * (p * np.log(p / q)).sum(-1).mean()
    found = soft_label_loss(student, teacher, temperature)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(soft_label_loss(teacher, teacher + 2, temperature)) == pytest.approx(0, abs=1e-6)


def test_features_are_compared_with_those_of_the_teacher_at_mean_0_and_variance_1() -> None:
    projected, teacher = torch.randn(4, 3, 9), 50 * torch.randn(4, 3, 9) + 7
    wanted = teacher.double().numpy()
    wanted = (wanted - wanted.mean(-1, keepdims=True)) / wanted.std(-1, keepdims=True)
    expected = ((projected.double().numpy() - wanted) ** 2).mean()
    assert float(feature_loss(projected, teacher)) == pytest.approx(expected, rel=1e-5)
    assert float(feature_loss(torch.zeros(4, 3, 9), teacher)) == pytest.approx(1, rel=1e-5)


def test_half_precision_is_left_for_the_loss() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits = torch.randn(3, 5, dtype=torch.bfloat16)
        assert soft_label_loss(logits, logits.flip(0), 2.0).dtype == torch.float32
        assert feature_loss(logits, logits.flip(0)).dtype == torch.float32
