import os
from pathlib import Path

import pytest

from convnextv2.data.dense.map_folders import find_folders, pair
from convnextv2.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    "folders",
    [
        ("images/training", "annotations/training", "images/validation", "annotations/validation"),
        ("Images/train", "Masks/train", "Images/val", "Masks/val"),
        ("train/images", "train/masks", "valid/images", "valid/masks"),
        ("train", "train_labels", "val", "val_labels"),
        ("train", "trainannot", "val", "valannot"),
    ],
)
def test_layouts_are_understood(tmp_path: Path, folders: tuple[str, ...]) -> None:
    touch(tmp_path, *(f"{folder}/a.png" for folder in folders))
    found = find_folders(tmp_path)
    expected = [tmp_path / folder for folder in folders]
    assert [found["train"].images, found["train"].maps] == expected[:2]
    assert [found["validation"].images, found["validation"].maps] == expected[2:]


def test_data_without_splits_are_for_training(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/a.jpg", "SegmentationClass/a.png")
    found = find_folders(tmp_path)
    assert found.keys() == {"train"} and found["train"].maps.name == "SegmentationClass"


def test_an_export_of_supervisely_is_understood(tmp_path: Path) -> None:
    touch(tmp_path, "img/a.jpg", "ann/a.jpg.json", "masks_human/a.jpg", "masks_machine/a.jpg.png")
    made = pair(find_folders(tmp_path)["train"])
    assert [Path(path).relative_to(tmp_path) for path in (*made.images, *made.maps)] == [
        Path("img/a.jpg"), Path("masks_machine/a.jpg.png")
    ]  # fmt: skip


def test_named_splits_are_taken(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{kind}/fold{i}/a.png" for kind in ("images", "masks") for i in range(3)))
    found = find_folders(tmp_path, "fold0", "fold2")
    assert found["train"].images.name == "fold0" and found["validation"].maps.name == "fold2"


def test_the_lists_of_pascal_voc_are_splits(tmp_path: Path) -> None:
    images = [f"JPEGImages/{name}.jpg" for name in ("a b", "c", "d", "box")]
    touch(tmp_path, *images, *(f"SegmentationClass/{name}.png" for name in ("a b", "c", "d")))
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, names in {"train": "a b\nc\n", "val": "d\nlost\n", "trainval": "a b\n"}.items():
        (lists / f"{split}.txt").write_text(names)
    found = find_folders(tmp_path)
    training, validation = pair(found["train"]), pair(found["validation"])
    assert [Path(path).name for path in training.maps] == ["a b.png", "c.png"]
    assert [Path(path).name for path in validation.images] == ["d.jpg"]
    assert not training.missing and training.notes == (f"{lists}/train.txt: 2 images.",)
    assert validation.notes == (f"{lists}/val.txt: 2 images, of which 1 not there (such as lost).",)
    asked = find_folders(tmp_path, "trainval", "none")
    assert asked.keys() == {"train"} and len(pair(asked["train"]).images) == 1
    (lists / "train.txt").write_text("lost\n")
    with pytest.raises(DataError, match="train.txt: none of its 1 image is there, such as lost"):
        pair(find_folders(tmp_path)["train"])


def test_what_is_missing_or_unclear_is_said(tmp_path: Path) -> None:
    touch(tmp_path / "a", "cats/1.jpg", "dogs/1.jpg")
    with pytest.raises(DataError, match=r"has cats/, dogs/\. Expected images/train"):
        find_folders(tmp_path / "a")
    touch(tmp_path / "b", "images/train/1.jpg", "images/val/1.jpg", "masks/train/1.png")
    with pytest.raises(DataError, match="masks: has no folder for the split"):
        find_folders(tmp_path / "b")
    touch(tmp_path / "c", "images/1.jpg", "masks/1.png", "labels/1.png")
    with pytest.raises(DataError, match="which of"):
        find_folders(tmp_path / "c")


def test_pairs_have_the_same_names_and_the_rest_is_told(tmp_path: Path) -> None:
    touch(
        tmp_path, "images/a.jpg", "images/b.PNG", "images/deep/c.jpg", "images/lost.jpg",
        "masks/A.png", "masks/b.bmp", "masks/deep/c.png", "masks/spare.png",
    )  # fmt: skip
    made = pair(find_folders(tmp_path)["train"])
    assert [Path(path).name for path in made.images] == ["a.jpg", "b.PNG", "c.jpg"]
    assert [Path(path).name for path in made.maps] == ["A.png", "b.bmp", "c.png"]
    assert [Path(path).name for path in made.missing] == ["lost.jpg"] and made.spare == 1
    assert any("1 label map without an image" in note for note in made.notes)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("x1.jpg", "x1_mask.png"),
        ("aachen_000_leftImg8bit.png", "aachen_000_gtFine_labelIds.png"),
        ("aachen_000_leftImg8bit.png", "aachen_000_gtFine_labelTrainIds.png"),
        ("0001TP.png", "0001TP_L.png"),
    ],
)
def test_usual_ends_of_names_are_known_and_told(tmp_path: Path, image: str, mask: str) -> None:
    touch(tmp_path, f"images/{image}", f"masks/{mask}")
    made = pair(find_folders(tmp_path)["train"])
    assert Path(made.maps[0]).name == mask
    assert any("names end in" in note for note in made.notes)


