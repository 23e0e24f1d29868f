import pytest
import torch

from convnextv2.distributed import Place
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.assembly import announcements, build_scaler, changes

CPU = Place(torch.device("cpu"))


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"decay_epochs": 100, "epochs": 50, "lr": 1.0}, "needs 100 epochs, after the warm-up there are 50: lr ends at 0.5"),
        ({"decay_epochs": 100, "epochs": 100}, ""),
        ({"decay_epochs": 20, "num_cycles": 2, "epochs": 50, "warmup_epochs": 20}, "the cosine needs 40 epochs"),
        ({"decay_epochs": 100, "epochs": 50, "schedule": "step"}, ""),
        ({"epochs": 50}, ""),
    ],
)
def test_a_cosine_that_is_cut_short_is_told(knobs: dict, told: str) -> None:
    recipe = Recipe(**knobs)
    lines = [line for line in announcements(recipe, 64, recipe.lr, torch.float32, CPU) if line.startswith("decay_epochs")]
    assert len(lines) == bool(told) and told in "".join(lines)


def test_the_loss_is_scaled_from_loss_scale_on_in_float16_only() -> None:
    recipe = Recipe(loss_scale=1024.0)
    assert build_scaler(recipe, torch.float16, CPU.device).get_scale() == 1024
    assert not build_scaler(recipe, torch.bfloat16, CPU.device).is_enabled()


def test_what_a_resumed_run_changes_is_told() -> None:
    before = Recipe(epochs=40, lr=1e-3, out="a")
    assert changes(before, Recipe(epochs=40, lr=1e-3, out="b", resume=True), 96, 96) == []
    assert changes(before, Recipe(epochs=60, lr=1e-4), 96, 97) == [
        "  epochs: 40 before, 60 from here on",
        "  lr: 0.001 before, 0.0001 from here on",
        "  training images: 96 before, 97 from here on",
    ]
    assert changes(before, before, 0, 97) == []  # a checkpoint that does not say
