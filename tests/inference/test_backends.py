"""Every backend computes what PyTorch computes."""

import pytest
import torch

from convnextv2.errors import DeviceError
from convnextv2.inference.backends import build_backend, installed_backends
from convnextv2.model.convnext import ConvNeXtV2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", installed_backends())
def test_logits_equal_those_of_the_model_in_float64(name: str) -> None:
    torch.manual_seed(0)
    model = ConvNeXtV2((1, 1, 1, 1), (8, 16, 16, 24), num_classes=5).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.double()(images.double())
    logits = build_backend(name, model.float(), images, torch.float32)(images)
    assert logits.dtype == torch.float32
    assert (logits.double() - expected).abs().max() < 1e-4 * expected.abs().max()


def test_what_a_backend_cannot_do_is_said() -> None:
    if "onnxruntime" in installed_backends():
        model = ConvNeXtV2((1, 1, 1, 1), (8, 16, 16, 24), num_classes=5).eval()
        with pytest.raises(
            DeviceError,
            match="precision = bfloat16: ONNX Runtime has no such arithmetic on the CPU",
        ):
            build_backend("onnxruntime", model, torch.ones(1, 3, 32, 32), torch.bfloat16)
