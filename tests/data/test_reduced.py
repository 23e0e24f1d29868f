"""Decoding at a reduced scale where a training crop is larger than what the network sees."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from convnextv2.data.decode import open_picture
from convnextv2.data.randomness import generator_for
from convnextv2.data.transforms import TrainTransform


def jpeg(picture: Tensor, size: tuple[int, int], orientation: int = 1) -> bytes:
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    photograph = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize(
        size, Image.Resampling.BICUBIC
    )
    photograph.save(out, "jpeg", quality=92, exif=exif)
    return out.getvalue()


def test_size_is_known_before_anything_is_decoded(picture: Tensor) -> None:
    image = open_picture(jpeg(picture, (61, 90)), name="x", max_pixels=10**6)
    assert (image.height, image.width) == (90, 61) and image.decode().shape == (3, 90, 61)
    assert image.decode(2).shape == (3, 45, 31) and image.decode(8).shape == (3, 12, 8)
    turned = open_picture(jpeg(picture, (90, 64), orientation=6), name="x", max_pixels=10**6)
    assert (turned.height, turned.width) == (90, 64) and turned.decode(2).shape == (3, 45, 32)
    assert turned.decode(4).shape == (3, 90, 64)  # 90 / 4 would leave half a pixel at the beginning


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(1500, 1128), (633, 917)])
def test_pixels_agree_with_those_of_a_full_decode(
    picture: Tensor, size: tuple[int, int], orientation: int
) -> None:
    data = jpeg(picture, size, orientation)
    transform = TrainTransform((64, 64), scale=(0.3, 1.0))
    differences = []
    for seed in range(12):
        image = open_picture(data, name="x", max_pixels=10**7)
        reduced, full = (
            transform(image, generator_for(seed)),
            transform(image.decode(), generator_for(seed)),
        )
        differences.append((reduced.float() - full.float()).abs().mean())
    assert np.mean(differences) < 2 and max(differences) < 4
    assert np.mean(differences) > 0 or (orientation == 6 and size[0] % 2)


def test_no_reduction_where_it_would_show() -> None:
    crops = {(191, 400): 1, (192, 400): 2, (500, 384): 4, (900, 768): 8}
    assert {crop: TrainTransform((64, 64))._reduction(*crop) for crop in crops} == crops
    assert TrainTransform((64, 64), antialias=False)._reduction(900, 900) == 1
    assert TrainTransform((64, 64), interpolation="nearest")._reduction(900, 900) == 1


def test_a_picture_that_is_no_jpeg_is_decoded_whole() -> None:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(out, "png")
    pixels = open_picture(out.getvalue(), name="x", max_pixels=10**6).decode(2)
    assert pixels.shape == (3, 30, 40) and torch.equal(
        pixels[0].unique(), torch.tensor([255], dtype=torch.uint8)
    )
