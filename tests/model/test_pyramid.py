import pytest
import torch
import torch.nn.functional as F
from model.reference import randomise

from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.pyramid import Pyramid, name_in_encoder


def pyramid(**arguments: int) -> Pyramid:
    torch.manual_seed(0)
    encoder = ConvNeXtV2((1, 1, 2, 1), (8, 16, 24, 32), num_classes=None, **arguments)
    return randomise(Pyramid(encoder)).eval()


def test_each_map_is_a_stage_with_a_layer_norm_over_channels() -> None:
    network, images = pyramid(), torch.randn(2, 3, 70, 96)
    maps, plain = network(images), network.encoder.features(images)
    assert [tuple(x.shape) for x in maps] == [
        (2, 8, 17, 24),
        (2, 16, 8, 12),
        (2, 24, 4, 6),
        (2, 32, 2, 3),
    ]
    for i, (x, stage) in enumerate(zip(maps, plain, strict=True)):
        weight, bias = network.norms[i].weight, network.norms[i].bias
        mean = stage.mean(1, keepdim=True)
        scaled = (stage - mean) / (stage.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        expected = scaled * weight[:, None, None] + bias[:, None, None]
        torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)


def test_strides_follow_from_the_stem() -> None:
    assert pyramid().strides == (4, 8, 16, 32)
    assert pyramid(stem_stride=2).strides == (2, 4, 8, 16)


def test_the_norms_begin_as_plain_layer_norms() -> None:
    encoder = ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=None)
    network = Pyramid(encoder)
    images = torch.randn(1, 3, 64, 64)
    for x, stage in zip(network(images), encoder.features(images), strict=True):
        expected = F.layer_norm(stage.permute(0, 2, 3, 1), (stage.shape[1],), eps=1e-6)
        torch.testing.assert_close(x, expected.permute(0, 3, 1, 2))


def test_a_classifier_is_no_encoder() -> None:
    with pytest.raises(AssertionError, match="num_classes=None"):
        Pyramid(ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=3))


def test_names_lose_what_is_around_the_encoder() -> None:
    assert name_in_encoder("encoder.stages.0.0.norm.bias") == "stages.0.0.norm.bias"
    assert name_in_encoder("backbone.pyramid.encoder.norm.bias") == "norm.bias"
    assert name_in_encoder("pyramid.norms.0.bias") == "pyramid.norms.0.bias"
    assert name_in_encoder("stages.0.0.norm.bias") == "stages.0.0.norm.bias"
