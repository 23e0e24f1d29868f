import math

import pytest
import torch
from torch import nn

from convnextv2.training.ema import WeightAverage, decay_at


def test_average_follows_its_formula_and_swaps_in_and_out() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 2.0)
    average = WeightAverage(model, decay=0.5)
    expected = 2.0
    for step, value in enumerate([3.0, 5.0, 9.0], start=1):
        nn.init.constant_(model.weight, value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert torch.allclose(average.tensors["weight"], torch.tensor(expected, dtype=torch.float64))
    with average.in_model():
        assert torch.allclose(model.weight, torch.tensor(expected, dtype=torch.float64))
    assert model.weight.item() == 9.0


def test_each_form_of_the_decay_by_hand() -> None:
    assert [decay_at(step, 0.9999, "warmup") for step in (1, 8)] == [2 / 11, 0.5]
    assert decay_at(10**7, 0.9999, "warmup") == 0.9999
    assert decay_at(2000, 0.9999, "mindcv") == pytest.approx(0.9999 * (1 - math.exp(-1)))
    assert decay_at(1, 0.9999, "constant") == 0.9999
