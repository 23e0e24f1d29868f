from pathlib import Path

import pytest

from convnextv2.data.output_path import check_outside_data
from convnextv2.errors import RecipeError
from convnextv2.find import recipe_of
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run


@pytest.mark.parametrize("place", ["", "run", "cat/run", "../data/cat/a.png"])
def test_a_place_among_the_classes_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "data" / "cat").mkdir(parents=True)
    data = tmp_path / "data"
    for recipe in (Recipe(data_dir=str(data)), Recipe(probe_dir=str(data))):
        with pytest.raises(RecipeError, match=r"pictures = .*: lies in the data \(.*/data\)"):
            check_outside_data(data / place, None, Recipe(), recipe, option="pictures")


def test_a_place_beside_the_splits_is_taken_and_one_inside_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val", "mine"):
        (tmp_path / split / "cat").mkdir(parents=True)
    recipe = Recipe(data_dir=str(tmp_path), val_split="mine")
    check_outside_data(tmp_path / "run", recipe)
    check_outside_data(tmp_path.parent / "run", recipe)
    for inside in ("train/run", "val/cat/run", "mine/run", "."):
        with pytest.raises(RecipeError, match="out = "):
            check_outside_data(tmp_path / inside, recipe)


def test_tables_and_missing_data_refuse_no_place(tmp_path: Path) -> None:
    (tmp_path / "table.csv").touch()
    for data in ("", str(tmp_path / "gone"), str(tmp_path / "table.csv")):
        check_outside_data(tmp_path / "gone" / "run", Recipe(data_dir=data))


@pytest.mark.parametrize("task", ["segmentation", "detection"])
@pytest.mark.parametrize("folders", [("images", "masks"), ("JPEGImages", "Annotations")])
def test_a_place_beside_images_and_annotations_is_taken(
    task: str, folders: tuple[str, str], tmp_path: Path
) -> None:
    for name in folders:
        (tmp_path / name / "train").mkdir(parents=True)
    recipe = Recipe(data_dir=str(tmp_path), task=task)
    check_outside_data(tmp_path / "runs" / "a", recipe)
    for inside in (f"{folders[0]}/run", f"{folders[1]}/train/run", "."):
        with pytest.raises(RecipeError, match="out = "):
            check_outside_data(tmp_path / inside, recipe)
    with pytest.raises(RecipeError, match="out = "):
        check_outside_data(tmp_path / "runs" / "a", Recipe(data_dir=str(tmp_path)))


def test_relative_data_of_a_run_count_from_where_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = tmp_path / "data", tmp_path / "data" / "runs" / "a"
    for folder in (data / "cat", run / "best", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    weights = run / "best" / "model.safetensors"
    Run(run).save_recipe(Recipe(data_dir=".", out="runs/a"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    check_outside_data("made", recipe_of(weights))
    for place in (data, tmp_path):
        monkeypatch.chdir(place)
        with pytest.raises(RecipeError, match="out = .*/data/cat/made"):
            check_outside_data(data / "cat" / "made", recipe_of(weights))
    Run(run).save_recipe(Recipe(data_dir=".", out=str(run)))
    check_outside_data("made", recipe_of(weights))  # nobody knows where that was
