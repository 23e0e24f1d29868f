from pathlib import Path

import numpy as np
import pytest

from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources, summary, validation_source
from convnextv2.data.splits import (
    asked_split,
    check_data_dir,
    find_splits,
    held_out,
    held_out_evenly,
    set_apart,
)
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def classes(*splits: str) -> list[str]:
    return [
        f"{split}/{name}/{i}.jpg" for split in splits for name in ("cat", "dog") for i in range(3)
    ]


def error(root: Path, labelled: bool = True, **knobs) -> str:
    with pytest.raises(DataError) as caught:
        find_sources(Recipe(data_dir=str(root), **knobs), labelled=labelled)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("training", "validation"),
    [
        ("train", "val"),
        ("Train", "Val"),
        ("TRAIN", "VALID"),
        ("training", "validation"),
        ("Training", "dev"),
        ("train", "valid"),
        ("training_set", "eval"),
    ],
)
def test_splits_are_found_by_their_usual_names(
    tmp_path: Path, training: str, validation: str
) -> None:
    root = touch(tmp_path, *classes(training, validation, "Testing"))
    source, held = find_sources(Recipe(data_dir=str(root)), labelled=True)
    assert source.class_names == held.class_names == ("cat", "dog")
    assert len(source) == len(held) == 6
    assert all(f"/{training}/" in name for name in source.names)
    assert all(f"/{validation}/" in name for name in held.names)
    assert source.notes[0] == (
        f"{root}: {training}/ is for training, {validation}/ for validation; not used: Testing/."
    )
    assert list(validation_source(Recipe(data_dir=str(root)), ["cat", "dog"]).names) == list(
        held.names
    )
    unlabelled, none = find_sources(Recipe(data_dir=str(root)), labelled=False)
    assert list(unlabelled.names) == list(source.names) and none is None
    assert summary(source, held) == (
        "6 images for training, 2 classes (cat, dog); 6 images for validation."
    )


def test_splits_that_an_archive_has_wrapped_are_found(tmp_path: Path) -> None:
    root = touch(
        tmp_path, *classes("archive/shoes/Training", "archive/shoes/Testing"), "__MACOSX/x/._1.jpg"
    )
    source, held = find_sources(Recipe(data_dir=str(root)), labelled=True)
    assert source.class_names == ("cat", "dog") and len(source) == 6 and held is None
    inner = root / "archive" / "shoes"
    assert source.notes[0] == (
        f"{inner} (inside {root}): Training/ is for training; not used: Testing/."
    )
    assert "so nothing is validated. Use --val_split Testing" in source.notes[-1]
    with_test = find_sources(Recipe(data_dir=str(root), val_split="Testing"), labelled=True)[1]
    assert len(with_test) == 6 and "/Testing/" in with_test.names[0]


def test_the_exact_names_win_and_two_others_are_asked_about(tmp_path: Path) -> None:
    root = touch(tmp_path, *classes("train", "Training", "valid", "dev"))
    assert f"{root}: has dev/ and valid/. Set val_split" in error(root)
    source, held = find_sources(Recipe(data_dir=str(root), val_split="dev"), labelled=True)
    assert "/train/" in source.names[0] and "/dev/" in held.names[0]
    (root / "train").rename(root / "TRAIN")
    assert f"{root}: has TRAIN/ and Training/. Set train_split" in error(root)


@pytest.mark.parametrize(
    "names", [["val"], ["valid", "test"], ["Testing"], ["dev", "eval"], ["test", "Testing"]]
)
@pytest.mark.parametrize("labelled", [True, False])
def test_splits_without_one_for_training_never_become_classes(
    tmp_path: Path, names, labelled
) -> None:
    root = touch(tmp_path, *classes(*names))
    message = error(root, labelled)
    assert "Set train_split" in message or "Set val_split" in message
    assert all(f"{name}/" in message for name in names)


def test_a_test_folder_beside_classes_is_left_alone(tmp_path: Path) -> None:
    root = touch(tmp_path, "cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg", "test/0.jpg")
    source, held = find_sources(Recipe(data_dir=str(root)), labelled=True)
    assert source.class_names == ("cat", "dog") and len(source) + len(held) == 4
    assert source.notes[0] == (
        f"{root}: test/ is treated as a test split and not used. If it is a class, use "
        "--train_split . instead."
    )
    assert len(find_sources(Recipe(data_dir=str(root)), labelled=False)[0]) == 4
    everything = Recipe(data_dir=str(root), train_split=".", val_while_train=False)
    assert find_sources(everything, labelled=True)[0].class_names == ("cat", "dog", "test")
    assert len(find_sources(everything, labelled=False)[0]) == 5


