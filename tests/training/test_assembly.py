import pytest
import torch
from trees import PREPROCESSING, network, save

from convnextv2.distributed import Place
from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.assembly import announcements, build_scaler, infer_from_init

CPU = Place(torch.device("cpu"))


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        (
            {"decay_epochs": 100, "epochs": 50, "lr": 1.0},
            "needs 100 epochs, after the warm-up there are 50: lr ends at 0.5",
        ),
        ({"decay_epochs": 100, "epochs": 100}, ""),
        (
            {"decay_epochs": 20, "num_cycles": 2, "epochs": 50, "warmup_epochs": 20},
            "the cosine needs 40 epochs",
        ),
        ({"decay_epochs": 100, "epochs": 50, "schedule": "step"}, ""),
        ({"epochs": 50}, ""),
    ],
)
def test_a_cosine_that_is_cut_short_is_told(knobs: dict, told: str) -> None:
    recipe = Recipe(**knobs)
    lines = [
        line
        for line in announcements(recipe, 64, recipe.lr, torch.float32, CPU)
        if line.startswith("decay_epochs")
    ]
    assert len(lines) == bool(told) and told in "".join(lines)


def test_the_loss_is_scaled_from_loss_scale_on_in_float16_only() -> None:
    recipe = Recipe(loss_scale=1024.0)
    assert build_scaler(recipe, torch.float16, CPU.device).get_scale() == 1024
    assert not build_scaler(recipe, torch.bfloat16, CPU.device).is_enabled()


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
    recipe, (line,) = infer_from_init(Recipe(init=five, data_dir="d"))
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
    recipe, _ = infer_from_init(Recipe(init=five, data_dir="d", **mine))
    assert (recipe.in_channels, recipe.mean, recipe.std, recipe.value_range) == (
        5,
        (0.6,) * 5,
        (0.2,) * 5,
        (0.0, 9.0),
    )
    recipe, _ = infer_from_init(
        Recipe(init=five, data_dir="d", in_channels=3)
    )  # adapted, with ImageNet's statistics
    assert (recipe.in_channels, recipe.mean) == (3, Recipe().mean)


def test_weights_of_photographs_leave_the_statistics_alone(tmp_path) -> None:
    for channels in (1, 3):
        how = PREPROCESSING | {
            "channels": channels,
            "mean": [0.5] * channels,
            "std": [0.2] * channels,
        }
        weights = save(network(in_channels=channels), tmp_path, preprocessing=how)
        recipe, _ = infer_from_init(Recipe(init=str(weights), data_dir="d"))
        assert (recipe.in_channels, recipe.mean, recipe.value_range) == (
            channels,
            Recipe().mean,
            None,
        )


def test_channels_that_weights_bring_meet_the_checks_of_the_recipe(five: str) -> None:
    with pytest.raises(
        RecipeError, match="color_jitter = 0.4: saturation and hue are for RGB, and in_channels = 5"
    ):
        infer_from_init(Recipe(init=five, data_dir="d", color_jitter=0.4))
    with pytest.raises(RecipeError, match="statistics d --in_channels 4"):
        infer_from_init(Recipe(init=five, data_dir="d", in_channels=4))
