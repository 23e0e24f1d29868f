import numpy as np
import pytest
from PIL import Image
from timm.data import auto_augment as timm

from convnextv2.data.auto_augment.operations import OPERATIONS, Canvas
from convnextv2.kernels import pixels as native

FILL = (124, 116, 104)
BICUBIC = Canvas(FILL, Image.Resampling.BICUBIC)


@pytest.fixture
def image(picture):
    return Image.fromarray(
        (picture // 2 + 40).permute(1, 2, 0).numpy()
    )  # so that there is contrast to gain


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(
    ("name", "strength", "reference"),
    [
        ("AutoContrast", 0, timm.auto_contrast),
        ("Equalize", 0, timm.equalize),
        ("Invert", 0, timm.invert),
        ("Rotate", -17.5, timm.rotate),
        ("Posterize", 3, timm.posterize),
        ("Posterize", 8, timm.posterize),
        ("Solarize", 100, timm.solarize),
        ("Solarize", 256, timm.solarize),
        ("SolarizeAdd", 70, timm.solarize_add),
        ("Color", 1.8, timm.color),
        ("Contrast", 0.3, timm.contrast),
        ("Brightness", 1.6, timm.brightness),
        ("Sharpness", 1.9, timm.sharpness),
        ("ShearX", 0.25, timm.shear_x),
        ("ShearY", -0.3, timm.shear_y),
        ("TranslateX", 31.0, timm.translate_x_abs),
        ("TranslateY", -12.5, timm.translate_y_abs),
        ("GaussianBlur", 1.3, timm.gaussian_blur),
    ],
)
def test_operations_equal_timms(image, name, strength, reference, grey):
    image = image.convert("L") if grey else image
    arguments = () if name in ("AutoContrast", "Equalize", "Invert") else (strength,)
    expected = reference(
        image, *arguments, resample=BICUBIC.resample, fillcolor=FILL[0] if grey else FILL
    )
    changed = OPERATIONS[name](image, strength, BICUBIC)
    assert changed.mode == image.mode and changed.size == image.size
    # Equal up to rounding, which may go the other way by one level in the native kernel.
    difference = np.abs(np.asarray(changed, dtype=int) - np.asarray(expected, dtype=int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01
    assert np.array_equal(changed, image) == (strength in (8, 256) or (grey and name == "Color"))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"])
def test_moving_equals_pillows_at_every_strength(image, name, resample, grey, monkeypatch):
    image, canvas = image.convert("L") if grey else image, Canvas(FILL, resample)
    for value in np.linspace(-0.9, 0.9, 7) * {
        "Rotate": 180,
        "TranslateX": 99,
        "TranslateY": 99,
    }.get(name, 1):
        monkeypatch.undo()
        moved = np.asarray(OPERATIONS[name](image, value, canvas), dtype=int)
        monkeypatch.setattr(native, "can_take_pixels", lambda: False)
        difference = np.abs(moved - np.asarray(OPERATIONS[name](image, value, canvas), dtype=int))
        assert difference.max() <= 1


def test_translation_moves_whole_columns_and_fills_what_comes_in(image):
    before, after = np.array(image), np.array(OPERATIONS["TranslateX"](image, 45.0, BICUBIC))
    # The last 45 columns come from outside.
    assert np.array_equal(after[:, :153], before[:, 45:198])
    assert (after[:, 160:] == FILL).all()


def test_shear_moves_most_of_the_picture(image):
    changed = np.array(OPERATIONS["ShearX"](image, 0.3, BICUBIC)) != np.array(image)
    assert changed.any(-1).mean() > 0.8


def test_posterize_keeps_the_highest_bits_and_at_least_one(image):
    for bits in (0, 1, 2, 5):
        levels = np.array(OPERATIONS["Posterize"](image, bits, BICUBIC))
        assert np.array_equal(levels, np.array(image) & (256 - 2 ** (8 - max(1, bits))))
