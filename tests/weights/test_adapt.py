import pytest
import torch

from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import create_model
from convnextv2.model.fcmae import FCMAE
from convnextv2.weights.adapt import adapt_channels, load_encoder

from .networks import network


def test_a_classifier_starts_from_a_pretrained_encoder_with_a_full_report() -> None:
    pretrained = FCMAE(network(num_classes=None), decoder_dim=8)
    model = network(num_classes=5)
    fresh_head = model.head.weight.clone()
    report = load_encoder(model, pretrained.state_dict(), source="x")
    for name, parameter in pretrained.encoder.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter)
    assert torch.equal(model.head.weight, fresh_head)
    assert set(report.fresh) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert {why for _, why in report.left_out} == {"part of the decoder"}
    assert len(report.loaded) == len(pretrained.encoder.state_dict())


def test_a_matching_head_is_kept_and_another_one_left_out() -> None:
    source = network(num_classes=5)
    same, other = network(num_classes=5), network(num_classes=7)
    assert not load_encoder(same, source.state_dict(), source="x").fresh
    assert torch.equal(same.head.weight, source.head.weight)
    report = load_encoder(other, source.state_dict(), source="x")
    assert [name for name, _ in report.left_out] == ["head.weight", "head.bias"]
    assert torch.equal(other.norm.weight, source.norm.weight)


def test_other_input_channels_keep_the_response_to_grey_images() -> None:
    source = network(num_classes=None)
    grey = torch.rand(1, 1, 32, 32)
    expected = source(grey.expand(1, 3, 32, 32))
    for channels in (1, 6):
        model = network(num_classes=None, in_channels=channels)
        report = load_encoder(model, source.state_dict(), source="x")
        assert report.adapted == [
            ("downsample_layers.0.0.weight", f"3 input channels to {channels}")
        ]
        assert torch.allclose(
            model(grey.expand(1, channels, 32, 32)), expected, rtol=1e-3, atol=1e-3
        )


def test_channels_are_adapted_as_by_timm() -> None:
    from timm.models import adapt_input_conv

    weight = torch.randn(4, 3, 2, 2)
    for channels in (1, 4, 5):
        assert torch.allclose(
            adapt_channels(weight, channels), adapt_input_conv(channels, weight), atol=1e-6
        )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: create_model("convnextv2_atto"), "the model is convnextv2_atto"),
        (lambda: network(num_classes=None, stem_stride=2), "stem_stride 2"),
    ],
)
def test_weights_of_another_size_are_refused(model, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_encoder(model(), network(num_classes=None).state_dict(), source="x")


def test_an_incomplete_encoder_is_refused() -> None:
    tensors = network(num_classes=None).state_dict()
    del tensors["stages.2.0.grn.gamma"]
    with pytest.raises(CheckpointError, match=r"stages\.2\.0\.grn\.gamma"):
        load_encoder(network(num_classes=None), tensors, source="x")
