import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm

from convnextv2.data.auto_augment import build_policy
from convnextv2.data.auto_augment.grammar import POLICIES
from convnextv2.data.auto_augment.operations import OPERATIONS, Canvas
from convnextv2.data.auto_augment.policies import (
    AUTOAUGMENT,
    RANDAUG_WEIGHTS,
    draw_magnitude,
    strength,
)
from convnextv2.data.randomness import generator_for

FILL = (124, 116, 104)
CANVAS = Canvas(FILL, Image.Resampling.BICUBIC)
PAINTED = Image.new("RGB", (200, 150), (10, 20, 30))


@pytest.fixture
def record(monkeypatch):
    """Record the operations that policies apply, as (name, strength)."""
    applied = []

    def recording(name):
        def operation(image, value, canvas):
            applied.append((name, value))
            return image

        return operation

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, recording(name))
    return applied


def run(text, times=400, seed="policy"):
    policy = build_policy(text, fill=FILL).policy
    for i in range(times):
        policy(PAINTED, generator_for(seed, i))


TIMM_NAME = {"TranslateX": "TranslateXRel", "TranslateY": "TranslateYRel"}
GROWING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")


@pytest.mark.parametrize("increasing", [False, True])
@pytest.mark.parametrize(
    "name", [name for name in RANDAUG_WEIGHTS if name not in ("AutoContrast", "Equalize", "Invert")]
)
def test_strengths_have_timms_ranges(name, increasing):
    key = name + "Increasing" if increasing and name in GROWING else TIMM_NAME.get(name, name)
    for level in (0.0, 0.7, 3.2, 5.0, 9.0, 10.0):
        side = {"TranslateX": 200, "TranslateY": 150}.get(name, 1)
        expected = {round(side * timm.LEVEL_TO_ARG[key](level, {})[0], 6) for _ in range(30)}
        ours = {
            round(strength(name, level, PAINTED, generator_for(i), increasing=increasing), 6)
            for i in range(30)
        }
        assert ours == expected


def test_magnitudes_vary_around_the_given_one_within_bounds():
    draws = np.array([draw_magnitude(9, 0.5, 10, generator_for(i)) for i in range(1000)])
    assert (
        draws.mean() == pytest.approx(9, abs=0.1)
        and draws.std() == pytest.approx(0.5, abs=0.07)
        and draws.max() <= 10
    )
    assert {draw_magnitude(9, 0, 10, generator_for(i)) for i in range(3)} == {9}
    assert (
        draw_magnitude(20, 0, 10, generator_for(0)) == 10
        and draw_magnitude(20, 0, 30, generator_for(0)) == 20
    )
    even = np.array([draw_magnitude(8, 101, 10, generator_for(i)) for i in range(1000)])
    assert even.min() < 0.5 and even.max() < 8 and even.mean() == pytest.approx(4, abs=0.3)


def test_randaug_applies_each_of_its_operations_half_of_the_time(record):
    run("randaug-m9-n2-mstd0-inc1", 600)
    assert len(record) == pytest.approx(600, abs=60)
    counts = {name: sum(name == applied for applied, _ in record) for name in RANDAUG_WEIGHTS}
    assert all(count == pytest.approx(600 / 15, abs=28) for count in counts.values())
    assert {value for name, value in record if name == "Rotate"} == {-27.0, 27.0}
    assert {value for name, value in record if name == "Posterize"} == {1}


def test_weighted_randaug_prefers_geometry_and_repeats_nothing(record):
    run("randaug-n3-w0", 400)
    names = [name for name, _ in record]
    geometric = sum(
        name in ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY") for name in names
    )
    assert geometric > 0.8 * len(names) and not {"Posterize", "Invert"} & set(names)
    for i in range(40):
        record.clear()
        run("randaug-n13-w0", 1, seed=f"each {i}")
        assert len({name for name, _ in record}) == len(record)


def test_autoaugment_has_timms_table():
    table = [
        [(op.name.replace("Original", ""), op.prob, op.magnitude) for op in pair]
        for pair in timm.auto_augment_policy_original({})
    ]
    assert [list(pair) for pair in AUTOAUGMENT] == table


def test_autoaugment_keeps_at_least_four_bits_and_its_variant_at_most_four(record):
    run("autoaug", 600)
    assert {name for name, _ in record} == {name for pair in AUTOAUGMENT for name, _, _ in pair}
    assert {value for name, value in record if name == "Posterize"} <= {5, 6, 7, 8}
    record.clear()
    run("autoaugr", 600)
    assert {value for name, value in record if name == "Posterize"} <= {1, 2, 3}


def test_three_augment_chooses_one_of_three(record):
    run("3a-mstd0", 300)
    values = {
        name: [value for applied, value in record if applied == name]
        for name in ("Solarize", "Color", "GaussianBlur")
    }
    assert len(record) == 300 and all(
        len(drawn) == pytest.approx(100, abs=30) for drawn in values.values()
    )
    assert set(values["Solarize"]) == {128} and set(values["Color"]) == {0}
    assert min(values["GaussianBlur"]) >= 0.1 and max(values["GaussianBlur"]) <= 2


def test_augmix_runs_chains_of_its_depth_and_stays_near_the_image(record, picture):
    run("augmix-w4-d2", 5)
    assert len(record) == 5 * 4 * 2
    record.clear()
    run("augmix-w1", 300)
    assert len(record) == pytest.approx(600, abs=60)  # 1 to 3, evenly


def test_augmix_of_an_unchanged_image_is_the_image(record, picture):
    # With operations that change nothing, mixing and blending must not either, up to rounding.
    mixed = build_policy("augmix", fill=FILL)(picture, generator_for(0))
    assert (mixed.int() - picture.int()).abs().max() <= 1


def test_trivial_augment_applies_one_operation_of_a_wide_range(record):
    run("trivialaugwide", 1400)
    values = {name: [value for applied, value in record if applied == name] for name, _ in record}
    assert len(record) == pytest.approx(1300, abs=40) and len(values) == 13
    reach = {"Rotate": 135, "ShearX": 0.99, "ShearY": 0.99, "TranslateX": 32, "TranslateY": 32}
    for name, most in reach.items():
        assert (
            min(values[name]) < -0.8 * most
            and max(values[name]) > 0.8 * most
            and max(map(abs, values[name])) <= most
        )
    assert (
        min(values["Color"]) >= 0.01 and max(values["Color"]) <= 1.99 and max(values["Color"]) > 1.7
    )
    assert set(values["Posterize"]) == {2, 3, 4, 5, 6, 7, 8} and max(values["Solarize"]) <= 255


@pytest.mark.parametrize("text", POLICIES)
def test_a_policy_follows_from_the_generator_alone(picture, text):
    policy = build_policy(text, fill=FILL)
    before, untouched = torch.get_rng_state(), picture.clone()
    first, again = ([policy(picture, generator_for(text, i)) for i in range(6)] for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert any(not torch.equal(changed, picture) for changed in first)
    assert all(changed.shape == picture.shape and changed.dtype == torch.uint8 for changed in first)
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(picture, untouched)
