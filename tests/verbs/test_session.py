"""What is checked before a run begins on several ranks."""

import pytest
import torch

from convnextv2.distributed import Place
from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe
from convnextv2.verbs.session import _check_waits


def test_one_rank_may_not_wait_for_images_longer_than_the_others_wait_for_it() -> None:
    cpu = torch.device("cpu")
    recipe = Recipe(data_wait_s=900)
    _check_waits(recipe, Place(cpu))
    with pytest.raises(RecipeError, match=r"data_wait_s = 900: .* wait for a rank 600 s"):
        _check_waits(recipe, Place(cpu, world_size=2))
    _check_waits(Recipe(), Place(cpu, world_size=2))
    _check_waits(Recipe(data_wait_s=900, rank_timeout_s=1000), Place(cpu, world_size=2))