def test_maps_may_be_called_like_the_whole_file_of_their_image(tmp_path: Path) -> None:
    images = ("images/a.jpg", "images/a.PNG", "images/deep/b.jpeg", "images/c.jpg")
    maps = ("masks/a.jpg.png", "masks/a.PNG.png", "masks/deep/B.jpeg.png", "masks/d.jpg.png")
    touch(tmp_path, *images, *maps)
    made = pair(find_folders(tmp_path)["train"])
    assert [path.removeprefix(f"{tmp_path}/") for path in made.images] == sorted(images[:3])
    assert [path.removeprefix(f"{tmp_path}/") for path in made.maps] == sorted(maps[:3])
    assert [Path(path).name for path in made.missing] == ["c.jpg"] and made.spare == 1
    assert made.notes == (
        "Label maps are those called like the whole file of an image, such as a.jpg.png.",
        f"{tmp_path / 'masks'}: 1 label map without an image.",
    )


def test_of_two_ways_to_read_names_the_one_that_matches_more_images_counts(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{name}.jpg" for name in "abc"), "masks/a.jpg.png")
    touch(tmp_path, "masks/b.png", "masks/c.png")
    made = pair(find_folders(tmp_path)["train"])
    assert [Path(path).name for path in made.maps] == ["b.png", "c.png"]


def test_names_that_never_match_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "masks/1.png")
    with pytest.raises(
        DataError, match=r"no label map has the name of an image \(1.png, and a.jpg"
    ):
        pair(find_folders(tmp_path)["train"])


def test_of_two_maps_of_a_name_the_one_that_is_not_jpeg_counts(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "masks/a.jpg", "masks/a.png")
    made = pair(find_folders(tmp_path)["train"])
    assert Path(made.maps[0]).name == "a.png"


def test_a_map_that_another_one_of_its_name_replaces_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "masks/a.png", "masks/a.tif", "masks/b.png", "masks/b.tif")
    made = pair(find_folders(tmp_path)["train"])
    assert [Path(path).name for path in made.maps] == ["a.tif"] and made.spare == 2
    assert made.notes == (
        f"{tmp_path / 'masks'}: skipped 1 label map with the name of another one (a.png, "
        "because a.tif is used).",
        f"{tmp_path / 'masks'}: 2 label maps without an image.",
    )


def test_what_is_passed_over_among_the_maps_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.jpg", "masks/a.png", "masks/b.npy")
    (tmp_path / "masks/b.png").symlink_to("gone.png")
    notes = " ".join(pair(find_folders(tmp_path)["train"]).notes)
    assert f"{tmp_path / 'masks'}: skipped 1 file that is not read as images (.npy 1)." in notes
    assert f"skipped 1 link to nothing ({tmp_path / 'masks/b.png'})" in notes


