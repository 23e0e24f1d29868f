import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapes import coco_json, draw_shapes, write_coco, write_yolo

from convnextv2.data.dense.coco import read_coco
from convnextv2.data.dense.defects import Defect, Defects
from convnextv2.data.dense.object_sources import (
    find_object_sources,
    object_summary,
    validation_objects,
    with_classes,
)
from convnextv2.data.dense.objects import objects_of
from convnextv2.data.dense.raw import RawAnnotations, RawImage, RawObject
from convnextv2.data.dense.scan import scan_objects
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe

SQUARE = (np.array([[4.0, 4.0], [20.0, 4.0], [20.0, 20.0], [4.0, 20.0]]),)


def raw(*images: RawImage, total: int | None = None) -> RawAnnotations:
    count = sum(len(image.objects) for image in images) if total is None else total
    return RawAnnotations(list(images), ("disc", "square"), count, "here", Defects())


def picture(folder: Path, name: str = "a.png", orientation: int = 1) -> str:
    draw_shapes(folder / name, 0)
    if orientation != 1:
        image = Image.open(folder / name)
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(folder / name, exif=exif)
    return str(folder / name)


def test_boxes_without_area_and_outside_are_left_out_and_others_are_cut(tmp_path: Path) -> None:
    boxes = [(1, 2, 3, 4), (5, 5, 5, 9), (90, 0, 99, 9), (70, 50, 99, 99), (float("nan"), 0, 1, 1)]
    annotations = raw(RawImage(picture(tmp_path), (60, 80), [RawObject(box, 0) for box in boxes]))
    source = scan_objects(annotations, "train")
    assert objects_of(source)[0].boxes.tolist() == [[1, 2, 3, 4], [70, 50, 80, 60]]
    assert annotations.defects.counts == {
        Defect.NO_AREA: 1, Defect.OUTSIDE: 1, Defect.BEYOND: 1, Defect.NOT_FINITE: 1
    }  # fmt: skip
    assert "train: 1 box without area: left out (a.png)." in source.notes


def test_shares_become_pixels(tmp_path: Path) -> None:
    one = RawObject((0.25, 0.5, 0.5, 1.0), 1, region=(np.array([[0.25, 0.5], [0.5, 1], [0.3, 1]]),))
    source = scan_objects(raw(RawImage(picture(tmp_path), None, [one], is_relative=True)), "x")
    found = objects_of(source)[0]
    assert found.boxes.tolist() == [[20, 30, 40, 60]]
    assert np.allclose(found.regions[0][0], [[20, 30], [40, 60], [24, 60]])
    assert objects_of(source).has_masks


def test_images_without_objects_are_kept_and_counted(tmp_path: Path) -> None:
    images = [RawImage(picture(tmp_path, f"{i}.png"), (60, 80)) for i in range(2)]
    images[0].objects = [RawObject((1, 2, 3, 4), 0)]
    source = scan_objects(raw(*images), "train")
    assert len(source) == 2 and len(objects_of(source)[1]) == 0
    assert any("1 image has no objects" in line for line in source.notes)


def test_objects_of_a_picture_that_exif_turns_are_turned_with_it(tmp_path: Path) -> None:
    turned = picture(tmp_path, "turned.png", 6)  # stored 60 x 80, upright 80 x 60
    upright = picture(tmp_path, "upright.png", 6)
    images = [
        RawImage(turned, (60, 80), [RawObject((10, 5, 30, 15), 0)]),
        RawImage(upright, (80, 60), [RawObject((10, 5, 30, 15), 0)]),
    ]
    source = scan_objects(raw(*images), "x")
    found = [objects_of(source)[i] for i in range(2)]
    assert [each.size for each in found] == [(80, 60), (80, 60)]
    assert found[0].boxes.tolist() == [[45, 10, 55, 30]]
    assert found[1].boxes.tolist() == [[10, 5, 30, 15]]
    assert source.pixels(0).shape == (3, 80, 60)


def test_an_image_of_another_size_is_left_out(tmp_path: Path) -> None:
    images = [RawImage(picture(tmp_path, f"{i}.png"), (60, 80)) for i in range(2)]
    images[0].objects = [RawObject((1, 2, 3, 4), 0)]
    images[1].size = (30, 40)
    source = scan_objects(raw(*images), "x")
    assert len(source) == 1
    assert any("1.png is 80 x 60, stated 40 x 30" in line for line in source.notes)


def test_a_set_of_which_nothing_can_be_used_is_refused(tmp_path: Path) -> None:
    image = RawImage(picture(tmp_path), (60, 80), [RawObject((5, 5, 5, 9), 0)])
    with pytest.raises(DataError, match="none of its 1 annotations can be used.*without area"):
        scan_objects(raw(image), "x")
    image = RawImage(picture(tmp_path), (61, 80), [RawObject((5, 5, 8, 9), 0)])
    with pytest.raises(DataError, match="none of its 1 images can be used"):
        scan_objects(raw(image), "x")


