import math

import pytest
import torch
from torch import nn

from convnextv2.errors import TrainingError
from convnextv2.training.health import LossWatch, check_weights, gradient_norm


def test_the_gradient_norm_is_that_of_all_gradients_in_one_row() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    model(torch.randn(5, 3)).sum().backward()
    model[1].bias.grad = None
    flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert float(gradient_norm(model.parameters())) == pytest.approx(float(flat.norm()), rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -2e8])
def test_weights_that_exploded_are_not_saved(value: float) -> None:
    weights = {"a": torch.ones(3), "count": torch.tensor(10**12), "b": torch.ones(2, 2)}
    check_weights(weights, 7)
    weights["b"][1, 0] = value
    with pytest.raises(TrainingError, match="b: has a weight of .* after step 7"):
        check_weights(weights, 7)


def test_a_spike_is_told_and_noise_is_not() -> None:
    watch = LossWatch()
    assert not any(watch.check(2.0 + 0.5 * math.sin(i)) for i in range(40))
    assert "2.5 times the median" in watch.check(5.0) or "a spike" in watch.check(5.0)
    assert watch.check(2.0) == ""
    assert LossWatch().check(1e9) == ""  # nothing to compare with
    assert "a spike" in LossWatch(losses=[1.0] * 5).check(2.1)


def test_a_loss_that_stands_at_the_baseline_is_told_once() -> None:
    watch = LossWatch(baseline=1.0)
    lines = [watch.check(1.0 + 0.001 * (-1) ** i) for i in range(60)]
    assert [i for i, line in enumerate(lines) if line] == [19]
    falling = LossWatch(baseline=1.0)
    assert not any(falling.check(1.0 - 0.001 * i) for i in range(60))