def test_folders_of_other_files_do_not_count_as_maps(tmp_path: Path) -> None:
    """Pascal VOC has such a folder: its Annotations are XML."""
    touch(tmp_path, "JPEGImages/a.jpg", "SegmentationClass/a.png", "Annotations/a.xml")
    assert find_folders(tmp_path)["train"].maps.name == "SegmentationClass"


def test_letter_case_decides_where_several_names_fit(tmp_path: Path) -> None:
    touch(tmp_path, "images/A.jpg", "images/a.jpg", "masks/A.png", "masks/a.png")
    made = pair(find_folders(tmp_path)["train"])
    assert [Path(path).name for path in made.maps] == ["A.png", "a.png"]
    assert made.spare == 0 and made.notes == ()


def test_images_that_share_a_label_map_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/a.png", "images/B.jpg", "masks/a.png", "masks/b.png")
    made = pair(find_folders(tmp_path)["train"])
    assert [Path(path).name for path in made.maps] == ["b.png", "a.png", "a.png"]
    assert made.notes == (
        f"{tmp_path / 'images'}: 1 image with the label map of another image, because their names "
        "differ only in ending or case.",
    )


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.jpg", "a_mask.png"),
        ("a.PNG", "a-mask.PNG"),
        ("a.b.jpeg", "A.b_SEG.tif"),
        ("7_sat.jpg", "7_mask.png"),
        ("a.bmp", "a_labelIds.png"),
    ],
)
def test_maps_beside_their_images_are_told_apart(tmp_path: Path, image: str, mask: str) -> None:
    touch(tmp_path, *(f"{split}/{name}" for split in ("train", "val") for name in (image, mask)))
    for kind, folders in find_folders(tmp_path).items():
        assert folders.images == folders.maps == tmp_path / kind[:5].replace("valid", "val")
        made = pair(folders)
        assert [Path(path).name for path in (*made.images, *made.maps)] == [image, mask]
        [line] = made.notes
        assert line.startswith("Label maps are the files beside the images whose names end in ")
    assert pair(find_folders(tmp_path / "train")["train"]).notes == (line,)


def test_maps_beside_their_images_in_folders_below_are_found(tmp_path: Path) -> None:
    names = ("benign/b (1).png", "benign/b (2).png", "p/7/7_1.tif")
    maps = ("benign/b (1)_mask.png", "benign/b (2)_mask.png", "p/7/7_1_mask.tif")
    touch(tmp_path, *names, *maps, "data.csv", ".hidden/b_mask.png")
    made = pair(find_folders(tmp_path)["train"])
    assert tuple(os.path.relpath(path, tmp_path) for path in made.images) == names
    assert tuple(os.path.relpath(path, tmp_path) for path in made.maps) == maps
    assert not made.missing and not made.spare


def test_a_map_in_another_folder_than_its_image_is_not_beside_it(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.jpg", "dog/a_mask.png")
    with pytest.raises(DataError, match="Expected images/train"):
        find_folders(tmp_path)


def test_images_without_a_map_beside_them_are_missing(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/a_mask.png", "images/b.jpg", "images/notes.txt")
    made = pair(find_folders(tmp_path)["train"])
    assert [Path(path).name for path in (*made.images, *made.missing)] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    "names",
    [
        ("face_mask.png",),
        ("face_mask.png", "face.txt", "a.png", "b.png"),
        ("gas_mask.png", "face_mask.png"),
        ("face.png", "face_mask.png", "a.png", "b.png"),
        ("face.png", "face_mask.png", "gas_mask.png", "a.png"),
        ("house.jpg", "house_l.jpg", "tree.png", "tree_L.png"),
    ],
)
def test_photographs_of_masks_are_not_taken_for_label_maps(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DataError, match="Expected images/train"):
        find_folders(tmp_path)


def test_maps_beside_their_images_must_be_beyond_doubt(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a_mask.png", "b.jpg", "b_mask.png", "face_mask.png")
    with pytest.raises(DataError, match=r"1 file end in _mask .* no image .*\(face_mask.png\)"):
        find_folders(tmp_path)
    (tmp_path / "face_mask.png").rename(tmp_path / "a_seg.png")
    with pytest.raises(DataError, match="whose names end in _mask or _seg. Move the others"):
        find_folders(tmp_path)
