import pytest
import torch

from convnextv2.distributed import Place
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.announce import announcements

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
