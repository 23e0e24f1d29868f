"""The images that an audit looks at, with their splits and labels."""

from pathlib import Path

import pytest
from image_tables import place
from maps import draw_maps

from convnextv2.auditing.images import Images
from convnextv2.auditing.reading import find_images
from convnextv2.recipe.knobs import Recipe


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    place([f"{name}/{i}.jpg" for name in ("cat", "dog") for i in range(3)])
    return tmp_path


def listed(rows: str, **knobs: str) -> Images:
    Path("list.csv").write_text(rows)
    return find_images(Recipe(data_dir="list.csv", **knobs), "classification")


def labels(images: Images, split: str) -> list[str]:
    return [images.label_of(i) for i, each in enumerate(images.splits) if each == split]


def test_what_lies_beside_a_validation_split_is_for_training(here: Path) -> None:
    place(["val/cat/7.jpg", "val/dog/7.jpg"])
    images = find_images(Recipe(data_dir="."), "auto")
    assert images.class_names == ("cat", "dog")
    assert labels(images, "train") == ["cat"] * 3 + ["dog"] * 3
    assert labels(images, "val") == ["cat", "dog"]
    place(["alone/val/cat/7.jpg"])
    images = find_images(Recipe(data_dir="alone"), "auto")
    assert images.split_names == ["val"] and images.class_names == ("cat",)


def test_a_split_without_labels_leaves_those_of_others(here: Path) -> None:
    images = listed(
        "path,label,split\ncat/0.jpg,cat,train\ndog/0.jpg,dog,train\ncat/1.jpg,,test\n"
        "cat/2.jpg,cat,\n"
    )
    assert labels(images, "train") == ["cat", "dog"] and labels(images, "test") == [""]
    assert labels(images, "") == ["cat"]
    assert images.targets is not None and images.targets.tolist() == [0, 1, -1, 0]
    assert images.notes[0] == (
        "test: list.csv: 1 row has no label, in line 4. Every image needs one class here. Its "
        "images are audited without labels."
    )
    images = listed("path,label\ncat/0.jpg,cat\ndog/0.jpg,\n")
    assert images.targets is None and "audited without labels" in images.notes[0]


def test_one_image_with_two_labels_in_two_splits_is_read(here: Path) -> None:
    images = listed(
        "path,label,split\ncat/0.jpg,cat,train\ndog/0.jpg,dog,train\ncat/0.jpg,dog,val\n"
    )
    assert labels(images, "train") == ["cat", "dog"] and labels(images, "val") == ["dog"]


@pytest.mark.parametrize("label", ["cat|dog", "\a"], ids=["as a whole", "split by split"])
def test_several_labels_in_one_split_may_be_in_all(here: Path, label: str) -> None:
    images = listed(
        "path,label,split\ncat/0.jpg,cat|dog,train\ncat/1.jpg,cat,train\ndog/0.jpg,dog,train\n"
        f"dog/1.jpg,dog,val\ndog/2.jpg,cat,val\ncat/2.jpg,{label},other\n"
    )
    assert images.is_multi_label and images.class_names == ("cat", "dog")
    assert labels(images, "train") == ["cat|dog", "cat", "dog"]
    assert labels(images, "val") == ["dog", "cat"]
    assert labels(images, "other") == ["cat|dog" if label == "cat|dog" else ""]


def test_splits_of_label_maps_have_usual_names(tmp_path: Path) -> None:
    root = draw_maps(tmp_path / "maps")
    for folder in root.iterdir():
        if folder.is_dir():
            (folder / "train").rename(folder / "mine")
            (folder / "val").rename(folder / "other")
    recipe = Recipe(data_dir=str(root), train_split="mine", val_split="other")
    assert find_images(recipe, "segmentation").split_names == ["train", "val"]
