import pytest
import torch
from levels import as_image, as_pixels, assert_within_a_level
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from convnextv2.data.resize import resize

RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "area"])
@pytest.mark.parametrize("size", [(60, 80), (149, 70), (300, 444)])
def test_resizing_agrees_with_pillow(picture, size, interpolation):
    expected = as_pixels(as_image(picture).resize(size[::-1], RESAMPLE[interpolation]))
    for pixels in (picture, picture.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
        assert_within_a_level(resize(pixels, size, interpolation), expected)
    assert_within_a_level(resize(picture[1:2], size, interpolation), expected[1:2])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(60, 80), (149, 70), (300, 444), (1, 2)])
@pytest.mark.parametrize("capability", ["AVX512", "DEFAULT"])
def test_resizing_gives_the_bits_of_torchvision(
    picture, size, interpolation, capability, monkeypatch
):
    """On a processor without AVX2 as well, where both round what they compute in float32."""
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    mode = {"nearest": InterpolationMode.NEAREST_EXACT}.get(
        interpolation, InterpolationMode(interpolation)
    )
    for pixels in (picture, picture.permute(1, 2, 0).contiguous().permute(2, 0, 1), picture[:1]):
        expected = F.resize(pixels, list(size), interpolation=mode, antialias=True)
        found = resize(pixels, size, interpolation)
        assert torch.equal(found, expected) and found.dtype == torch.uint8
        assert found.stride() == expected.stride()


def test_nearest_takes_the_pixel_under_the_centre(picture):
    rows, columns = (torch.arange(149) + 0.5) * 150 / 149, (torch.arange(70) + 0.5) * 200 / 70
    assert torch.equal(
        resize(picture, (149, 70), "nearest"), picture[:, rows.long()][:, :, columns.long()]
    )
