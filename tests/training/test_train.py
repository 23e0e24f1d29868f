import torch

from convnextv2.recipe.knobs import Recipe
from convnextv2.training.train import build_scaler

CPU = torch.device("cpu")


def test_the_loss_is_scaled_from_loss_scale_on_in_float16_only() -> None:
    recipe = Recipe(loss_scale=1024.0)
    assert build_scaler(recipe, torch.float16, CPU).get_scale() == 1024
    assert not build_scaler(recipe, torch.bfloat16, CPU).is_enabled()
