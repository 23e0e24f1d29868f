"""The settings that fit each number of channels."""

import re

import pytest

from convnextv2.errors import RecipeError
from convnextv2.recipe.files import dump_recipe
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.read import read_recipe

FIVE = {
    "data_dir": "fields",
    "in_channels": 5,
    "mean": "0.1,0.2,0.3,0.4,0.5",
    "std": "0.1,0.1,0.1,0.1,0.1",
}


def mistakes(**values) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read_recipe(values)
    head, *lines = str(caught.value).splitlines()
    if not lines:  # one mistake needs no heading
        return [head]
    assert re.fullmatch(r"this command has \d errors:", head)
    return [line.strip() for line in lines]


def test_statistics_are_asked_for_with_the_command_that_measures_them():
    assert mistakes(data_dir="fields", in_channels=5) == [
        "mean = [0.485, 0.456, 0.406]: expected one number for each channel (in_channels = 5). "
        "Measure mean and std with: convnextv2 statistics fields --in_channels 5"
    ]
    assert (
        read_recipe({"in_channels": 5})[0].in_channels == 5
    )  # without images nothing is normalised: benchmark
    assert read_recipe(FIVE)[0].mean == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert read_recipe({"data_dir": "fields", "in_channels": 5, "mean": 0.5, "std": 0.2})[
        0
    ].mean == (0.5,)
    assert read_recipe({"data_dir": "fields", "in_channels": 1})[1] == []


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        (
            {"color_jitter": 0.4},
            "color_jitter = 0.4: saturation and hue are for RGB, and in_channels = 5. Use "
            "[0.4, 0.4, 0]",
        ),
        (
            {"color_jitter": "0.1,0.2,0,0.3"},
            "color_jitter = (0.1, 0.2, 0.0, 0.3): saturation and hue",
        ),
        ({"auto_augment": "3a"}, "auto_augment = 3a: 3a changes colours, and in_channels = 5."),
        (
            {"auto_augment": "autoaugr-mstd1"},
            "auto_augment = autoaugr-mstd1: autoaugr changes colours",
        ),
        (
            {"erase_prob": 0.5, "erase_value": "1,2,3"},
            "erase_value = (1.0, 2.0, 3.0): expected one number, or one",
        ),
        (
            {"data_dir": "", "dataset": "cifar10"},
            "in_channels = 5: the images of dataset cifar10 have no such bands",
        ),
    ],
)
def test_what_is_for_colours_is_refused_with_the_remedy(knobs, expected):
    (line,) = mistakes(**FIVE | knobs)
    assert line.startswith(expected)


@pytest.mark.parametrize(
    "knobs",
    [
        {"color_jitter": "0.4,0.4,0"},
        {"auto_augment": "randaug-m9"},
        {"auto_augment": "randaug-m9", "color_jitter": 0.4},  # which has no effect then
        {"auto_augment": "trivialaugwide"},
        {"auto_augment": "augmix"},
        {"erase_prob": 0.5, "erase_value": "1,2,3,4,5"},
        {"erase_prob": 0.5, "erase_value": 1},
        {"dataset": "imagenet"},
    ],
)
def test_what_is_defined_channel_by_channel_is_taken(knobs):
    read_recipe(FIVE | knobs)


def test_the_same_is_no_mistake_for_rgb_and_grey():
    for channels in (1, 3):
        for knobs in (
            {"color_jitter": 0.4},
            {"auto_augment": "3a"},
            {"dataset": "cifar10"},
            {"auto_augment": "autoaug"},
        ):
            read_recipe({"in_channels": channels} | knobs)


def test_a_range_of_values_is_two_growing_numbers():
    recipe = read_recipe({"value_range": "[0, 4000]"})[0]
    assert recipe.value_range == (0.0, 4000.0)
    assert (
        Recipe().value_range is None and read_recipe({"value_range": "none"})[0].value_range is None
    )
    assert mistakes(value_range="5,5") == [
        "value_range = (5.0, 5.0): expected two numbers, low < high."
    ]
    assert mistakes(value_range="7")[0].startswith("value_range = 7: expected 2 numbers, or none.")


def test_a_range_of_values_survives_the_recipe_of_a_run(tmp_path):
    recipe = read_recipe(FIVE | {"value_range": "-1.5,1e4"})[0]
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert read_recipe({}, config=tmp_path / "recipe.yaml")[0] == recipe


def test_a_range_of_values_does_nothing_to_named_sets():
    assert read_recipe({"dataset": "bundled", "value_range": "0,9"})[1] == [
        "No effect here: value_range (its images have 8 bits)."
    ]
