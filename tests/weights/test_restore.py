from pathlib import Path

import pytest
import torch

from convnextv2.errors import CheckpointError
from convnextv2.model.fcmae import FCMAE
from convnextv2.weights.description import Description
from convnextv2.weights.restore import load_model
from convnextv2.weights.safetensors import save_weights

from .networks import describe, network


def test_a_weights_file_is_enough_to_build_its_model(tmp_path: Path) -> None:
    model = network(num_classes=3, stem_stride=2, gelu="tanh", in_channels=1)
    save_weights(tmp_path, model.state_dict(), describe(model, class_names=["a", "b", "ü"]))
    loaded, description = load_model(tmp_path / "model.safetensors")
    images = torch.randn(1, 1, 32, 32)
    assert torch.equal(loaded(images), model.eval()(images))
    assert description.class_names == ["a", "b", "ü"]


def test_fcmae_weights_build_encoder_and_decoder(tmp_path: Path) -> None:
    model = FCMAE(network(num_classes=None), decoder_dim=8)
    save_weights(
        tmp_path,
        model.state_dict(),
        Description("fcmae", "custom", model.encoder.arguments, model.arguments),
    )
    loaded, _ = load_model(tmp_path / "model.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True)
    )


def test_no_random_numbers_are_drawn(tmp_path: Path) -> None:
    model = network(num_classes=3)
    save_weights(tmp_path, model.state_dict(), describe(model))
    before = torch.get_rng_state()
    loaded, _ = load_model(tmp_path / "model.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert {tensor.device.type for tensor in loaded.state_dict().values()} == {"cpu"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    model = network(num_classes=3)
    model.stages[1][0].pwconv1.weight.data[2, 3] = value
    save_weights(tmp_path, model.state_dict(), describe(model))
    with pytest.raises(CheckpointError, match=r"1 tensors hold NaN or infinite .*pwconv1\.weight"):
        load_model(tmp_path / "model.safetensors")
