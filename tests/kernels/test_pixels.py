"""The native work on pixels against PyTorch's and Pillow's."""

import pytest
import torch

from convnextv2.data.transforms import BatchTransform
from convnextv2.kernels import choice
from convnextv2.kernels import pixels as native

pytestmark = pytest.mark.skipif(choice.choose("auto") != "native", reason="no C++ compiler")


@pytest.mark.parametrize("shape", [(3, 3, 17, 29), (2, 1, 40, 40), (1, 3, 1, 1)])
def test_pixels_are_normalised_bit_for_bit(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8).contiguous(
        memory_format=torch.channels_last
    )
    transform = BatchTransform((0.485, 0.456, 0.406)[: shape[1]], (0.229, 0.224, 0.225)[: shape[1]])
    found = transform.normalise(pixels)
    monkeypatch.setattr(native, "can_take_pixels", lambda: False)
    assert torch.equal(found, transform.normalise(pixels))
    assert found.is_contiguous(memory_format=torch.channels_last)
