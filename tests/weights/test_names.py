import itertools

import pytest
import torch

from convnextv2.weights.names import dense_kernel, name_table


def test_mmpretrains_and_mindcvs_names_are_as_published() -> None:
    mmpretrain, mindcv = name_table("mmpretrain", (3, 3, 9, 3)), name_table("mindcv", (3, 3, 9, 3))
    assert mmpretrain["downsample_layers.0.0.weight"] == "backbone.downsample_layers.0.0.weight"
    assert mmpretrain["stages.2.8.dwconv.bias"] == "backbone.stages.2.8.depthwise_conv.bias"
    assert mmpretrain["stages.2.8.pwconv2.weight"] == "backbone.stages.2.8.pointwise_conv2.weight"
    assert mmpretrain["stages.0.0.grn.beta"] == "backbone.stages.0.0.grn.beta"
    assert (mmpretrain["norm.weight"], mmpretrain["head.bias"]) == (
        "backbone.norm3.weight",
        "head.fc.bias",
    )
    assert mindcv["downsample_layers.3.0.weight"] == "feature.6.0.gamma"
    assert mindcv["downsample_layers.3.1.weight"] == "feature.6.1.weight"
    assert mindcv["stages.3.2.norm.bias"] == "feature.7.2.norm.beta"
    assert mindcv["stages.3.2.grn.gamma"] == "feature.7.2.grn.gamma"
    assert (mindcv["norm.weight"], mindcv["head.weight"]) == ("norm.gamma", "classifier.weight")


@pytest.mark.parametrize("depthwise", [False, True])
def test_sparse_kernels_against_a_sparse_convolution_in_plain_python(depthwise: bool) -> None:
    """Entry col * k + row of a kernel belongs to the neighbour (row, col) of the k x k window."""
    generator = torch.Generator().manual_seed(0)
    k, inputs, outputs = (7, 4, 4) if depthwise else (2, 3, 5)
    shape = (k * k, outputs) if depthwise else (k * k, inputs, outputs)
    kernel = torch.randn(shape, dtype=torch.float64, generator=generator)
    active = {
        (y, x): torch.randn(inputs, dtype=torch.float64, generator=generator)
        for y, x in [(0, 1), (2, 2), (3, 0), (5, 5)]
    }
    side, stride, start = (6, 1, -(k // 2)) if depthwise else (6, 2, 0)
    dense = torch.zeros(1, inputs, side, side, dtype=torch.float64)
    for (y, x), values in active.items():
        dense[0, :, y, x] = values
    weight = dense_kernel(kernel)
    options = {
        "stride": stride,
        "padding": k // 2 if depthwise else 0,
        "groups": inputs if depthwise else 1,
    }
    result = torch.nn.functional.conv2d(dense, weight, **options)
    for y, x in itertools.product(range(result.shape[2]), range(result.shape[3])):
        expected = torch.zeros(outputs, dtype=torch.float64)
        for row, col in itertools.product(range(k), range(k)):
            values = active.get((y * stride + start + row, x * stride + start + col))
            if values is not None:
                entry = kernel[col * k + row]
                expected += values * entry if depthwise else values @ entry
        assert torch.allclose(result[0, :, y, x], expected, atol=1e-12)
