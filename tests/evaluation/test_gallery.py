"""The gallery, pixel by pixel."""

import numpy as np
import pytest
import torch

from convnextv2.evaluation.gallery import (
    GUTTER_PX,
    NOTE_PX,
    reconstruction_gallery,
    shown_channels,
    to_picture,
)


def random_pixels(n: int, channels: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(
        0,
        256,
        (n, channels, height, width),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )


def test_a_picture_holds_the_pixels_as_they_are():
    pixels = random_pixels(1, 3, 100, 130)[0]
    np.testing.assert_array_equal(np.asarray(to_picture(pixels)), pixels.permute(1, 2, 0))


def test_a_small_picture_is_enlarged_by_a_whole_factor():
    pixels = random_pixels(1, 3, 28, 20)[0]
    enlarged = pixels.permute(1, 2, 0).numpy().repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(np.asarray(to_picture(pixels)), enlarged)


@pytest.mark.parametrize(
    ("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])]
)
def test_any_number_of_channels_has_a_picture(channels, shown):
    pixels = random_pixels(1, channels, 96, 96)[0]
    np.testing.assert_array_equal(np.asarray(to_picture(pixels)), pixels[shown].permute(1, 2, 0))


def test_each_image_is_shown_as_input_masked_and_reconstruction_under_a_header():
    first, second, third = (random_pixels(2, 3, 96, 120) // 3 + offset for offset in (0, 80, 160))
    gallery = np.asarray(reconstruction_gallery(first, second, third))
    header = len(gallery) - 2 * 96 - GUTTER_PX
    assert gallery.shape[1] == 3 * 120 + 2 * GUTTER_PX
    assert 0 < (gallery[:header] != 255).mean() < 0.5, "a header of text"
    for row in range(2):
        for column, pixels in enumerate((first, second, third)):
            top, left = header + row * (96 + GUTTER_PX), column * (120 + GUTTER_PX)
            np.testing.assert_array_equal(
                gallery[top : top + 96, left : left + 120], pixels[row].permute(1, 2, 0)
            )


def test_many_images_stand_two_to_a_row():
    pixels = random_pixels(5, 1, 28, 28)
    gallery = reconstruction_gallery(pixels, pixels, pixels)
    assert gallery.width > 2 * 3 * 112 and 3 * 112 < gallery.height < 4 * 112


def test_channels_that_are_not_shown_are_said():
    assert shown_channels(1) == shown_channels(3) == ""
    assert shown_channels(2) == "Shown is channel 1 of 2, as grey."
    assert shown_channels(13) == "Channels 1 to 3 of 13 are shown as RGB."


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_a_gallery_of_many_channels_has_a_line_more(channels):
    pixels = random_pixels(2, channels, 100, 100)
    plain, noted = (
        np.asarray(reconstruction_gallery(*[part] * 3)) for part in (pixels[:, [0, 0, 0]], pixels)
    )
    assert noted.shape == (plain.shape[0] + 2 * NOTE_PX, *plain.shape[1:])
    top = plain.shape[0] - (2 * 100 + GUTTER_PX)  # of the pictures, below the titles
    written = noted[top : top + 2 * NOTE_PX]
    assert (written < 200).any()
    shown = pixels[0, :3] if channels > 2 else pixels[0, [0, 0, 0]]
    np.testing.assert_array_equal(noted[top + 2 * NOTE_PX :][:100, :100], shown.permute(1, 2, 0))
