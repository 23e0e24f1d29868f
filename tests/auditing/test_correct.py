"""A corrected data set is read back with the images and labels that were kept."""

import os
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from image_tables import place
from maps import draw_maps, write_pair

from convnextv2.auditing.correct import Corrected, correct
from convnextv2.auditing.findings import Finding
from convnextv2.auditing.images import Images
from convnextv2.auditing.reading import find_images
from convnextv2.data.dense.map_folders import find_folders, pair
from convnextv2.data.dense.map_sources import find_map_sources
from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources
from convnextv2.distributed import Place
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.read import read_recipe


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def corrected(images: Images) -> Corrected:
    """Correct images that have no faults."""
    Path("out").mkdir(exist_ok=True)
    return correct(images, [], {}, Path("out"), "drop")


def read_back(found: Corrected) -> tuple[Source, Source | None]:
    """Read the corrected data by the options that the report tells to type."""
    words = shlex.split(found.options)
    knobs = {name.lstrip("-"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    recipe = read_recipe({"data_dir": str(found.path), **knobs})[0]
    return find_sources(recipe, labelled=True)


def names(source: Source | None) -> list[str]:
    assert source is not None
    return ["/".join(Path(name).parts[-2:]) for name in source.names]


def folders(*classes: str, images: int = 4) -> Images:
    place([f"data/{name}/{i}.jpg" for name in classes for i in range(images)])
    return find_images(Recipe(data_dir="data"), "classification")


def listed(rows: str, **knobs: str) -> Images:
    Path("list.csv").write_text(rows)
    return find_images(Recipe(data_dir="list.csv", **knobs), "classification")


def test_what_a_table_cannot_hold_is_left_out_and_counted(here: Path) -> None:
    place(["data/a/ b.jpg", "data/a/c\nd,.jpg", 'data/a/"e".jpg'])
    (Path("data/b")).mkdir()
    Path(os.fsdecode(b"data/b/\xff.jpg")).touch()
    found = corrected(folders("a", "b", "nan"))
    assert found.dropped == {
        "a path that a table cannot hold": 1,
        "a class that a table cannot hold": 4,
    }
    training, validation = read_back(found)
    assert sorted(names(training) + names(validation)) == sorted(
        [*(f"{name}/{i}.jpg" for name in "ab" for i in range(4)), "a/ b.jpg", 'a/"e".jpg']
        + ["a/c\nd,.jpg"]
    )


def test_classes_that_look_like_lists_stay_classes(here: Path) -> None:
    found = corrected(folders("cat", "dog", "cat;dog"))
    assert found.options == " --labels single"
    training = read_back(found)[0]
    assert training.class_names == ("cat", "cat;dog", "dog") and not training.is_multi_label


@pytest.mark.parametrize(
    "classes", [("1", "1.0"), ("1.0", "2.0"), ("01", "1"), ("1000", "1e3"), ("None", "True")]
)
def test_classes_that_look_like_numbers_stay_classes(here: Path, classes: tuple[str, ...]) -> None:
    training, validation = read_back(corrected(folders(*classes)))
    assert training.class_names == classes
    for source in (training, validation):
        assert source is not None and source.targets is not None
        named = [classes[target] for target in source.targets]
        assert named == [Path(name).parent.name for name in source.names]


def test_classes_called_like_other_columns_stay_classes(here: Path) -> None:
    place([f"{i}.jpg" for i in range(4)])
    images = listed(
        "image,target,set\n0.jpg,1,0\n1.jpg,1,1\n2.jpg,0,1\n3.jpg,,1\n",
        columns="label=target|set,split=",
    )
    training, validation = read_back(corrected(images))
    assert training.class_names == ("target", "set")
    assert sorted(names(training) + names(validation)) == sorted(
        f"{here.name}/{i}.jpg" for i in range(4)
    )


def test_splits_with_names_of_their_own_are_named(here: Path) -> None:
    place(
        [
            f"data/{split}/{name}/{i}.jpg"
            for split in ("train", "mine")
            for name in "ab"
            for i in (0, 1)
        ]
    )
    images = find_images(Recipe(data_dir="data", val_split="mine"), "classification")
    found = corrected(images)
    assert found.options == " --val_split mine"
    assert [len(source or ()) for source in read_back(found)] == [4, 4]


def test_of_folds_the_last_is_for_validation(here: Path) -> None:
    place([f"{i}.jpg" for i in range(6)])
    rows = "".join(f"{i}.jpg,{'ab'[i % 2]},{i // 2}\n" for i in range(6))
    found = corrected(listed(f"path,label,fold\n{rows}"))
    assert found.options == " --train_split 0,1 --val_split 2"
    training, validation = read_back(found)
    assert names(training) == [f"{here.name}/{i}.jpg" for i in range(4)]
    assert names(validation) == [f"{here.name}/{i}.jpg" for i in (4, 5)]
    found = corrected(listed(f"path,label,fold\n{rows}", train_split="2", val_split="0"))
    assert found.options == " --train_split 2 --val_split 0"


def test_two_folders_of_one_name_are_two_splits(here: Path) -> None:
    place(
        [
            f"data/{part}/images/{name}/{part}{i}.jpg"
            for part in "xy"
            for name in "ab"
            for i in (0, 1)
        ]
    )
    recipe = Recipe(data_dir="data", train_split="x/images", val_split="y/images")
    images = find_images(recipe, "classification")
    assert images.split_names == ["x/images", "y/images"]
    assert not any(line.startswith("Not audited") for line in images.notes)
    training, validation = read_back(corrected(images))
    assert {name[2] for name in names(training)} == {"x"}
    assert {name[2] for name in names(validation)} == {"y"}


@pytest.mark.parametrize(
    ("knobs", "kept"),
    [({"val_split": "2"}, "2"), ({}, "2"), ({"train_split": "1,2"}, "0")],
    ids=["asked for", "the last fold", "the rest"],
)
def test_wrong_labels_stay_in_the_split_for_validation(
    knobs: dict[str, str], kept: str, here: Path
) -> None:
    place([f"{i}.jpg" for i in range(6)])
    rows = "".join(f"{i}.jpg,{'ab'[i % 2]},{i // 2}\n" for i in range(6))
    images = listed(f"path,label,fold\n{rows}", **knobs)
    doubted = [
        Finding("wrong_label", path, split, images.label_of(i), "", suggested="a", score=0.9)
        for i, (path, split) in enumerate(zip(images.paths, images.splits, strict=True))
        if split in ("2", "0")
    ]
    Path("out").mkdir()
    found = correct(images, doubted, {}, Path("out"), "drop")
    assert found.dropped == {"probably a wrong label": 2} and found.path is not None
    left = {row.rsplit(",", 1)[1] for row in found.path.read_text().splitlines()[1:]}
    assert left == {"1", kept}


@pytest.mark.parametrize(
    ("splits", "train", "val"),
    [
        (("test", "0", "1", "2"), ["0", "1"], ["2"]),
        (("0", "1", "test"), ["0"], ["1"]),
        (("val", "rest"), ["rest"], ["val"]),
        (("rest", "val", "test"), ["rest"], ["val"]),
    ],
)
def test_of_splits_without_one_for_training_none_changes_its_use(
    splits: tuple[str, ...], train: list[str], val: list[str], here: Path
) -> None:
    place([f"{split}{name}.jpg" for split in splits for name in "ab"])
    rows = "".join(f"{split}{name}.jpg,{name},{split}\n" for split in splits for name in "ab")
    read = read_back(corrected(listed(f"path,label,split\n{rows}")))
    for source, own in zip(read, (train, val), strict=True):
        assert names(source) == [f"{here.name}/{split}{name}.jpg" for split in own for name in "ab"]


def test_links_to_images_of_one_name_have_names_of_their_own(tmp_path: Path, here: Path) -> None:
    root = draw_maps(tmp_path / "maps")
    for kind, end in (("images", "jpg"), ("annotations", "png")):
        for i, name in enumerate(("x/a", "y/A", "z/a-2")):
            target = root / kind / "train" / f"{name}.{end}"
            target.parent.mkdir()
            (root / kind / "train" / f"{i}.{end}").rename(target)
    images = find_images(Recipe(data_dir=str(root)), "segmentation")
    found = corrected(images)
    assert found.path is not None and found.kept == len(images)
    pairs = pair(find_folders(found.path)["train"])
    stems = [
        [Path(os.path.realpath(p)).with_suffix("").parts[-2:] for p in each]
        for each in (pairs.images, pairs.maps)
    ]
    assert stems[0] == stems[1] and len(set(stems[0])) == len(images) - images.splits.count("val")


def test_maps_with_values_of_no_class_are_audited_and_trained_on_without_them(
    tmp_path: Path, here: Path
) -> None:
    root = draw_maps(tmp_path / "maps", train=4, val=2)
    pixels, strange = np.zeros((2, 40, 40, 3), np.uint8)
    for split, value in (("train", 77), ("val", 88)):
        strange[:2] = value
        write_pair(root, split, "strange", pixels, strange[..., 0])
    images = find_images(Recipe(data_dir=str(root)), "segmentation")
    assert [word for line in images.defects for word in ("77", "88") if word in line] == [
        "77",
        "88",
    ]
    assert images.amounts is not None and len(images) == 8 and images.class_names
    at = [i for i, path in enumerate(images.paths) if path.endswith("strange.jpg")]
    assert images.amounts[at].sum(1).tolist() == [38 * 40, 38 * 40]
    found = corrected(images)
    options = shlex.split(found.options)
    assert options[2:] == ["--ignore_values", "255,77,88"]
    recipe = read_recipe({"data_dir": str(found.path), "ignore_values": options[3]})[0]
    training, validation = find_map_sources(recipe, Place(torch.device("cpu")))
    assert validation is not None and (len(training), len(validation)) == (5, 3)


@pytest.mark.parametrize("stray", [[], [77]])
def test_corrected_maps_are_read_with_the_knobs_of_the_audit(
    tmp_path: Path, here: Path, stray: list[int]
) -> None:
    root = draw_maps(tmp_path / "maps", train=4, val=2, table=False)
    table = tmp_path / "the classes.txt"
    table.write_text("red\nblue\ngreen\n")  # their values are 1, 2 and 3
    for value in (3, 9, *stray):
        labels = np.full((40, 40), value, np.uint8)
        write_pair(root, "train", f"of {value}", np.full((40, 40, 3), value, np.uint8), labels)
    knobs = {"classes": str(table), "ignore_values": (9,), "reduce_zero_label": True}
    images = find_images(Recipe(data_dir=str(root), **knobs), "segmentation")
    assert len(images.defects) == len(stray)
    found = corrected(images)
    words = shlex.split(found.options)[2:]
    given = dict(zip([word[2:] for word in words[::2]], words[1::2], strict=True))
    recipe = read_recipe({"data_dir": str(found.path), **given})[0]
    training, _ = find_map_sources(recipe, Place(torch.device("cpu")))
    assert training.class_names == ("red", "blue", "green") and images.amounts is not None
    rows = [training.annotation(i).numpy() for i in range(len(training))]
    assert [sum(int((row == k).sum()) for row in rows) for k in range(3)] == images.amounts[
        [split == "train" for split in images.splits]
    ].sum(0).tolist()


def test_validation_maps_without_any_class_are_left_out(tmp_path: Path, here: Path) -> None:
    root = draw_maps(tmp_path / "maps", train=4, val=0)
    write_pair(
        root, "val", "strange", np.zeros((40, 40, 3), np.uint8), np.full((40, 40), 77, np.uint8)
    )
    images = find_images(Recipe(data_dir=str(root)), "segmentation")
    assert "every pixel of the validation maps is ignored" in images.defects[-1].lower()
    found = corrected(images)
    assert found.kept == 4 and sum(found.dropped.values()) == 1
    recipe = read_recipe({"data_dir": str(found.path), "ignore_values": "77"})[0]
    training, validation = find_map_sources(recipe, Place(torch.device("cpu")))
    assert validation is not None and (len(training), len(validation)) == (3, 1)


def test_maps_of_very_many_values_are_told_and_their_images_are_for_pre_training(
    tmp_path: Path, here: Path
) -> None:
    root = draw_maps(tmp_path / "maps", train=4, val=2)
    depths = np.arange(1600, dtype=np.uint16).reshape(40, 40)
    write_pair(root, "train", "depths", np.full((40, 40, 3), 9, np.uint8), depths)
    images = find_images(Recipe(data_dir=str(root)), "segmentation")
    assert "hold 1,596 values" in images.defects[0] and images.targets is None
    found = corrected(images)
    assert found.path is not None and not found.options and len(str(images.map_knobs)) < 99
    source = find_sources(Recipe(data_dir=str(found.path)), labelled=False)[0]
    expected = [*(f"train/{i}.jpg" for i in range(4)), "train/depths.jpg"]
    assert found.kept == 7 and sorted(names(source)) == expected
