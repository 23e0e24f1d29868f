import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from maps import CLASSES, draw_beside, draw_maps, scene, write_pair
from PIL import Image

from convnextv2.data.dense.label_maps import IGNORED
from convnextv2.data.dense.map_sources import find_map_sources, map_validation_source
from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe

CPU = Place(torch.device("cpu"))


def recipe(root: Path, **settings: object) -> Recipe:
    return Recipe(task="segmentation", data_dir=str(root), **settings)


def test_images_and_maps_are_found_with_their_classes(tmp_path: Path) -> None:
    root = draw_maps(tmp_path)
    training, validation = find_map_sources(recipe(root), CPU)
    assert validation is not None and (len(training), len(validation)) == (8, 3)
    assert training.class_names == validation.class_names == CLASSES
    for i, name in enumerate(training.names):
        seed = int(Path(name).stem)
        _, labels = scene(seed, (60 + 2 * (seed % 3), 80 + 3 * (seed % 2)))
        assert training.annotation(i).tolist() == labels.tolist()
        assert training.pixels(i).shape[1:] == labels.shape


def test_an_export_of_roboflow_with_masks_beside_the_images(tmp_path: Path) -> None:
    root = draw_beside(tmp_path)
    training, validation = find_map_sources(recipe(root), CPU)
    assert validation is not None and (len(training), len(validation)) == (4, 2)
    assert training.class_names == validation.class_names == CLASSES
    assert training.notes[:2] == (
        f"{root / 'train' / '_classes.csv'}: 3 classes.",
        "Label maps are the files beside the images whose names end in _mask.",
    )
    for source in (training, validation):
        for i, name in enumerate(source.names):
            _, labels = scene(int(Path(name).stem.rpartition(".")[2]))
            assert source.annotation(i).tolist() == labels.tolist()
    again = map_validation_source(recipe(root), CLASSES, CPU, trained_on=True)
    assert list(again.names) == list(validation.names)


def test_in_an_export_of_roboflow_files_without_a_partner_are_reported(tmp_path: Path) -> None:
    root = draw_beside(tmp_path)
    (root / "train" / "0_jpg.rf.0.jpg").unlink()
    for i in (1, 2, 3):
        (root / "train" / f"{i}_jpg.rf.{i}_mask.png").rename(root / "train" / f"{i}_mask.png")
    Image.fromarray(scene(9)[0]).save(root / "train" / "1.jpg")
    with pytest.raises(DataError, match="3 images without a label map: .*1_jpg.rf.1.jpg"):
        find_map_sources(recipe(root), CPU)
    training, _ = find_map_sources(recipe(root, bad_images="skip"), CPU)
    assert [Path(name).name for name in training.names] == ["1.jpg"]
    assert f"{root / 'train'}: 3 label maps without an image." in training.notes


def test_what_holds_for_both_splits_is_said_once(tmp_path: Path) -> None:
    root = draw_maps(tmp_path)
    for path in list(root.glob("annotations/*/*.png")):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    training, validation = find_map_sources(recipe(root), CPU)
    assert validation is not None
    said = [note for note in (*training.notes, *validation.notes) if "end in _mask" in note]
    assert len(said) == 1


def test_a_source_can_be_sent_to_workers_and_cut(tmp_path: Path) -> None:
    training, _ = find_map_sources(recipe(draw_maps(tmp_path)), CPU)
    part = pickle.loads(pickle.dumps(training)).subset([5, 2])
    assert [part.names[0], part.names[1]] == [training.names[5], training.names[2]]
    assert torch.equal(part.annotation(1), training.annotation(2))


