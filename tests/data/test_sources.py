import gzip
import json
import os
import struct
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from maps import draw_maps
from PIL import Image
from runs import draw
from shapes import write_coco

from convnextv2.data import named_sets
from convnextv2.data.folders import files, image_folder, unlabelled
from convnextv2.data.imagenet import imagenet_names, synsets
from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources, validation_source
from convnextv2.errors import DataError
from convnextv2.recipe.files import dump_recipe
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.read import read_recipe


def picture(path: Path, grey: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (grey, grey, grey)).save(path)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Ten hats and five shoes, one of them nested; a hidden file, a text file."""
    for i in range(10):
        picture(tmp_path / "hat" / f"{i}.png", i)
    for i in range(4):
        picture(tmp_path / "shoe" / f"{i}.jpg", 100 + i)
    picture(tmp_path / "shoe" / "left" / "4.PNG", 104)
    picture(tmp_path / "shoe" / ".hidden.png")
    (tmp_path / "shoe" / "notes.txt").write_text("no image")
    return tmp_path


def relative(source: Source, root: Path) -> list[str]:
    return [str(Path(name).relative_to(root)) for name in source.names]


def test_classes_are_the_sorted_folders_with_images_nested(shop: Path) -> None:
    source = image_folder(shop)
    assert source.class_names == ("hat", "shoe")
    assert source.targets.tolist() == [0] * 10 + [1] * 5
    assert "shoe/left/4.PNG" in relative(source, shop)
    assert source.pixels(3).unique().tolist() == [3] and source.pixels(3, 1).shape == (1, 4, 4)


def test_links_to_folders_are_followed(
    shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    linked = tmp_path_factory.mktemp("linked")
    (linked / "hat").symlink_to(shop / "hat")
    assert len(image_folder(linked)) == 10


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
    picture(tmp_path / "train" / "a" / "0.png")
    with pytest.raises(DataError, match="no val/ to validate on"):
        validation_source(Recipe(data_dir=str(tmp_path)), ["a"])


def test_train_and_val_folders_are_used_where_they_exist(tmp_path: Path) -> None:
    for name in ("train/a/0.png", "train/b/1.png", "val/b/2.png"):
        picture(tmp_path / name)
    training, validation = find_sources(Recipe(data_dir=str(tmp_path)), labelled=True)
    assert relative(training, tmp_path) == ["train/a/0.png", "train/b/1.png"]
    assert validation.targets.tolist() == [1]
    assert "no images of 1 of the 2 classes (a)" in validation.notes[0]


def test_splits_that_are_missing_are_errors_and_never_classes(
    shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("split")
    for name in ("train/a/0.png", "train/b/1.png", "val/b/2.png"):
        picture(root / name)

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


def test_the_splits_of_a_manifest_go_by_the_names_that_are_set(shop: Path) -> None:
    path = shop / "list.csv"
    path.write_text("path,label,split\nhat/0.png,hat,a\nshoe/0.jpg,shoe,a\nhat/1.png,hat,b\n")
    training, validation = find_sources(
        Recipe(data_dir=str(path), train_split="a", val_split="b"), labelled=True
    )
    assert len(training) == 2 and len(validation) == 1 and validation.names[0] not in training.names
    with pytest.raises(DataError, match="lists no images for training"):
        find_sources(Recipe(data_dir=str(path), train_split="trian"), labelled=True)


def test_pretraining_sees_every_image_but_those_for_validation(
    shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source, none = find_sources(Recipe(data_dir=str(shop)), labelled=False)
    assert len(source) == 15 and source.targets is None and none is None
    split = tmp_path_factory.mktemp("split")
    for name in ("train/a/b/0.png", "train/1.png", "val/a/2.png"):
        picture(split / name)
    assert relative(find_sources(Recipe(data_dir=str(split)), labelled=False)[0], split) == [
        "train/1.png",
        "train/a/b/0.png",
    ]


def test_num_samples_is_a_fixed_choice(shop: Path) -> None:
    recipe = Recipe(data_dir=str(shop), num_samples=5)
    first, second = (find_sources(recipe, labelled=True)[0] for _ in range(2))
    assert len(first) == 5 and list(first.names) == list(second.names)


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


def test_a_fold_is_for_one_use(shop: Path) -> None:
    path = shop / "list.csv"
    path.write_text("path,label,fold\nhat/0.png,hat,0\nshoe/0.jpg,shoe,0\nhat/1.png,hat,1\n")
    with pytest.raises(DataError, match="train_split and val_split both name 1"):
        find_sources(Recipe(data_dir=str(path), train_split="0,1", val_split="1"), labelled=True)


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


def test_folders_that_cannot_be_used_are_named_with_the_remedy(
    shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    empty = tmp_path_factory.mktemp("empty")

    def message(make) -> str:
        with pytest.raises(DataError) as error:
            make()
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no such folder" in message(
        lambda: find_sources(Recipe(data_dir=str(shop / "nope")), labelled=True)
    )
    assert "data_dir is missing" in message(lambda: find_sources(Recipe(), labelled=True))
    assert "no folders of images" in message(lambda: image_folder(empty))
    assert "no folder for each class" in message(lambda: image_folder(shop / "hat"))
    (shop / "scarf").mkdir()
    assert "scarf: holds no image" in message(lambda: image_folder(shop))
    assert "class 'hat' is not among" in message(lambda: image_folder(shop, ["shoe", "scarf"]))
    assert "holds no image" in message(lambda: unlabelled(empty))
    assert "no such file" in message(lambda: files([shop / "nope.jpg"]))


def test_files_takes_files_and_folders(shop: Path) -> None:
    assert relative(files([shop / "hat" / "3.png", shop / "shoe"]), shop) == [
        "hat/3.png",
        *(f"shoe/{i}.jpg" for i in range(4)),
        "shoe/left/4.PNG",
    ]


def test_bundled_images_are_balanced_and_need_no_disk_of_yours() -> None:
    training, validation = find_sources(Recipe(dataset="bundled"), labelled=True)
    assert (len(training), len(validation)) == (4000, 1000)
    assert (
        np.bincount(training.targets).tolist() == [400] * 10
        and np.bincount(validation.targets).tolist() == [100] * 10
    )
    assert training.class_names[9] == "Ankle boot" and training.pixels(0, 1).shape == (1, 28, 28)
    assert training.pixels(5).unique().tolist() == training.pixels(5, 1).unique().tolist()


def test_debians_fashion_mnist_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)
    for prefix in ("train", "t10k"):
        for kind, array in (
            ("images-idx3", pixels),
            ("labels-idx1", np.array([0, 9, 4], dtype=np.uint8)),
        ):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (tmp_path / f"{prefix}-{kind}-ubyte.gz").write_bytes(
                gzip.compress(header + array.tobytes())
            )
    monkeypatch.setattr(named_sets, "DEBIAN_FASHION_MNIST", tmp_path)
    training, _ = find_sources(Recipe(dataset="fashion_mnist"), labelled=True)
    assert training.targets.tolist() == [0, 9, 4]
    assert (training.pixels(1, 1)[0].numpy() == pixels[1]).all()


def test_a_named_set_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dataset_download"):
        find_sources(Recipe(dataset="cifar10", data_dir=str(tmp_path)), labelled=True)


def test_imagenet_folders_are_shown_by_name(tmp_path: Path) -> None:
    ids = synsets()
    for wnid in ids:
        (tmp_path / wnid).mkdir()
        (tmp_path / wnid / "0.JPEG").write_bytes(b"")
    source = image_folder(tmp_path)
    assert source.class_names[0] == "tench" and source.class_names[207] == "golden retriever"
    assert len(set(source.class_names)) == 1000
    assert image_folder(tmp_path, source.class_names).targets.tolist() == list(range(1000))
    assert imagenet_names(ids[:10]) is None
    # A thousand other ids, such as a part of ImageNet-21K, are not classes of ImageNet-1K.
    assert imagenet_names([*ids[:999], "n00000001"]) is None


def test_folds_that_are_not_there_are_named(shop: Path) -> None:
    path = shop / "list.csv"
    path.write_text("path,label,fold\nhat/0.png,hat,0\nshoe/0.jpg,shoe,1\nhat/1.png,hat,2\n")
    with pytest.raises(
        DataError, match=r"train_split = 0,1,22: the column of splits has no 22. It has 0 \(1\), 1"
    ):
        find_sources(Recipe(data_dir=str(path), train_split="0,1,22", val_split="2"), labelled=True)


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
    with pytest.raises(DataError, match="Write one column split in their place"):
        find_sources(Recipe(data_dir=str(path)), labelled=True)


def test_a_model_of_imagenet_is_measured_on_a_part_of_its_classes(tmp_path: Path) -> None:
    for wnid in ("n01440764", "n02102040"):
        picture(tmp_path / wnid / "0.png")
    names = list(imagenet_names(synsets()).values())
    source = validation_source(Recipe(data_dir=str(tmp_path)), names, trained_on=False)
    assert source.targets.tolist() == [0, 217] and len(source.class_names) == 1000


@pytest.mark.parametrize("length", [0, 3, 10, 1_000])
def test_a_named_set_whose_file_was_cut_says_so(length: int, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        images = struct.pack(">HBBIII", 0, 8, 3, 5, 28, 28) + bytes(5 * 28 * 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 5) + bytes(5))
    recipe = Recipe(dataset="mnist", data_dir=str(tmp_path), in_channels=1)
    assert len(named_sets.load_named(recipe)[0].pixels) == 5
    (raw / "t10k-images-idx3-ubyte").write_bytes(images[:length])
    with pytest.raises(DataError, match=r"dataset = mnist: a file of it in .* is damaged"):
        named_sets.load_named(recipe)


@pytest.mark.parametrize("length", [0, 3, 100])
def test_a_set_of_the_system_whose_file_was_cut_says_so(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named_sets, "DEBIAN_FASHION_MNIST", tmp_path)
    whole = gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 5, 28, 28) + os.urandom(5 * 28 * 28))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(whole[:length])
    with pytest.raises(DataError, match="dataset = fashion_mnist: a file in .* cannot be read"):
        named_sets.load_named(Recipe(dataset="fashion_mnist"))


def test_without_a_home_a_named_set_asks_for_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("no home")))
    with pytest.raises(DataError, match="no home folder. Set data_dir"):
        named_sets.load_named(Recipe(dataset="cifar10"))


def test_a_folder_without_classes_is_told_how_it_can_be_used(tmp_path: Path) -> None:
    write_coco(tmp_path / "objects")
    draw_maps(tmp_path / "maps")
    draw(tmp_path / "table" / "0.png", 0, 0)
    (tmp_path / "table" / "my labels.csv").write_text("path,label\n0.png,cat\n")
    draw(tmp_path / "nothing" / "0.png", 0, 0)
    for name, told in (
        ("objects", "It looks like data for --task detection."),
        ("maps", "It looks like data for --task segmentation."),
        ("table", f"There is a table in it: try --data_dir '{tmp_path}/table/my labels.csv'."),
        ("nothing", "or a table of images."),
    ):
        with pytest.raises(DataError) as error:
            find_sources(Recipe(data_dir=str(tmp_path / name)), labelled=True)
        assert str(error.value).endswith(told)


def test_classes_that_differ_only_in_letter_case_are_told(tmp_path: Path) -> None:
    for name in ("Cat", "cat", "dog"):
        for i in range(2):
            draw(tmp_path / name / f"{i}.png", 0, i)
    training, _ = find_sources(Recipe(data_dir=str(tmp_path)), labelled=True)
    told = "Cat and cat differ only in letter case, and are taken for 2 classes."
    assert told in training.notes and len(training.class_names) == 3
