import colorsys

import numpy as np
import torch

from convnextv2.data.dense.distortion import Distortion, draw_distortion
from convnextv2.data.randomness import generator_for

PIXELS = torch.randint(0, 256, (3, 9, 11), dtype=torch.uint8, generator=generator_for("noise"))


def test_nothing_drawn_changes_nothing() -> None:
    assert torch.equal(Distortion()(PIXELS), PIXELS)
    drawn = draw_distortion(0.0, generator_for(1))
    assert torch.equal(drawn(PIXELS), PIXELS)


def test_brightness_and_contrast_are_a_sum_and_a_product_that_are_clipped() -> None:
    levels = PIXELS.double()
    brighter = Distortion(brightness=20.4)(PIXELS)
    assert torch.equal(brighter.double(), (levels + 20.4).round().clamp(0, 255))
    stronger = Distortion(contrast=1.3)(PIXELS)
    assert (stronger.double() - (levels * 1.3).clamp(0, 255)).abs().max() <= 0.5
    both = Distortion(brightness=-30, contrast=1.5)(PIXELS)
    expected = ((levels - 30).clamp(0, 255) * 1.5).clamp(0, 255)
    assert (both.double() - expected).abs().max() <= 0.5


def test_saturation_and_hue_are_those_of_hsv() -> None:
    """Within the rounding of HSV to 8 bits, by the conversion of the standard library."""
    soft = torch.randint(40, 200, (3, 6, 6), dtype=torch.uint8, generator=generator_for("soft"))
    made = Distortion(saturation=0.6, hue=0.08)(soft)
    for column in range(6):
        for row in range(6):
            rgb = [band / 255 for band in soft[:, row, column].tolist()]
            hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
            expected = colorsys.hsv_to_rgb((hue + 0.08) % 1, saturation * 0.6, value)
            difference = made[:, row, column].numpy() / 255 - np.array(expected)
            assert np.abs(difference).max() < 0.03


def test_grey_and_many_bands_keep_their_channels() -> None:
    strong = Distortion(10, 1.2, True, 1.4, 0.1)
    for channels in (1, 5):
        pixels = PIXELS[:1].repeat(channels, 1, 1)
        assert strong(pixels).shape == pixels.shape


def test_what_is_drawn_follows_from_the_generator_and_keeps_its_ranges() -> None:
    drawn = [draw_distortion(0.5, generator_for(3, i)) for i in range(400)]
    assert drawn == [draw_distortion(0.5, generator_for(3, i)) for i in range(400)]
    for name, neutral, low, high in (
        ("brightness", 0, -32, 32),
        ("contrast", 1, 0.5, 1.5),
        ("saturation", 1, 0.5, 1.5),
        ("hue", 0, -0.1, 0.1),
    ):
        values = [getattr(each, name) for each in drawn]
        changed = [value for value in values if value != neutral]
        assert 160 <= len(changed) <= 240
        assert low <= min(changed) < low + (high - low) / 20
        assert high - (high - low) / 20 < max(changed) <= high