def test_splits_inside_of_the_classes_are_an_error(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        *(f"{name}/{split}/0.jpg" for name in ("cat", "dog") for split in ("train", "test")),
    )
    message = error(root)
    assert "the splits lie inside the classes (cat/test, cat/train)" in message
    assert "column split" in message


def test_one_class_is_an_error_that_finds_the_real_ones(tmp_path: Path) -> None:
    root = touch(tmp_path, *classes("shoes-dataset"))
    assert error(root) == (
        f"{root}: has one class only (shoes-dataset), so there is nothing to classify. "
        f"Did you mean data_dir = {root / 'shoes-dataset'}?"
    )
    single = touch(tmp_path / "single", "train/cat/0.jpg", "val/cat/0.jpg")
    assert "has one class only (cat)" in error(single) and "num_classes" in error(single)
    source, _ = find_sources(Recipe(data_dir=str(single), num_classes=2), labelled=True)
    assert source.class_names == ("cat",)
    assert len(find_sources(Recipe(data_dir=str(single)), labelled=False)[0]) == 1


def test_classes_of_one_image_each_are_not_validated(tmp_path: Path) -> None:
    root = touch(tmp_path, "cat/0.jpg", "dog/0.jpg")
    source, held = find_sources(Recipe(data_dir=str(root)), labelled=True)
    assert len(source) == 2 and held is None
    assert (
        source.notes[-1] == "No class has two images, so none is held out and nothing is validated."
    )


def test_validation_of_other_data_finds_valid_and_asks_about_test(tmp_path: Path) -> None:
    root = touch(tmp_path, *classes("train", "test"))
    with pytest.raises(
        DataError, match=r"has test/, train/, but no val/ to validate on. Set val_split"
    ):
        validation_source(Recipe(data_dir=str(root)), ["cat", "dog"], trained_on=False)
    (root / "test").rename(root / "Valid")
    assert len(validation_source(Recipe(data_dir=str(root)), ["cat", "dog"], trained_on=False)) == 6


def test_held_out_images_are_a_share_of_each_class() -> None:
    targets = np.repeat([0, 1, 2, 4], [20, 10, 2, 1])
    np.random.default_rng(0).shuffle(targets)
    chosen = held_out(targets, 5, 0.2, seed=3)
    assert np.bincount(targets[chosen], minlength=5).tolist() == [4, 2, 1, 0, 0]
    assert (np.diff(chosen) > 0).all()
    assert (held_out(targets, 5, 0.2, seed=3) == chosen).all() and (
        held_out(targets, 5, 0.2, seed=4) != chosen
    ).any()


def test_a_named_split_that_is_not_there_gives_none(tmp_path: Path) -> None:
    root = touch(tmp_path, *classes("train", "val"))
    assert find_splits(root, "trian", None).training is None
    assert find_splits(root, None, "nope").validation is None


def test_a_split_inside_of_the_training_split_is_no_class(tmp_path: Path) -> None:
    root = touch(tmp_path, *classes("train", "train/val"))
    for labelled in (True, False):
        assert f"{root}/train: holds val/, which looks like a split" in error(root, labelled)
    deeper = touch(tmp_path / "deeper", "cat/train/0.jpg", "cat/test/1.jpg", "dog/train/0.jpg")
    assert "the splits lie inside the classes (cat/test, cat/train)" in error(
        deeper, labelled=False
    )
    only = touch(tmp_path / "only", "cat/0.jpg", "cat/Test/1.jpg", "dog/0.jpg")
    assert "the splits lie inside the classes (cat/Test)" in error(only)
    few = touch(tmp_path / "few", "cat/0.jpg", "cat/1.jpg", "dog/train/0.jpg", "dog/test/1.jpg")
    assert "the splits lie inside the classes (dog/test, dog/train)" in error(few)


def test_classes_below_a_split_are_to_be_moved_up(tmp_path: Path) -> None:
    root = touch(tmp_path, *classes("train/images", "val/images"))
    assert f"The classes lie in {root}/train/images. Move them up, to {root}/train/CLASS." in error(
        root
    )


