import numpy as np
import pytest
import torch
from PIL import Image

from convnextv2.data.dense.label_maps import IGNORED
from convnextv2.data.dense.map_transforms import (
    MapEvalTransform,
    MapTrainTransform,
    collate_maps,
    whole_image,
)
from convnextv2.data.randomness import generator_for
from convnextv2.errors import DataError
from convnextv2.preprocessing import Preprocessing


def marked(height: int = 60, width: int = 90) -> tuple[torch.Tensor, torch.Tensor]:
    """A map of four quarters, and an image whose level is that of its class."""
    labels = torch.zeros(height, width, dtype=torch.int16)
    labels[: height // 2, width // 2 :] = 1
    labels[height // 2 :, : width // 2] = 2
    labels[height // 2 :, width // 2 :] = 3
    return (60 * labels).to(torch.uint8).expand(3, -1, -1).clone(), labels


def test_image_and_map_stay_together() -> None:
    pixels, labels = marked()
    transform = MapTrainTransform(
        (48, 40), interpolation="nearest", antialias=False, fill=(255,) * 3
    )
    for i in range(40):
        sample = transform(pixels, labels, generator_for(1, "image", 0, i))
        assert sample.pixels.shape == (3, 48, 40) and sample.target.shape == (48, 40)
        expected = torch.where(sample.target == IGNORED, 255, 60 * sample.target)
        # the nearest pixel of an image and of a map may differ by one where two classes meet
        assert (sample.pixels[0] != expected).float().mean() < 0.06


def test_a_crop_follows_from_its_generator_alone() -> None:
    pixels, labels = marked()
    transform = MapTrainTransform((48, 48), photometric=0.5)
    first, second = (transform(pixels, labels, generator_for(1, "image", 0, 7)) for _ in range(2))
    assert torch.equal(first.pixels, second.pixels) and torch.equal(first.target, second.target)
    assert not torch.equal(
        first.pixels, transform(pixels, labels, generator_for(1, "image", 1, 7)).pixels
    )


def test_crops_of_one_class_are_drawn_again() -> None:
    labels = torch.zeros(100, 100, dtype=torch.int16)
    labels[40:60, 40:60] = 1
    pixels = torch.zeros(3, 100, 100, dtype=torch.uint8)

    def crops_of_one_class(most: float) -> int:
        transform = MapTrainTransform((32, 32), factor=(4.0, 4.0), max_class_share=most)
        samples = [transform(pixels, labels, generator_for(2, i)) for i in range(60)]
        return sum(len(sample.target.unique()) == 1 for sample in samples)

    assert crops_of_one_class(0.95) < 8 < 25 < crops_of_one_class(1.0)


def test_colours_change_but_padding_does_not() -> None:
    pixels, labels = marked(20, 20)
    transform = MapTrainTransform((64, 64), factor=(0.3, 0.3), fill=(1, 2, 3), photometric=1.0)
    sample = transform(pixels, labels, generator_for(3))
    outside = sample.target == IGNORED
    assert outside.any()
    assert sample.pixels[:, outside].unique(dim=1).flatten().tolist() == [1, 2, 3]


def test_evaluation_resizes_whole_images_and_keeps_maps() -> None:
    pixels, labels = marked(60, 90)
    noisy = torch.randint(0, 256, pixels.shape, dtype=torch.uint8, generator=generator_for("noise"))
    sample = MapEvalTransform(Preprocessing((32, 32), interpolation="bilinear"))(noisy, labels)
    assert sample.target is labels
    image = Image.fromarray(noisy.permute(1, 2, 0).numpy())
    expected = np.array(image.resize((48, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(sample.pixels.permute(1, 2, 0).numpy() - expected).max() <= 1
    half = whole_image(noisy, Preprocessing((32, 32)), 0.5)
    assert half.shape == (3, 16, 24)


def test_a_map_of_another_size_is_refused() -> None:
    pixels, labels = marked()
    for transform in (MapTrainTransform((32, 32)), MapEvalTransform(Preprocessing((32, 32)))):
        rest = (generator_for(1),) if isinstance(transform, MapTrainTransform) else ()
        with pytest.raises(DataError, match="90 x 60 px, but its label map is 89 x 60 px"):
            transform(pixels, labels[:, 1:], *rest)


def test_maps_are_joined_to_a_batch_which_may_be_empty() -> None:
    assert collate_maps([torch.ones(2, 3, dtype=torch.int16)] * 4).shape == (4, 2, 3)
    assert collate_maps([]).shape[0] == 0
