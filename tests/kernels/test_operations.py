"""The library's functions as operations of PyTorch."""

import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from convnextv2.kernels import choice
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.fcmae import FCMAE, draw_masks

pytestmark = pytest.mark.skipif(choice.choose("auto") != "native", reason="no C++ compiler")

X, TAPS, ONES = torch.randn(2, 12, 3, 8), torch.ones(49, 8), torch.ones(2, 8)
SHAPE, PLACES = [2, 12, 3, 6, 6, 8], torch.arange(24)
"""Whole canvases of 6 x 6 positions, in runs of three."""
TARGETS = torch.arange(2 * 9 * 7).view(2, 9, 7) % 8
LOGITS = torch.randn(2, 6, 6, 8)
"""Classes of 9 x 7 pixels, and logits of 8 classes."""


@pytest.mark.parametrize("form", ["none", "tanh"])
def test_gelu_over_its_whole_range(form: str) -> None:
    x = torch.linspace(-40, 40, 100_001).view(1, -1, 1)
    y = torch.ops.convnextv2.gelu_scale(x, torch.ones(1, 1), torch.zeros(1), form == "tanh")
    exact = F.gelu(x.double(), approximate=form)
    assert (y.double() - exact).abs().max() < 4e-6
    assert (y.double() - exact).abs()[x.abs() < 6].max() < 1e-6
    assert bool((y[x < -6].abs() < 1e-8).all()) and torch.equal(y[x > 6], x[x > 6])


def test_operations_say_what_they_return() -> None:
    """PyTorch's own check of schema, fake shapes and dispatch."""
    x, images = torch.randn(2, 6, 6, 8), 2
    ops, shape = torch.ops.convnextv2, [2, 6, 6, 6, 6, 8]
    moments = (torch.randn(2, 8), torch.randn(2, 8))
    for operation, arguments in (
        (ops.depthwise, (x, torch.randn(49, 8), torch.randn(8), None, None, shape)),
        (ops.depthwise_weight, (x, x, None, None, shape)),
        (ops.gelu_squares, (x, images, False)),
        (ops.squares, (x, images)),
        (ops.linear_gelu, (x, torch.randn(5, x.shape[-1]), torch.randn(5), True)),
        (ops.gelu_scale, (x, moments[0], torch.randn(8), True)),
        (ops.gelu_products, (x, x, images, False)),
        (ops.gelu_backward, (x, x, *moments, False)),
        (ops.cross_entropy, (x, TARGETS)),
        (ops.cross_entropy_gradient, (x, TARGETS, torch.ones(TARGETS.shape))),
        (ops.largest_class, (x[0], [6.0, 5.5], [9, 7])),
    ):
        torch.library.opcheck(
            operation.default, arguments, test_utils=("test_schema", "test_faketensor")
        )


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("depthwise", (X, torch.ones(49, 4), None, None, None, SHAPE), "weight has the shape"),
        ("depthwise", (X, TAPS, torch.ones(4), None, None, SHAPE), "bias has the shape"),
        ("depthwise", (X, TAPS, None, PLACES[:-1], None, SHAPE), "2 x 12 runs of 3 positions"),
        ("depthwise", (X, TAPS, None, PLACES, PLACES[1:], SHAPE), "runs has the shape"),
        ("depthwise_weight", (X, X[:1], None, None, SHAPE), "gradient has the shape"),
        ("gelu_squares", (X, 5, False), "72 positions cannot be those of 5 images"),
        ("squares", (X, 0), "72 positions cannot be those of 0 images"),
        ("gelu_scale", (X, torch.ones(2, 4), torch.ones(8), False), "scale has the shape (2, 4)"),
        ("gelu_scale", (X, torch.ones(2, 8), torch.ones(4), False), "shift has the shape (4,)"),
        ("gelu_products", (X, X[:1], 2, False), "gradient has the shape"),
        ("gelu_backward", (X, X[:1], ONES, ONES, False), "gradient has the shape"),
        ("gelu_backward", (X, X, ONES, torch.ones(1, 8), False), "pull has the shape (1, 8)"),
        ("cross_entropy", (LOGITS[0], TARGETS), "logits are torch.float32 and have the shape (6,"),
        ("cross_entropy", (LOGITS.double(), TARGETS), "logits are torch.float64"),
        ("cross_entropy", (LOGITS, TARGETS[:1]), "expected torch.int64 and (2, height, width)"),
        ("cross_entropy", (LOGITS, TARGETS.int()), "targets are torch.int32"),
        ("cross_entropy", (LOGITS[..., :0], TARGETS), "which has no values"),
        ("cross_entropy_gradient", (LOGITS, TARGETS, X), "gradient has the shape"),
        ("largest_class", (LOGITS, [6, 6], [9, 7]), "torch.float32 and 3 dimensions"),
        ("largest_class", (LOGITS[0].half(), [6, 6], [9, 7]), "logits are torch.float16"),
        ("largest_class", (LOGITS[0], [6], [9, 7]), "expected two numbers for each"),
        ("largest_class", (LOGITS[0], [6, 6], [9, 7, 1]), "expected two numbers for each"),
        ("largest_class", (LOGITS[0], [6, -1], [9, 7]), "expected finite numbers >= 0"),
        ("largest_class", (LOGITS[0], [6, math.nan], [9, 7]), "expected finite numbers >= 0"),
        ("largest_class", (LOGITS[0, :0], [6, 6], [9, 7]), "which has no values"),
        ("largest_class", (LOGITS[0], [6, 6], [-9, 7]), "size is [-9, 7]"),
    ],
)
def test_sizes_that_do_not_belong_together_are_errors(
    name: str, arguments: tuple[Any, ...], said: str
) -> None:
    """Otherwise, memory beyond a tensor's end would be read or written."""
    with pytest.raises(ValueError, match=re.escape(said)):
        getattr(torch.ops.convnextv2, name)(*arguments)


def test_one_compiled_graph_has_them_inside() -> None:
    torch.manual_seed(0)
    model = FCMAE(ConvNeXtV2((1, 1, 1, 1), (8, 8, 8, 8), num_classes=None), decoder_dim=8)
    images, masks = torch.randn(2, 3, 64, 64), draw_masks(2, (2, 2), 0.5, torch.Generator())
    loss = model(images, *masks)
    loss.backward()
    expected = [
        parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
    ]
    model.zero_grad()
    # Derivatives are traced too. What TorchInductor makes of it would take a minute to compile.
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    again = compiled(images, *masks)
    again.backward()
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close([p.grad for p in model.parameters() if p.grad is not None], expected)
