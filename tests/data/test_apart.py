from pathlib import Path

import pytest

from convnextv2.data.apart import check_apart
from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe


@pytest.mark.parametrize("place", ["", "run", "cat/run", "../data/cat/a.png"])
def test_what_lies_among_classes_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "data" / "cat").mkdir(parents=True)
    data = tmp_path / "data"
    for recipe in (Recipe(data_dir=str(data)), Recipe(probe_dir=str(data))):
        with pytest.raises(RecipeError, match=r"pictures = .*: lies in the data \(.*/data\)"):
            check_apart(data / place, None, Recipe(), recipe, option="pictures")


def test_beside_splits_is_apart_and_inside_of_them_is_not(tmp_path: Path) -> None:
    for split in ("train", "val", "mine"):
        (tmp_path / split / "cat").mkdir(parents=True)
    recipe = Recipe(data_dir=str(tmp_path), val_split="mine")
    check_apart(tmp_path / "run", recipe)
    check_apart(tmp_path.parent / "run", recipe)
    for inside in ("train/run", "val/cat/run", "mine/run", "."):
        with pytest.raises(RecipeError, match="out = "):
            check_apart(tmp_path / inside, recipe)


def test_data_that_are_no_folder_or_are_gone_refuse_nothing(tmp_path: Path) -> None:
    (tmp_path / "table.csv").touch()
    for data in ("", str(tmp_path / "gone"), str(tmp_path / "table.csv")):
        check_apart(tmp_path / "gone" / "run", Recipe(data_dir=data))
