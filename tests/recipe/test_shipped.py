"""Every recipe in the tree resolves, and says at its head what it is."""

from pathlib import Path

import pytest
import torch

from convnextv2.data.transforms import build_batch_transform, build_eval_transform, build_train_transform
from convnextv2.recipe.read import list_recipes, read_recipe
from convnextv2.training.assembly import build_network

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.yaml"))


def test_all_recipes_are_listed_by_name() -> None:
    assert sorted(name for name, _ in list_recipes()) == NAMES and len(NAMES) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_recipe_resolves_and_builds(name: str) -> None:
    recipe, _ = read_recipe({}, config=name)
    with torch.device("meta"):
        build_network(recipe, 10)
    build_train_transform(recipe)
    build_eval_transform(recipe)
    build_batch_transform(recipe, 10)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_states_command_hardware_and_result(name: str) -> None:
    head = (CONFIGS / f"{name}.yaml").read_text().split("\n\n")[0]
    for field in ("Command:", "Hardware:", "esult"):
        assert field in head
