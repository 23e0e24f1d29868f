import json

import pytest

from convnextv2.data.build_transforms import (
    build_eval_transform,
    build_preprocessing,
    per_channel,
)
from convnextv2.data.transforms import (
    EvalTransform,
)
from convnextv2.errors import RecipeError
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe


def test_preprocessing_survives_json():
    recipe = Recipe(
        image_size=(96, 64),
        eval_preset="mindcv",
        crop_pct=0.95,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    )
    description = json.loads(json.dumps(build_preprocessing(recipe).to_json()))
    assert EvalTransform(Preprocessing.read(description)) == build_eval_transform(recipe)
    assert description["image_size"] == [96, 64]
    assert description["mean"] == pytest.approx([0.485, 0.456, 0.406]) and description[
        "std"
    ] == pytest.approx([0.229, 0.224, 0.225])


def test_grey_images_take_the_average_of_mean_and_std():
    description = build_preprocessing(Recipe(in_channels=1)).to_json()
    assert description["mean"] == pytest.approx([0.449]) and description["std"] == pytest.approx(
        [0.226]
    )
    assert per_channel((0.5,), 3) == (0.5, 0.5, 0.5)
    with pytest.raises(RecipeError, match="in_channels = 4"):
        per_channel((0.1, 0.2, 0.3), 4)


@pytest.mark.parametrize(
    ("mean", "std", "scaled"),
    [(0.0, 255.0, 1.0), (127.5, 127.5, 0.5), (0.0, 1.0, 1.0), (0.5, 0.25, 0.25)],
)
def test_mean_and_std_together_decide_their_scale(mean: float, std: float, scaled: float) -> None:
    assert (
        build_preprocessing(Recipe(mean=(mean,) * 3, std=(std,) * 3)).to_json()["std"]
        == [scaled] * 3
    )


def test_a_range_of_values_travels_only_where_it_is_set():
    plain = build_preprocessing(Recipe()).to_json()
    assert "value_range" not in plain  # so that older versions can read it
    assert Preprocessing.read(plain).value_range is None
    described = json.loads(
        json.dumps(build_preprocessing(Recipe(value_range=(-1.0, 4000.0))).to_json())
    )
    assert described == plain | {"value_range": [-1.0, 4000.0]}
    assert Preprocessing.read(described).value_range == (-1.0, 4000.0)
