"""The training images and the validation images that a recipe selects."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shop import draw_grey, relative

from convnextv2.data.imagenet import imagenet_names, synsets
from convnextv2.data.sources import find_sources, validation_source
from convnextv2.errors import DataError
from convnextv2.recipe.files import dump_recipe
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.read import read_recipe


def test_a_folder_without_split_gets_one_by_class_that_follows_from_the_seed(shop: Path) -> None:
    training, validation = find_sources(Recipe(data_dir=str(shop), val_fraction=0.2), labelled=True)
    assert np.bincount(validation.targets).tolist() == [2, 1] and len(training) == 12
    assert not set(training.names) & set(validation.names)
    again = find_sources(Recipe(data_dir=str(shop), val_fraction=0.2), labelled=True)[1]
    other = find_sources(Recipe(data_dir=str(shop), val_fraction=0.2, seed=1), labelled=True)[1]
    assert list(again.names) == list(validation.names) != list(other.names)
    assert "3 of 15 images are held out" in training.notes[-1]
    assert list(
        validation_source(Recipe(data_dir=str(shop), val_fraction=0.2), ["hat", "shoe"]).names
    ) == list(validation.names)


def test_other_data_without_a_split_are_validated_whole(shop: Path) -> None:
    recipe = Recipe(data_dir=str(shop), val_fraction=0.2)
    assert len(validation_source(recipe, ["hat", "shoe"], trained_on=False)) == 15
    path = shop / "list.csv"
    path.write_text(
        "path,label\n" + "".join(f"hat/{i}.png,hat\nshoe/{i}.jpg,shoe\n" for i in range(4))
    )
    recipe = Recipe(data_dir=str(path), val_fraction=0.25)
    held_out = find_sources(recipe, labelled=True)[1]
    assert (
        list(validation_source(recipe, ["hat", "shoe"]).names) == list(held_out.names)
        and len(held_out) == 2
    )
    assert len(validation_source(recipe, ["hat", "shoe"], trained_on=False)) == 8


def test_a_training_split_is_never_validated_on(tmp_path: Path) -> None:
    draw_grey(tmp_path / "train" / "a" / "0.png")
    with pytest.raises(DataError, match="no val/ to validate on"):
        validation_source(Recipe(data_dir=str(tmp_path)), ["a"])


def test_train_and_val_folders_are_used_where_they_exist(tmp_path: Path) -> None:
    for name in ("train/a/0.png", "train/b/1.png", "val/b/2.png"):
        draw_grey(tmp_path / name)
    training, validation = find_sources(Recipe(data_dir=str(tmp_path)), labelled=True)
    assert relative(training, tmp_path) == ["train/a/0.png", "train/b/1.png"]
    assert validation.targets.tolist() == [1]
    assert "no images of 1 of the 2 classes (a)" in validation.notes[0]


def test_splits_that_are_missing_are_errors_and_never_classes(
    shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("split")
    for name in ("train/a/0.png", "train/b/1.png", "val/b/2.png"):
        draw_grey(root / name)

    def message(folder: Path, labelled: bool = True, **knobs: Any) -> str:
        with pytest.raises(DataError) as error:
            find_sources(Recipe(data_dir=str(folder), **knobs), labelled=labelled)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert f"train_split = trian: {root} has train/ and val/, but has no such folder" in message(
        root, train_split="trian"
    )
    assert "train_split = trian" in message(root, labelled=False, train_split="trian")
    assert "train_split = train: " in message(shop, train_split="train")
    for knobs in ({"val_split": "nope"}, {"val_split": "nope", "keep_policy": "top_k"}):
        assert f"val_split = nope: {root} has no such split" in message(root, **knobs)
    (root / "val").rename(root / ".val")
    for knobs in ({"val_while_train": True}, {"keep_policy": "top_k"}):
        assert "nothing to validate on" in message(root, **knobs)
    training, validation = find_sources(Recipe(data_dir=str(root)), labelled=True)
    assert validation is None and "nothing is validated" in training.notes[-1]
    assert (
        find_sources(
            Recipe(data_dir=str(root), val_split="nope", val_while_train=False), labelled=True
        )[1]
        is None
    )
    # The recipe.yaml of a run states every knob; that asks for nothing.
    file = tmp_path_factory.mktemp("own") / "recipe.yaml"
    file.write_text(dump_recipe(Recipe(data_dir=str(root))))
    assert find_sources(read_recipe({}, config=file)[0], labelled=True)[1] is None
    (root / "train").rename(root / "val")
    assert "train_split = train" in message(root)
    with pytest.raises(DataError, match="but no nope/ to validate on"):
        validation_source(Recipe(data_dir=str(root), val_split="nope"), ["a"])


def test_nothing_is_held_out_where_no_validation_is_wanted(shop: Path) -> None:
    recipe = Recipe(data_dir=str(shop), val_while_train=False)
    training, validation = find_sources(recipe, labelled=True)
    assert len(training) == 15 and validation is None
    with pytest.raises(DataError, match="was trained on as a whole"):
        validation_source(recipe, ["hat", "shoe"])
    assert len(validation_source(recipe, ["hat", "shoe"], trained_on=False)) == 15


def test_pretraining_sees_every_image_but_those_for_validation(
    shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source, none = find_sources(Recipe(data_dir=str(shop)), labelled=False)
    assert len(source) == 15 and source.targets is None and none is None
    split = tmp_path_factory.mktemp("split")
    for name in ("train/a/b/0.png", "train/1.png", "val/a/2.png"):
        draw_grey(split / name)
    assert relative(find_sources(Recipe(data_dir=str(split)), labelled=False)[0], split) == [
        "train/1.png",
        "train/a/b/0.png",
    ]


def test_num_samples_is_a_fixed_choice(shop: Path) -> None:
    recipe = Recipe(data_dir=str(shop), num_samples=5)
    first, second = (find_sources(recipe, labelled=True)[0] for _ in range(2))
    assert len(first) == 5 and list(first.names) == list(second.names)


def test_a_model_of_imagenet_is_measured_on_a_part_of_its_classes(tmp_path: Path) -> None:
    for wnid in ("n01440764", "n02102040"):
        draw_grey(tmp_path / wnid / "0.png")
    names = list(imagenet_names(synsets()).values())
    source = validation_source(Recipe(data_dir=str(tmp_path)), names, trained_on=False)
    assert source.targets.tolist() == [0, 217] and len(source.class_names) == 1000
