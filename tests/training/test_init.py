from pathlib import Path

import pytest
from trees import PREPROCESSING, network, save

from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.init import infer_from_weights
from convnextv2.weights.opened import open_weights


def infer(recipe: Recipe) -> tuple[Recipe, list[str]]:
    return infer_from_weights(recipe, open_weights(Path(recipe.init)))


FIVE = {
    "channels": 5,
    "mean": [0.1, 0.2, 0.3, 0.4, 0.5],
    "std": [0.1] * 5,
    "value_range": [0.0, 4000.0],
}


@pytest.fixture
def five(tmp_path) -> str:
    """Weights of five channels that know what was measured of their images."""
    return str(save(network(in_channels=5), tmp_path, preprocessing=PREPROCESSING | FIVE))


def test_weights_tell_their_channels_and_what_was_measured_of_them(five: str) -> None:
    recipe, (line,) = infer(Recipe(init=five, data_dir="d"))
    assert (recipe.in_channels, recipe.mean, recipe.std) == (
        5,
        (0.1, 0.2, 0.3, 0.4, 0.5),
        (0.1,) * 5,
    )
    assert recipe.value_range == (0.0, 4000.0)
    assert (
        "in_channels 5" in line
        and "mean [0.1, 0.2, 0.3, 0.4, 0.5]" in line
        and "value_range [0, 4000]" in line
    )


def test_what_the_user_measured_goes_first(five: str) -> None:
    mine = {"mean": (0.6,) * 5, "std": (0.2,) * 5, "value_range": (0.0, 9.0)}
    recipe, _ = infer(Recipe(init=five, data_dir="d", **mine))
    assert (recipe.in_channels, recipe.mean, recipe.std, recipe.value_range) == (
        5,
        (0.6,) * 5,
        (0.2,) * 5,
        (0.0, 9.0),
    )
    recipe, _ = infer(
        Recipe(init=five, data_dir="d", in_channels=3)
    )  # adapted, with ImageNet's statistics
    assert (recipe.in_channels, recipe.mean) == (3, Recipe().mean)


def test_the_statistics_of_weights_are_adopted_unless_they_are_set(tmp_path) -> None:
    for channels in (1, 3):
        how = PREPROCESSING | {
            "channels": channels,
            "mean": [0.5] * channels,
            "std": [0.2] * channels,
        }
        weights = save(network(in_channels=channels), tmp_path, preprocessing=how)
        recipe, _ = infer(Recipe(init=str(weights), data_dir="d"))
        assert (recipe.in_channels, recipe.value_range) == (channels, None)
        assert (recipe.mean, recipe.std) == ((0.5,) * channels, (0.2,) * channels)
        mine = {"mean": (0.1,) * channels, "std": (0.3,) * channels}
        recipe, _ = infer(Recipe(init=str(weights), data_dir="d", **mine))
        assert (recipe.mean, recipe.std) == (mine["mean"], mine["std"])


def test_channels_that_weights_bring_meet_the_checks_of_the_recipe(five: str) -> None:
    with pytest.raises(
        RecipeError, match="color_jitter = 0.4: saturation and hue are for RGB, and in_channels = 5"
    ):
        infer(Recipe(init=five, data_dir="d", color_jitter=0.4))
    with pytest.raises(RecipeError, match="statistics d --in_channels 4"):
        infer(Recipe(init=five, data_dir="d", in_channels=4))
