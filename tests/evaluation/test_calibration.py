"""The temperature that calibrates probabilities, against a grid and against repeated images."""

import numpy as np
import torch
from torch import nn

from convnextv2.evaluation.calibration import fit_temperature
from convnextv2.evaluation.prior import image_shares


def test_calibration_finds_the_temperature_that_the_labels_were_drawn_with() -> None:
    """It also has the smallest loss of all temperatures on a fine grid."""
    draw = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(4000, 5, generator=draw, dtype=torch.float64)
    targets = torch.multinomial(true.softmax(-1), 1, generator=draw)[:, 0]
    fitted = fit_temperature(3 * true, targets)
    assert 2.8 < fitted < 3.2
    grid = {
        t: float(nn.functional.cross_entropy(3 * true / t, targets)) for t in np.arange(2, 4, 0.01)
    }
    assert abs(min(grid, key=grid.get) - fitted) < 0.011


def test_an_image_of_weight_3_calibrates_like_three_images() -> None:
    draw = torch.Generator().manual_seed(1)
    logits = 4 * torch.randn(300, 3, generator=draw, dtype=torch.float64)
    targets = torch.multinomial((logits / 2).softmax(-1), 1, generator=draw)[:, 0]
    # Probabilities for equal frequencies: the classes of 100, 50 and 20 images count alike.
    balance = {"class_counts": [100, 50, 20], "prior": "balanced", "done": ""}
    known = torch.tensor([0] * 6 + [1] * 3 + [2] * 2)
    shares = image_shares(balance, known.numpy())
    np.testing.assert_allclose(shares * 18, [1] * 6 + [2] * 3 + [3] * 2)
    assert image_shares(balance | {"prior": "natural"}, known.numpy()) is None
    weights = torch.tensor([1.0, 2.0, 3.0])[targets]
    repeated = torch.arange(300).repeat_interleave(weights.long())
    expected = fit_temperature(logits[repeated], targets[repeated])
    assert fit_temperature(logits, targets, weights) == expected != fit_temperature(logits, targets)