def test_a_few_objects_without_masks_get_their_boxes(tmp_path: Path) -> None:
    box = (4.0, 4.0, 20.0, 20.0)
    objects = [RawObject(box, 0, region=SQUARE)] * 10 + [RawObject(box, 0)]
    source = scan_objects(raw(RawImage(picture(tmp_path), (60, 80), objects)), "x")
    table = objects_of(source)
    assert table.has_masks and np.array_equal(table[0].regions[10][0], SQUARE[0])
    assert any("1 object without a mask" in line for line in source.notes)
    objects = [RawObject(box, 0, region=SQUARE)] * 2 + [RawObject(box, 0)]
    source = scan_objects(raw(RawImage(picture(tmp_path), (60, 80), objects)), "x")
    assert not objects_of(source).has_masks
    assert "x: 1 of 3 objects have no mask, so only boxes are learned and measured." in source.notes


def test_copies_of_an_object_are_kept_and_counted(tmp_path: Path) -> None:
    content = coco_json([draw_shapes(tmp_path / f"{i}.png", i) for i in range(2)])
    first = content["annotations"][0]
    x, y, width, height = first["bbox"]
    rle = {"size": [60, 80], "counts": [100, 200, 4500]}
    content["annotations"] += [
        {**first, "id": 90},
        {**first, "id": 91, "area": 5},
        {**first, "id": 92, "image_id": 2},
        {**first, "id": 93, "category_id": {3: 7, 7: 3}[first["category_id"]]},
        {**first, "id": 94, "bbox": [x, y, width, height + 1]},
        {**first, "id": 95, "segmentation": [first["segmentation"][0][:-2]]},
        {**first, "id": 96, "segmentation": rle},
        {**first, "id": 97, "segmentation": rle},
    ]
    (tmp_path / "a.json").write_text(json.dumps(content))
    annotations = read_coco(tmp_path / "a.json", [tmp_path])
    source = scan_objects(annotations, "train")
    assert len(objects_of(source).labels) == len(content["annotations"])
    assert annotations.defects.counts == {Defect.COPY: 3}
    assert source.notes == (
        "train: 3 objects that are copies of others: kept, so each of them counts (0.png).",
    )


def test_areas_are_stated_or_follow_from_the_region(tmp_path: Path) -> None:
    box = (4.0, 4.0, 20.0, 21.0)
    objects = [RawObject(box, 0, area=5.0), RawObject(box, 0), RawObject(box, 0, region=SQUARE)]
    source = scan_objects(raw(RawImage(picture(tmp_path), (60, 80), objects)), "x")
    assert objects_of(source)[0].areas.tolist() == [5.0, 16 * 17, 16 * 16]


def test_a_damaged_image_stays_for_bad_images_to_decide(tmp_path: Path) -> None:
    good = RawImage(picture(tmp_path), (60, 80), [RawObject((1, 2, 3, 4), 0)])
    (tmp_path / "bad.png").write_bytes(b"nothing")
    bad = RawImage(str(tmp_path / "bad.png"), (60, 80), [RawObject((1, 2, 3, 4), 0)])
    assert len(scan_objects(raw(good, bad), "x")) == 2


def test_sources_of_a_recipe(tmp_path: Path) -> None:
    write_coco(tmp_path)
    training, validation = find_object_sources(Recipe(data_dir=str(tmp_path)))
    assert validation is not None
    assert (len(training), len(validation)) == (6, 3)
    assert training.class_names == validation.class_names == ("disc", "square")
    assert training.notes[0] == f"{tmp_path}: COCO JSON (train, val)."
    assert "of 2 classes (disc, square)" in object_summary(training, validation)
    few, _ = find_object_sources(Recipe(data_dir=str(tmp_path), num_samples=2))
    assert len(few) == 2 and len(objects_of(few)) == 2


def test_images_are_held_out_if_there_is_no_split_for_validation(tmp_path: Path) -> None:
    write_coco(tmp_path, train=20)
    (tmp_path / "instances_val.json").unlink()
    recipe = Recipe(data_dir=str(tmp_path), val_fraction=0.2)
    training, validation = find_object_sources(recipe)
    assert validation is not None and len(validation) == 4 and len(training) == 16
    assert not set(training.names) & set(validation.names)
    again = validation_objects(recipe, training.class_names)
    assert list(again.names) == list(validation.names)
    other = validation_objects(recipe, training.class_names, trained_on=False)
    assert len(other) == 20
    whole = recipe.model_copy(update={"val_while_train": False})
    with pytest.raises(DataError, match=r"was trained on as a whole .* Give other images"):
        validation_objects(whole, training.class_names)


