from pathlib import Path

import pytest
from dense import detector, segmentor

from convnextv2.errors import CheckpointError
from convnextv2.weights.build import count_parameters
from convnextv2.weights.description import Description
from convnextv2.weights.opened import open_weights
from convnextv2.weights.safetensors import save_weights

from .networks import network


def test_a_description_that_no_model_can_be_built_of_is_one_line(tmp_path: Path) -> None:
    model = network(num_classes=3)
    for more in (
        {"num_classes": 10**40},
        {"unknown": 1},
        {"dims": [10**40, 8, 12, 16]},
        {"depths": [1, 1, 1, 10**9]},
    ):
        arguments = model.arguments | more
        save_weights(tmp_path, model.state_dict(), Description("classifier", "custom", arguments))
        with pytest.raises(CheckpointError) as error:
            open_weights(tmp_path / "model.safetensors")
        assert str(error.value).isprintable()
        assert str(error.value).startswith(f"{tmp_path / 'model.safetensors'}: ")


def test_an_fcmae_around_a_classifier_is_one_line_about_the_file(tmp_path: Path) -> None:
    model = network(num_classes=3)
    decoder = {"tile": 32, "norm_target": True, "decoder_dim": 8, "decoder_depth": 1}
    description = Description("fcmae", "custom", model.arguments, decoder)
    save_weights(tmp_path, model.state_dict(), description)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .* FCMAE takes a bare encoder"):
        open_weights(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "name", ["rois", "proposals", "max_detections", "fpn_channels", "box_dim", "anchor_scale"]
)
def test_a_head_of_absurd_sizes_is_one_line_about_the_file(name: str, tmp_path: Path) -> None:
    model = detector()
    head = model.head_arguments | {name: 10**9}
    description = Description("detection", "custom", model.arguments, head=head)
    save_weights(tmp_path, model.state_dict(), description)
    with pytest.raises(CheckpointError, match=f"{name} = 1000000000: expected .* <= ") as error:
        open_weights(tmp_path / "model.safetensors")
    assert str(error.value).isprintable()


def test_parameters_are_counted_without_building_them() -> None:
    for kind, model in (
        ("classifier", network(num_classes=3)),
        ("encoder", network(num_classes=None)),
        ("segmentation", segmentor()),
        ("detection", detector()),
    ):
        head = getattr(model, "head_arguments", {})
        description = Description(kind, "custom", model.arguments, head=head)
        expected = sum(parameter.numel() for parameter in model.parameters())
        assert count_parameters(description) == expected > 0, kind