def test_every_kind_of_defect_is_listed_once_and_can_be_left_out(tmp_path: Path) -> None:
    root = draw_maps(tmp_path)
    pixels, labels = scene(5)
    write_pair(root, "train", "smaller", pixels, labels[:-4])
    write_pair(root, "train", "cut", pixels, labels)
    (root / "annotations/train/cut.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    write_pair(root, "train", "bad", pixels, labels)
    (root / "images/train/bad.jpg").write_bytes(b"no image")
    Image.fromarray(pixels).save(root / "images/train/alone.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    write_pair(root, "train", "turned", pixels, labels)
    Image.fromarray(pixels).save(root / "images/train/turned.jpg", exif=exif)

    with pytest.raises(DataError) as error:
        find_map_sources(recipe(root), CPU)
    message = str(error.value)
    assert message.startswith("5 of 13 images with label maps cannot be used:\n")
    for part in (
        "1 image without a label map: ", "alone.jpg",
        "1 label map of another size than their image: ",
        "smaller.jpg (80 x 60 px, its map 80 x 56 px)",
        "1 label map that cannot be used: ", "cut.png",
        "1 image that cannot be read: ", "bad.jpg",
        "1 image that EXIF rotates, with maps that are not rotated", "turned.jpg",
        "bad_images = skip",
    ):  # fmt: skip
        assert part in message, part

    training, _ = find_map_sources(recipe(root, bad_images="skip"), CPU)
    assert len(training) == 8
    assert sum(note.startswith("Left out: ") for note in training.notes) == 5


def test_a_turned_image_whose_map_is_turned_is_used_and_told(tmp_path: Path) -> None:
    root = draw_maps(tmp_path)
    pixels, labels = scene(5)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    write_pair(root, "train", "turned", pixels, np.rot90(labels, -1).copy())
    Image.fromarray(pixels).save(root / "images/train/turned.jpg", exif=exif)
    training, _ = find_map_sources(recipe(root), CPU)
    assert any("EXIF rotates 1 image; the maps match" in note for note in training.notes)
    index = next(i for i, name in enumerate(training.names) if Path(name).stem == "turned")
    assert training.pixels(index).shape[1:] == training.annotation(index).shape == (80, 60)


@pytest.mark.parametrize(("orientation", "side"), [(3, 60), (2, 60), (6, 80)])
def test_where_no_size_tells_whether_a_map_is_turned_a_line_says_so(
    tmp_path: Path, orientation: int, side: int
) -> None:
    root = draw_maps(tmp_path)
    pixels, labels = scene(5, (side, 80))
    write_pair(root, "train", "turned", pixels, labels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(root / "images/train/turned.jpg", exif=exif)
    notes = find_map_sources(recipe(root), CPU)[0].notes
    [line] = [note for note in notes if "EXIF" in note]
    assert line.startswith("EXIF turns 1 image, and no size says whether the maps are turned")
    assert "turned.jpg" in line


def test_values_that_are_no_class_are_refused_with_a_file(tmp_path: Path) -> None:
    root = draw_maps(tmp_path)
    pixels, labels = scene(5)
    labels[0, :7] = 9
    write_pair(root, "val", "odd", pixels, labels)
    with pytest.raises(DataError, match=r"the value 9 in 1 map, such as .*val/odd.png"):
        find_map_sources(recipe(root), CPU)
    _, validation = find_map_sources(recipe(root, ignore_values=(9,)), CPU)
    assert validation is not None
    index = next(i for i, name in enumerate(validation.names) if Path(name).stem == "odd")
    assert (validation.annotation(index)[0, :7] == -1).all()


def test_255_is_ignored_and_its_share_is_told(tmp_path: Path) -> None:
    root = draw_maps(tmp_path, train=1)
    pixels, labels = scene(0)
    labels[:30] = 255
    write_pair(root, "train", "0", pixels, labels)
    training, _ = find_map_sources(recipe(root), CPU)
    assert "50.0% of the pixels of the training maps are ignored." in training.notes
    assert (training.annotation(0)[:30] == -1).all()


def test_zero_is_reduced_only_if_asked_for(tmp_path: Path) -> None:
    """ADE20K needs this: its table begins at 1."""
    root = draw_maps(tmp_path)
    (root / "classes.csv").write_text("Idx,Name\n1,red\n2,blue\n")
    with pytest.raises(DataError, match="reduce_zero_label = True"):
        find_map_sources(recipe(root), CPU)
    training, _ = find_map_sources(recipe(root, reduce_zero_label=True), CPU)
    assert training.class_names == ("red", "blue")
    _, labels = scene(0)
    assert training.annotation(0).tolist() == (labels.astype(int) - 1).tolist()

    (root / "classes.csv").unlink()
    (root / "classes.txt").write_text("red\nblue\n")  # without ids, the first is 1 then
    again, _ = find_map_sources(recipe(root, reduce_zero_label=True), CPU)
    assert torch.equal(again.annotation(0), training.annotation(0))


def test_without_a_table_the_values_are_the_classes(tmp_path: Path) -> None:
    root = draw_maps(tmp_path, table=False)
    training, _ = find_map_sources(recipe(root), CPU)
    assert training.class_names == ("0", "1", "2")
    assert any("no class table" in note for note in training.notes)


def test_maps_of_0_and_255_are_two_classes(tmp_path: Path) -> None:
    root = draw_maps(tmp_path, table=False)
    for path in root.glob("annotations/*/*.png"):
        values = np.asarray(Image.open(path))
        Image.fromarray((values > 0).astype(np.uint8) * 255).save(path)
    training, _ = find_map_sources(recipe(root), CPU)
    assert training.class_names == ("background", "foreground")
    assert any("255 is foreground" in note for note in training.notes)
    assert training.annotation(0).tolist() == (scene(0)[1] > 0).astype(int).tolist()
    with pytest.raises(DataError, match="0|only"):
        find_map_sources(recipe(root, ignore_values=(0, 255)), CPU)


def test_coloured_maps_are_read_by_their_table(tmp_path: Path) -> None:
    root = draw_maps(tmp_path, table=False)
    colours = np.array([[0, 0, 0], [128, 0, 0], [0, 64, 128]], np.uint8)
    for path in root.glob("annotations/*/*.png"):
        Image.fromarray(colours[np.asarray(Image.open(path))]).save(path)
    with pytest.raises(DataError, match="class table with colours"):
        find_map_sources(recipe(root), CPU)
    (root / "labelmap.txt").write_text("background:0,0,0::\nred:128,0,0::\nblue:0,64,128::\n")
    training, _ = find_map_sources(recipe(root), CPU)
    assert training.class_names == CLASSES
    assert training.annotation(3).tolist() == scene(3, (60, 83))[1].tolist()


@pytest.mark.parametrize("settings", [{"ignore_values": (0,)}, {"reduce_zero_label": True}])
@pytest.mark.parametrize(
    "table",
    [
        "background:0,0,0::\nred:128,0,0::\nblue:0,64,128::\n",
        "0 background\n1 red\n2 blue\n255 border\n",
    ],
)
def test_a_class_whose_value_is_to_be_ignored_is_none(tmp_path: Path, table, settings) -> None:
    root = draw_maps(tmp_path, table=False)
    (root / "labelmap.txt").write_text(table)
    if "::" in table:
        colours = np.array([[0, 0, 0], [128, 0, 0], [0, 64, 128]], np.uint8)
        for path in root.glob("annotations/*/*.png"):
            Image.fromarray(colours[np.asarray(Image.open(path))]).save(path)
    training, _ = find_map_sources(recipe(root, **settings), CPU)
    assert training.class_names[:2] == ("red", "blue")
    assert "Not a class: background (its value is ignored)." in training.notes
    expected = np.array([IGNORED, 0, 1])[scene(3, (60, 83))[1]]
    assert training.annotation(3).tolist() == expected.tolist()


def test_classes_that_do_not_occur_are_told(tmp_path: Path) -> None:
    root = draw_maps(tmp_path)
    (root / "classes.csv").write_text("id,name\n0,background\n1,red\n2,blue\n3,green\n")
    training, _ = find_map_sources(recipe(root), CPU)
    lines = [note for note in training.notes if "green" in note]
    assert len(lines) == 2 and "cannot be learned" in lines[0] and "IoU of 0" in lines[1]


def test_images_are_held_out_if_there_is_no_split(tmp_path: Path) -> None:
    root = draw_maps(tmp_path)
    for kind in ("images", "annotations"):
        for path in (root / kind).glob("*/*"):
            path.rename(root / kind / f"{path.parent.name}{path.name}")
        for split in ("train", "val"):
            (root / kind / split).rmdir()
    settings = recipe(root, val_fraction=0.2)
    training, validation = find_map_sources(settings, CPU)
    assert validation is not None and (len(training), len(validation)) == (9, 2)
    assert not set(training.names) & set(validation.names)
    again = map_validation_source(settings, CLASSES, CPU, trained_on=True)
    assert list(again.names) == list(validation.names)
    assert len(map_validation_source(settings, CLASSES, CPU, trained_on=False)) == 11
    whole = settings.model_copy(update={"val_while_train": False})
    with pytest.raises(DataError, match="was trained on as a whole"):
        map_validation_source(whole, CLASSES, CPU, trained_on=True)


@pytest.mark.parametrize("knob", ["train_split", "val_split"])
@pytest.mark.parametrize("splits", [1, 2])
def test_a_split_that_is_asked_for_in_vain_is_named(tmp_path: Path, knob, splits) -> None:
    root = draw_maps(tmp_path)
    if splits == 1:
        shutil.rmtree(root / "images" / "val")
        shutil.rmtree(root / "annotations" / "val")
    with pytest.raises(DataError, match=f"{knob} = part: .* has no such (split|folder)"):
        find_map_sources(recipe(root, **{knob: "part"}), CPU)
    without = recipe(root, val_split="part", val_while_train=False)
    assert find_map_sources(without, CPU)[1] is None


def test_other_data_are_matched_with_the_rows_of_a_model_by_name(tmp_path: Path) -> None:
    root = draw_maps(tmp_path)
    rows = ("blue", "sky", "background", "red")
    source = map_validation_source(recipe(root), rows, CPU, trained_on=False)
    expected = np.array([2, 3, 0])[scene(1000)[1]]
    assert source.annotation(0).tolist() == expected.tolist()
    with pytest.raises(DataError, match="class 'blue' is not among those of the model"):
        map_validation_source(recipe(root), ("background", "red"), CPU, trained_on=False)


@pytest.mark.parametrize(("split", "what"), [("train", "training"), ("val", "validation")])
def test_maps_that_are_ignored_as_a_whole_are_refused(
    split: str, what: str, tmp_path: Path
) -> None:
    root = draw_maps(tmp_path)
    for path in (root / "annotations" / split).iterdir():
        Image.fromarray(np.full_like(np.asarray(Image.open(path)), 255)).save(path)
    with pytest.raises(DataError, match=f"every pixel of the {what} maps is ignored"):
        find_map_sources(recipe(root), CPU)
    if split == "val":
        assert len(find_map_sources(recipe(root, val_while_train=False), CPU)[0]) == 8


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "the file is empty"), (b"no", "it has no supported format")]
)
def test_a_map_that_is_no_image_is_said_to_be_none(content, says: str, tmp_path: Path) -> None:
    root = draw_maps(tmp_path)
    (root / "annotations" / "train" / "0.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"cannot be read as a label map \({says}\)"):
        find_map_sources(recipe(root), CPU)
