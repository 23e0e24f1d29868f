"""Tables as training and validation images: their splits, folds and flags, and their knobs."""

import json
from pathlib import Path

import pytest
from shop import relative

from convnextv2.data.sources import find_sources, validation_source
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe


def test_the_splits_of_a_manifest_go_by_the_names_that_are_set(shop: Path) -> None:
    path = shop / "list.csv"
    path.write_text("path,label,split\nhat/0.png,hat,a\nshoe/0.jpg,shoe,a\nhat/1.png,hat,b\n")
    training, validation = find_sources(
        Recipe(data_dir=str(path), train_split="a", val_split="b"), labelled=True
    )
    assert len(training) == 2 and len(validation) == 1 and validation.names[0] not in training.names
    with pytest.raises(DataError, match="lists no images for training"):
        find_sources(Recipe(data_dir=str(path), train_split="trian"), labelled=True)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_manifests_list_paths_labels_and_perhaps_splits(shop: Path, suffix: str) -> None:
    rows = [
        ("hat/0.png", "Hüte", "train"),
        ("shoe/1.jpg", "shoes", "train"),
        ("hat/2.png", "Hüte", "val"),
    ]
    path = shop / f"list.{suffix}"
    if suffix == "csv":
        path.write_text(
            "path,label,split\n" + "".join(",".join(row) + "\n" for row in rows), encoding="utf-8"
        )
    else:
        path.write_text(
            "".join(
                json.dumps(dict(zip(("path", "label", "split"), row, strict=True))) + "\n"
                for row in rows
            )
        )
    training, validation = find_sources(Recipe(data_dir=str(path)), labelled=True)
    assert training.class_names == ("Hüte", "shoes")
    assert training.targets.tolist() == [0, 1] and validation.targets.tolist() == [0]
    assert validation.pixels(0).unique().tolist() == [2]
    assert len(find_sources(Recipe(data_dir=str(path)), labelled=False)[0]) == 2


def test_splits_of_a_table_are_found_by_their_usual_words(shop: Path) -> None:
    path = shop / "list.csv"
    rows = [
        "hat/0.png,hat,Training",
        "shoe/1.jpg,shoe,Training",
        "hat/2.png,hat,dev",
        "hat/3.png,hat,Test",
    ]
    path.write_text("path,label,Split\n" + "\n".join(rows) + "\n")
    training, validation = find_sources(Recipe(data_dir=str(path)), labelled=True)
    assert relative(training, shop) == ["hat/0.png", "shoe/1.jpg"]
    assert relative(validation, shop) == ["hat/2.png"] and validation.targets.tolist() == [0]
    said = (
        "its column of splits says Training for training, dev for validation; not used: Test (1)."
    )
    assert training.notes[-1] == f"{path}: {said}"
    assert relative(validation_source(Recipe(data_dir=str(path)), ["hat", "shoe"]), shop) == [
        "hat/2.png"
    ]
    assert len(find_sources(Recipe(data_dir=str(path)), labelled=False)[0]) == 2
    path.write_text("path,label,Split\n" + "\n".join([*rows[:2], rows[3]]) + "\n")
    training, validation = find_sources(Recipe(data_dir=str(path)), labelled=True)
    assert validation is None and "lists no images for validation" in training.notes[-1]
    with pytest.raises(
        DataError,
        match=r"lists no images for validation. .* are Training \(2\), Test \(1\). Set val_split",
    ):
        validation_source(Recipe(data_dir=str(path)), ["hat", "shoe"])
    with pytest.raises(DataError, match="val_split = nope: .* has no such split"):
        find_sources(Recipe(data_dir=str(path), val_split="nope"), labelled=True)


