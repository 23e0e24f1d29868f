"""Maps that explain an answer, against their definitions computed by brute force."""

import numpy as np
import pytest
import torch
from model.reference import randomise

from convnextv2.deploy.graph import Graph
from convnextv2.inference.explanation import (
    Question,
    activation_map,
    enlarge,
    occlusion_map,
    starts,
)
from convnextv2.model.convnext import ConvNeXtV2

CLASSES = 4


def network(**arguments) -> ConvNeXtV2:
    arguments = {"num_classes": CLASSES, "stem_stride": 2} | arguments
    model = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), **arguments)
    return randomise(model.double()).eval()


def image(height: int = 48, width: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, height, width, dtype=torch.float64, generator=generator)


def fixed_logit(model: ConvNeXtV2, encoded: np.ndarray, sigma: float, row: int) -> float:
    """The head by hand, (h, w, D) to the logit, with the deviation of the norm as a constant."""
    weight, bias = model.norm.weight.detach().numpy(), model.norm.bias.detach().numpy()
    pooled = encoded.mean((0, 1))
    normed = (pooled - pooled.mean()) / sigma * weight + bias
    weights, biases = model.head.weight.detach().numpy(), model.head.bias.detach().numpy()
    return float(weights[row] @ normed + biases[row])


@pytest.mark.parametrize("row", range(CLASSES))
def test_the_activation_is_what_each_position_adds_to_the_logit(row: int) -> None:
    model = network()
    with torch.no_grad():
        encoded = model.encode(image()[None])[0].numpy()
        logits = model(image()[None])[0].numpy()
    pooled = encoded.mean((0, 1))
    sigma = float(np.sqrt(pooled.var() + 1e-6))
    found = activation_map(model, image(), Question(row))
    assert found.map.shape == (3, 4)
    assert found.logit == pytest.approx(logits[row])
    assert found.offset + float(found.map.mean()) == pytest.approx(found.logit)
    whole = fixed_logit(model, encoded, sigma, row)
    assert whole == pytest.approx(found.logit)
    for y in range(3):
        for x in range(4):
            without = encoded.copy()
            without[y, x] = 0
            lost = whole - fixed_logit(model, without, sigma, row)
            assert float(found.map[y, x]) / 12 == pytest.approx(lost, abs=1e-10)
    nothing = fixed_logit(model, np.zeros_like(encoded), sigma, row)
    assert found.offset == pytest.approx(nothing)


def test_the_activation_is_that_of_exported_models() -> None:
    model = network()
    logits, _, theirs = Graph(model, "classifier")(image()[None])
    found = activation_map(model, image(), Question(int(logits.argmax())))
    np.testing.assert_allclose(found.map.numpy(), theirs[0].detach().numpy(), rtol=1e-4, atol=1e-4)


def test_a_class_against_another_is_the_difference_of_both() -> None:
    model = network()
    one, other = (activation_map(model, image(), Question(row)) for row in (0, 2))
    both = activation_map(model, image(), Question(0, against=2))
    torch.testing.assert_close(both.map, one.map - other.map)
    assert both.logit == pytest.approx(one.logit - other.logit)
    assert both.offset == pytest.approx(one.offset - other.offset)


def test_parameters_and_gradients_of_the_model_are_left_alone() -> None:
    model = network()
    activation_map(model, image(), Question(0))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_odds_are_those_of_the_probabilities() -> None:
    logits = torch.randn(5, CLASSES, dtype=torch.float64)
    softmax, sigmoid = logits.softmax(1), logits.sigmoid()
    p = softmax[:, 1]
    torch.testing.assert_close(Question(1).log_odds(logits), (p / (1 - p)).log())
    torch.testing.assert_close(Question(1, against=3).log_odds(logits), (p / softmax[:, 3]).log())
    p = sigmoid[:, 1]
    torch.testing.assert_close(Question(1, multi_label=True).log_odds(logits), (p / (1 - p)).log())
    assert torch.equal(Question(0).log_odds(logits[:, :1]), logits[:, 0])


@pytest.mark.parametrize(
    ("size", "patch", "step"),
    [((48, 64), 16, 8), ((32, 48), 13, 7), ((32, 32), 40, 5), ((32, 32), 1, 15)],
)
def test_the_occlusion_is_measured_square_by_square(size, patch: int, step: int) -> None:
    model, picture = network(), image(*size)
    found = occlusion_map(model, picture, Question(2), patch=patch, step=step, batch_size=3)

    def odds(one: torch.Tensor) -> float:
        with torch.no_grad():
            p = float(model(one[None])[0].softmax(0)[2])
        return np.log(p / (1 - p))

    total, count = np.zeros(size), np.zeros(size)
    tall, wide = min(patch, size[0]), min(patch, size[1])
    tops = sorted({*range(0, size[0] - tall + 1, step), size[0] - tall})
    lefts = sorted({*range(0, size[1] - wide + 1, step), size[1] - wide})
    for top in tops:
        for left in lefts:
            covered = picture.clone()
            covered[:, top : top + tall, left : left + wide] = 0
            total[top : top + tall, left : left + wide] += odds(picture) - odds(covered)
            count[top : top + tall, left : left + wide] += 1
    if patch >= step:
        np.testing.assert_allclose(found.numpy(), total / count, atol=1e-9)
    else:  # between the squares nothing was measured
        seen = count > 0
        np.testing.assert_allclose(found.numpy()[seen], (total / np.maximum(count, 1))[seen])


def test_squares_reach_the_end_of_a_side() -> None:
    assert starts(10, 4, 3) == [0, 3, 6]
    assert starts(11, 4, 3) == [0, 3, 6, 7]
    assert starts(4, 4, 9) == [0]


def test_an_enlarged_map_keeps_its_values_at_the_centres() -> None:
    small = torch.tensor([[0.0, 4.0], [8.0, 12.0]])
    large = enlarge(small, (6, 6))
    assert large.shape == (6, 6)
    assert [float(large[y, x]) for y, x in ((1, 1), (1, 4), (4, 1), (4, 4))] == [0, 4, 8, 12]
