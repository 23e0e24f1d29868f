import pytest
import torch
import torch.nn.functional as F
from dense import detector, segmentor

from convnextv2.deploy.dense_graphs import (
    BoxHead,
    MaskHead,
    SegmentorGraph,
    Trunk,
    UpsampledPyramid,
    adaptive_average_matrices,
    bilinear_matrices,
)


@pytest.mark.parametrize("positions", [1, 2, 5, 6, 13])
def test_matrices_average_and_stretch_as_pytorch_does(positions: int) -> None:
    grids = (1, 2, 3, 6)
    x = torch.randn(1, 3, positions, positions)
    pools = adaptive_average_matrices(positions, grids).split(grids)
    ups = bilinear_matrices(positions, grids).split(grids, dim=1)
    for cells, pool, up in zip(grids, pools, ups, strict=True):
        assert torch.allclose(pool @ x @ pool.T, F.adaptive_avg_pool2d(x, cells), atol=1e-6)
        small = torch.randn(1, 3, cells, cells)
        wanted = F.interpolate(small, (positions, positions), mode="bilinear")
        assert torch.allclose(up @ small @ up.T, wanted, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), None])
def test_both_graphs_of_a_segmentor_return_its_logits(size: tuple[int, int] | None) -> None:
    model, images = segmentor(), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        (found,), expected = SegmentorGraph(model, size)(images), model(images)
    assert torch.allclose(found, expected, atol=1e-4)
    # The model itself is as it was.
    assert not any(isinstance(module, UpsampledPyramid) for module in model.modules())
    assert model.auxiliary_head is not None
    assert all(name in model.state_dict() for name in model.class_tensors)


def test_the_parts_of_a_detector_return_what_its_layers_do() -> None:
    model, images = detector(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        trunk = Trunk(model)
        outputs = dict(zip(trunk.output_names, trunk(images), strict=True))
        maps = list(model.features(images).values())
        logits, deltas = model.rpn.head(maps)
        for i in range(5):
            assert torch.equal(outputs[f"map{i + 1}"], maps[i])
            assert torch.equal(outputs[f"objectness{i + 1}"], logits[i])
            assert torch.equal(outputs[f"anchor_deltas{i + 1}"], deltas[i])
        cut = torch.randn(4, 16, 7, 7)
        for found, wanted in zip(
            BoxHead(model)(cut),
            model.roi_heads.box_predictor(model.roi_heads.box_head(cut)),
            strict=True,
        ):
            assert torch.equal(found, wanted)
        (masks,) = MaskHead(model)(torch.randn(2, 16, 14, 14))
    assert masks.shape == (2, 3, 28, 28)
