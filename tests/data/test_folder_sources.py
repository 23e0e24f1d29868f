"""Folders of classes: what is found in them, and what is said about folders of other kinds."""

from pathlib import Path

import pytest
from maps import draw_maps
from runs import draw
from shapes import write_coco
from shop import relative

from convnextv2.data.folders import files, image_folder, unlabelled
from convnextv2.data.imagenet import imagenet_names, synsets
from convnextv2.data.sources import find_sources
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe


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
    told = "Cat and cat differ only in letter case, and are treated as 2 classes."
    assert told in training.notes and len(training.class_names) == 3