def test_a_class_that_is_called_like_a_split_is_possible(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{name}/{i}.jpg" for name in ("bus", "train") for i in range(2)))
    assert "If train/ is a class itself, use --train_split . instead." in error(root)
    assert find_sources(Recipe(data_dir=str(root), train_split="."), labelled=True)[
        0
    ].class_names == ("bus", "train")


def test_images_beside_a_folder_with_splits_are_not_lost(tmp_path: Path) -> None:
    root = touch(tmp_path, "0.jpg", "1.jpg", "extra/train/2.jpg")
    assert len(find_sources(Recipe(data_dir=str(root)), labelled=False)[0]) == 3


def test_validation_that_is_the_training_split_is_said(tmp_path: Path) -> None:
    root = touch(tmp_path, *classes("train"))
    (root / "val").symlink_to("train")
    source, _ = find_sources(Recipe(data_dir=str(root)), labelled=True)
    assert "val: is the same folder as" in source.notes[1]


def test_a_named_validation_split_beside_the_classes_is_no_class(tmp_path: Path) -> None:
    root = touch(
        tmp_path, *(f"{name}/{i}.jpg" for name in ("cat", "dog", "val/cat") for i in range(2))
    )
    source, held = find_sources(
        Recipe(data_dir=str(root), train_split=".", val_split="val"), labelled=True
    )
    assert source.class_names == ("cat", "dog") and len(source) == 4 and len(held) == 2


@pytest.mark.parametrize("name", [" ", "a\nb", "\x1b[31mred", "\u202egnp"])
def test_classes_without_a_printable_name_are_refused(tmp_path: Path, name: str) -> None:
    root = touch(tmp_path, f"{name}/0.jpg", "dog/0.jpg")
    assert "the name of this class is blank or unprintable" in error(root)


def test_the_classes_are_found_however_deep_they_lie(tmp_path: Path) -> None:
    root = touch(tmp_path / "a", *classes("a/b/c/d/e"))
    assert f"Did you mean data_dir = {root}/a/b/c/d/e?" in error(root)
    root = touch(tmp_path / "b", *classes("Training/animals"))
    assert f"Move them up, to {root}/Training/CLASS." in error(root)


def test_several_labels_are_held_out_evenly() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((400, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.01]).astype(np.int8)
    targets[0, 0] = -1
    chosen = held_out_evenly(targets, 0.1, seed=3)
    assert chosen.tolist() == sorted(set(chosen.tolist())) and 36 <= len(chosen) <= 44
    counts, held = (targets == 1).sum(axis=0), (targets[chosen] == 1).sum(axis=0)
    assert (abs(held - 0.1 * counts) <= 2).all() and (held[counts > 1] >= 1).all()
    assert held_out_evenly(targets, 0.1, seed=3).tolist() == chosen.tolist()
    assert held_out_evenly(targets, 0.1, seed=4).tolist() != chosen.tolist()


def test_a_label_of_one_image_stays_in_training() -> None:
    targets = np.eye(4, 2, dtype=np.int8)  # two classes of one image each, two images without any
    assert set(held_out_evenly(targets, 0.5, seed=0).tolist()) <= {2, 3}


def test_a_split_is_asked_for_if_it_is_set_or_differs_from_the_default() -> None:
    assert asked_split(Recipe(), "val_split") is None
    assert asked_split(Recipe(val_split="val"), "val_split") == "val"
    assert asked_split(Recipe(val_split="test"), "val_split") == "test"
    changed = Recipe().model_copy(update={"train_split": "fold"})
    assert asked_split(changed, "train_split") == "fold"


def test_data_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="^data_dir is missing. Give a folder.$"):
        check_data_dir("", "a folder")
    with pytest.raises(DataError, match=f"no such folder \\({tmp_path} is the nearest"):
        check_data_dir(str(tmp_path / "a" / "b"), "a folder")
    assert check_data_dir(str(tmp_path), "a folder") == tmp_path


def test_images_that_are_set_apart_leave_the_others_in_order() -> None:
    targets = np.arange(5)
    source = Source([f"{i}.jpg" for i in range(5)], targets, notes=("found",))
    training, validation = set_apart(source, np.array([3, 0]))
    assert list(training.names) == ["1.jpg", "2.jpg", "4.jpg"]
    assert training.targets.tolist() == [1, 2, 4] and training.notes == ("found",)
    assert list(validation.names) == ["3.jpg", "0.jpg"] and validation.targets.tolist() == [3, 0]
    assert validation.notes == ()
