"""The checks before a run begins on several ranks."""

import pytest
import torch

from convnextv2.distributed import Place
from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe
from convnextv2.verbs.session import _wait_in_time


def test_one_rank_may_not_wait_for_images_longer_than_the_others_wait_for_it() -> None:
    cpu = torch.device("cpu")
    one, two = Place(cpu), Place(cpu, world_size=2)
    recipe = Recipe(data_wait_s=900)
    assert _wait_in_time(recipe, one) == (recipe, [])
    with pytest.raises(RecipeError, match=r"data_wait_s = 900: expected less than .* .600 s"):
        _wait_in_time(recipe, two)
    for fine in (Recipe(), Recipe(data_wait_s=900, rank_timeout_s=1000)):
        assert _wait_in_time(fine, two) == (fine, [])
    shortened, (note,) = _wait_in_time(Recipe(rank_timeout_s=15), two)
    assert shortened.data_wait_s == 7.5 and note.startswith("data_wait_s 7.5: half of")
    assert shortened.model_fields_set == {"rank_timeout_s"}