def test_folds_are_chosen_by_number(shop: Path) -> None:
    path = shop / "list.csv"
    path.write_text(
        "path,label,fold\nhat/0.png,hat,0\nhat/1.png,hat,1\nshoe/0.jpg,shoe,2\nshoe/1.jpg,shoe,3\n"
    )
    with pytest.raises(
        DataError, match=r"no images for training. .* are 0 \(1\), .* Set train_split"
    ):
        find_sources(Recipe(data_dir=str(path)), labelled=True)
    training, validation = find_sources(
        Recipe(data_dir=str(path), train_split="0, 2", val_split="1"), labelled=True
    )
    assert relative(training, shop) == ["hat/0.png", "shoe/0.jpg"] and relative(
        validation, shop
    ) == ["hat/1.png"]


def test_folds_that_are_not_there_are_named(shop: Path) -> None:
    path = shop / "list.csv"
    path.write_text("path,label,fold\nhat/0.png,hat,0\nshoe/0.jpg,shoe,1\nhat/1.png,hat,2\n")
    with pytest.raises(
        DataError, match=r"train_split = 0,1,22: the column of splits has no 22. It has 0 \(1\), 1"
    ):
        find_sources(Recipe(data_dir=str(path), train_split="0,1,22", val_split="2"), labelled=True)


def test_a_fold_is_for_one_use(shop: Path) -> None:
    path = shop / "list.csv"
    path.write_text("path,label,fold\nhat/0.png,hat,0\nshoe/0.jpg,shoe,0\nhat/1.png,hat,1\n")
    with pytest.raises(DataError, match="train_split and val_split both name 1"):
        find_sources(Recipe(data_dir=str(path), train_split="0,1", val_split="1"), labelled=True)


def test_a_flag_that_is_left_blank_is_false(shop: Path) -> None:
    path = shop / "list.csv"
    path.write_text(
        "path,is_test,label\nhat/0.png,1,hat\nhat/1.png,,hat\nshoe/0.jpg,0,shoe\nshoe/1.jpg,,shoe\n"
    )
    training, validation = find_sources(Recipe(data_dir=str(path)), labelled=True)
    assert (
        relative(training, shop) == ["hat/1.png", "shoe/0.jpg", "shoe/1.jpg"] and validation is None
    )
    assert "Set val_split to one of test (1)." in training.notes[-1]
    path.write_text("path,is_test,is_valid,label\nhat/0.png,1,0,hat\nshoe/0.jpg,0,1,shoe\n")
    with pytest.raises(DataError, match="Replace them by one column split"):
        find_sources(Recipe(data_dir=str(path)), labelled=True)


def test_a_name_that_no_file_can_have_is_one_line(shop: Path) -> None:
    path = shop / "list.jsonl"
    path.write_text('{"path": "hat/\\ud800.png", "label": "hat"}\n')
    with pytest.raises(DataError, match="1 of 1 images is not in"):
        find_sources(Recipe(data_dir=str(path)), labelled=True)


def test_the_knobs_of_tables_reach_them(shop: Path) -> None:
    path = shop / "list.csv"
    path.write_text("no,which,what\n1,0,a\n2,3,b\n")
    options = {
        "columns": "path=which,label=what",
        "images_dir": str(shop / "hat"),
        "image_suffix": ".png",
    }
    training, _ = find_sources(
        Recipe(data_dir=str(path), val_while_train=False, **options), labelled=True
    )
    assert relative(training, shop) == ["hat/0.png", "hat/3.png"] and training.class_names == (
        "a",
        "b",
    )
    (shop / "list.csv").unlink()
    notes = find_sources(Recipe(data_dir=str(shop), **options), labelled=True)[0].notes
    assert (
        f"No effect here: columns, images_dir, image_suffix ({shop} is a folder, not a table)."
        in notes
    )


def test_a_class_of_a_table_that_the_model_does_not_know_is_named(shop: Path) -> None:
    path = shop / "list.csv"
    path.write_text("path,label\nhat/0.png,hat\nshoe/1.jpg,boot\n")
    with pytest.raises(
        DataError, match=r"class 'boot' \(1 rows\) is not among the 2 trained ones \(hat, shoe\)\.$"
    ):
        validation_source(Recipe(data_dir=str(path)), ["hat", "shoe"], trained_on=False)
