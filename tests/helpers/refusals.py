"""The messages with which recipes are refused."""

import pytest

from convnextv2.errors import RecipeError
from convnextv2.recipe.read import read_recipe


def lines_of(*arguments, **keywords):
    """Return the lines of the error that reading a recipe raises."""
    with pytest.raises(RecipeError) as caught:
        read_recipe(*arguments, **keywords)
    return str(caught.value).splitlines()