def test_a_single_split_of_another_name_is_for_training(tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / "instances_val.json").unlink()
    (tmp_path / "instances_train.json").rename(tmp_path / "instances_default.json")
    recipe = Recipe(data_dir=str(tmp_path))
    training, validation = find_object_sources(recipe)
    assert f"{tmp_path}: default is its only split, so it is for training." in training.notes
    assert validation is not None
    again = validation_objects(recipe, training.class_names)
    assert list(again.names) == list(validation.names)
    with pytest.raises(DataError, match="train_split = part: .* has no such split"):
        find_object_sources(Recipe(data_dir=str(tmp_path), train_split="part"))


def test_classes_are_matched_by_name_not_by_id(tmp_path: Path) -> None:
    write_coco(tmp_path)
    path = tmp_path / "instances_val.json"
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 3, "name": "square"}, {"id": 7, "name": "disc"}]
    path.write_text(json.dumps(content))
    _, validation = find_object_sources(Recipe(data_dir=str(tmp_path)))
    assert validation is not None
    numbers = [{3: 1, 7: 0}[each["category_id"]] for each in content["annotations"]]
    assert objects_of(validation).labels.tolist() == numbers
    with pytest.raises(DataError, match="objects of disc, which is not among the model's classes"):
        with_classes(validation, ["square"], "here")


def test_classes_that_are_absent_are_named(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    names = "names: [disc, square, star]\n"
    (tmp_path / "data.yaml").write_text(f"train: images/train\nval: images/val\n{names}")
    training, _ = find_object_sources(Recipe(data_dir=str(tmp_path)))
    assert "No training image has star, which cannot be learned." in training.notes
    assert "No validation image has star, which is left out of all metrics." in training.notes


def test_a_split_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write_coco(tmp_path)
    with pytest.raises(DataError, match="train_split = fold1.*the splits train, val"):
        find_object_sources(Recipe(data_dir=str(tmp_path), train_split="fold1"))
    with pytest.raises(DataError, match="val_split = fold1.*val_while_train = False"):
        find_object_sources(Recipe(data_dir=str(tmp_path), val_split="fold1"))
    with pytest.raises(DataError, match="no such folder"):
        find_object_sources(Recipe(data_dir=str(tmp_path / "lost")))


def test_only_crowds_teach_nothing(tmp_path: Path) -> None:
    drawn = [draw_shapes(tmp_path / f"{i}.png", i) for i in range(3)]
    content = coco_json(drawn)
    for each in content["annotations"]:
        each["iscrowd"] = 1
    (tmp_path / "instances_train.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="no object that can be trained on"):
        find_object_sources(Recipe(data_dir=str(tmp_path), val_while_train=False))


def test_boxes_in_shares_are_not_taken_for_pixels(tmp_path: Path) -> None:
    shares = [RawObject((0.1, 0.2, 0.5, 0.9), 0), RawObject((0, 0, 1, 1), 1)]
    with pytest.raises(DataError, match="seem to be fractions of the width and height"):
        scan_objects(raw(RawImage(picture(tmp_path), (60, 80), shares)), "train")
    one = [*shares, RawObject((0.5, 0.5, 1.5, 1.5), 0)]
    assert len(objects_of(scan_objects(raw(RawImage(picture(tmp_path), None, one)), "x"))[0].boxes)


def test_a_split_for_both_is_measured_as_it_is_trained_on_and_said(tmp_path: Path) -> None:
    write_coco(tmp_path)
    recipe = Recipe(data_dir=str(tmp_path), val_split="train")
    training, validation = find_object_sources(recipe)
    assert validation is not None
    assert list(training.names) == list(validation.names)
    assert list(validation_objects(recipe, training.class_names).names) == list(validation.names)
    assert any("says nothing about new images" in note for note in training.notes)


@pytest.mark.parametrize("far", [1e9, -1e300, float("nan"), float("inf")])
@pytest.mark.parametrize("is_relative", [False, True])
def test_outlines_that_would_take_for_ever_are_left_out(
    tmp_path: Path, far: float, is_relative: bool
) -> None:
    scale = np.array((1, 1) if is_relative else (80, 60))
    outline = np.array([[0.1, 0.1], [far, 0.1], [0.5, 0.5]]) * scale
    near = np.array([[0.1, 0.1], [9.0, 0.1], [0.5, 0.5]]) * scale  # outside, and yet quickly drawn
    box = tuple((np.array([[0.1, 0.1], [0.5, 0.5]]) * scale).ravel().tolist())
    one, other = (RawObject(box, 0, region=region) for region in ((outline, near), (outline,)))
    image = RawImage(picture(tmp_path), None, [one, other, *[one] * 9], is_relative=is_relative)
    annotations = raw(image)
    found = objects_of(scan_objects(annotations, "train"))[0]
    assert np.allclose(found.regions[0], [[[8, 6], [720, 6], [40, 30]]])
    assert np.ptp(found.regions[1][0], axis=0).tolist() == pytest.approx([32, 24])
    assert annotations.defects.counts == {
        Defect.COPY: 9, Defect.FAR_OUTLINE: 11, Defect.NO_MASK: 1
    }  # fmt: skip
