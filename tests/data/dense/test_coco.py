import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference
from shapes import coco_json, draw_shapes

from convnextv2.data.dense import rle
from convnextv2.data.dense.coco import read_coco
from convnextv2.data.dense.defects import Defect
from convnextv2.data.dense.raw import RawAnnotations
from convnextv2.errors import DataError


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    return coco_json([draw_shapes(tmp_path / f"{i}.png", i) for i in range(2)])


def read(folder: Path, content: dict[str, Any], *folders: Path) -> RawAnnotations:
    path = folder / "instances_train.json"
    path.write_text(json.dumps(content))
    return read_coco(path, folders or [folder])


def test_classes_are_numbered_whatever_gaps_their_ids_have(tmp_path: Path, content: dict) -> None:
    found = read(tmp_path, content)
    assert found.class_names == ("disc", "square")
    labels = [each.label for image in found.images for each in image.objects]
    assert labels == [{3: 0, 7: 1}[each["category_id"]] for each in content["annotations"]]
    box = content["annotations"][0]["bbox"]
    assert found.images[0].objects[0].box == (box[0], box[1], box[0] + box[2], box[1] + box[3])


def test_ids_may_be_text_on_one_side(tmp_path: Path, content: dict) -> None:
    for each in content["annotations"]:
        each["image_id"] = str(each["image_id"])
    found = read(tmp_path, content)
    assert sum(len(image.objects) for image in found.images) == len(content["annotations"])


@pytest.mark.parametrize("kind", [float, lambda number: f"{number}.0"])
def test_ids_may_be_floats_on_one_side(tmp_path: Path, content: dict, kind) -> None:
    for each in content["annotations"]:
        each["image_id"], each["category_id"] = kind(each["image_id"]), kind(each["category_id"])
    found = read(tmp_path, content)
    assert sum(len(image.objects) for image in found.images) == len(content["annotations"])


@pytest.mark.parametrize("name", ["a\0b/c.png", "a\0.png", "x" * 300])
def test_a_name_that_no_file_can_have_is_not_there(tmp_path: Path, content: dict, name) -> None:
    content["images"][0]["file_name"] = name
    found = read(tmp_path, content)
    assert len(found.images) == 1
    assert found.defects.counts[Defect.MISSING_FILE] == 1


def test_an_id_that_two_images_have_is_refused(tmp_path: Path, content: dict) -> None:
    content["images"].append(dict(content["images"][0]))  # the same image twice does no harm
    assert len(read(tmp_path, content).images) == 2
    content["images"][1]["id"] = content["images"][0]["id"]
    with pytest.raises(DataError, match=r"two images have the id 1, 0\.png and 1\.png, so it is"):
        read(tmp_path, content)


@pytest.mark.parametrize("images", [["a.png"], [{"id": 1}], [{"id": 1, "file_name": None}], [7]])
def test_records_without_a_file_name_are_refused(tmp_path: Path, content: dict, images) -> None:
    with pytest.raises(DataError, match="none of its 1 images has an id and a file_name, such as"):
        read(tmp_path, content | {"images": images})


def test_a_crowd_is_one_in_numbers_and_in_words(tmp_path: Path, content: dict) -> None:
    values = ("0", "1", 0, 1, None, False, True, "yes")
    first = content["annotations"][0]
    content["annotations"] = [{**first, "id": i, "iscrowd": v} for i, v in enumerate(values)]
    found = read(tmp_path, content)
    crowds = [each.crowd for image in found.images for each in image.objects]
    assert crowds == [False, True, False, True, False, False, True]
    assert found.defects.counts == {Defect.MALFORMED: 1}


def test_a_class_without_a_name_is_refused(tmp_path: Path, content: dict) -> None:
    content["categories"][0]["name"] = None
    with pytest.raises(DataError, match="a category has no id or no name"):
        read(tmp_path, content)


def test_all_three_forms_of_regions(tmp_path: Path, content: dict) -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[5:20, 30:50] = 1
    packed = reference.encode(np.asfortranarray(mask))
    runs = [0]
    for value in mask.T.reshape(-1).tolist():
        if value == len(runs) % 2:
            runs.append(0)
        runs[-1] += 1
    common = {"image_id": 1, "category_id": 3, "area": 300, "bbox": [30, 5, 20, 15]}
    code = {"size": [60, 80], "counts": packed["counts"].decode()}
    content["annotations"] = [
        {**common, "id": 1, "segmentation": code},
        {**common, "id": 2, "segmentation": {"size": [60, 80], "counts": runs}, "iscrowd": 1},
        {**common, "id": 3, "segmentation": [[30, 5, 50, 5, 50, 20, 30, 20]]},
        {**common, "id": 4, "segmentation": []},
    ]
    first, second, third, fourth = read(tmp_path, content).images[0].objects
    assert isinstance(first.region, rle.Rle) and first.region == second.region
    assert (rle.decode(first.region) == mask).all()
    assert (first.crowd, second.crowd) == (False, True)
    assert isinstance(third.region, tuple)
    assert (rle.decode(rle.from_polygons(third.region, (60, 80))) == mask).all()
    assert fourth.region is None


@pytest.mark.parametrize("area", [0, -1, None, "0.0", float("inf"), float("nan")])
def test_an_area_that_cannot_be_counts_as_not_stated(tmp_path: Path, content: dict, area) -> None:
    for each in content["annotations"]:
        each["area"] = area
    found = read(tmp_path, content)
    assert all(each.area is None for image in found.images for each in image.objects)


def test_a_missing_box_follows_from_the_region(tmp_path: Path, content: dict) -> None:
    outline = [[30, 5, 50, 5, 50, 20, 30, 20]]
    content["annotations"] = [{"id": 1, "image_id": 1, "category_id": 7, "segmentation": outline}]
    [only] = read(tmp_path, content).images[0].objects
    assert only.box == (30, 5, 50, 20) and only.area is None


def test_the_empty_parent_category_of_roboflow_is_no_class(tmp_path: Path, content: dict) -> None:
    content["categories"] = [
        {"id": 0, "name": "shapes", "supercategory": "none"},
        {"id": 3, "name": "disc", "supercategory": "shapes"},
        {"id": 7, "name": "square", "supercategory": "shapes"},
    ]
    found = read(tmp_path, content)
    assert found.class_names == ("disc", "square")
    assert "'shapes' (id 0)" in found.notes[0]
    content["annotations"][0]["category_id"] = 0  # then it is a class like others
    assert read(tmp_path, content).class_names == ("shapes", "disc", "square")


@pytest.mark.parametrize("name", ["images/train/a.png", "train\\a.png", "C:\\data\\images\\a.png"])
def test_names_of_files_may_have_folders(tmp_path: Path, content: dict, name: str) -> None:
    folder = tmp_path / "images" / "train"
    draw_shapes(folder / "a.png", 0)
    content["images"] = [{"id": 1, "file_name": name, "height": 60, "width": 80}]
    found = read(tmp_path, content, tmp_path / "images" / "train", tmp_path / "images")
    assert [Path(image.path) for image in found.images] == [folder / "a.png"]


def test_every_defect_is_counted(tmp_path: Path, content: dict) -> None:
    one = content["annotations"][0]
    content["images"] += [
        {"id": 50, "file_name": "lost.png", "height": 60, "width": 80},
        {"file_name": "no id"},
    ]
    content["annotations"] += [
        {**one, "id": 90, "image_id": 50},
        {**one, "id": 91, "image_id": 777},
        {**one, "id": 92, "category_id": 99},
        {**one, "id": 93, "bbox": ["a", 0, 1, 1]},
        {**one, "id": 94, "segmentation": [[1, 2, 3, 4]]},
        {**one, "id": 95, "segmentation": {"size": [60, 80], "counts": "abc"}},
        {**one, "id": 96, "segmentation": {"size": [6, 8], "counts": [48]}},
        {**one, "id": 97, "segmentation": {"size": [60, 80], "counts": [3]}},
        "nonsense",
    ]
    counts = read(tmp_path, content).defects.counts
    assert counts == {
        Defect.MISSING_FILE: 1,
        Defect.MALFORMED: 3,
        Defect.MISSING_IMAGE: 1,
        Defect.UNKNOWN_CLASS: 1,
        Defect.SHORT_OUTLINE: 1,
        Defect.WRONG_MASK: 3,
    }


def test_annotations_that_fit_nothing_are_refused_in_one_line(
    tmp_path: Path, content: dict
) -> None:
    for each in content["annotations"]:
        each["image_id"] += 1000
    with pytest.raises(DataError, match=r"none of its \d annotations fits its 2 images") as error:
        read(tmp_path, content)
    assert "image_id 1001" in str(error.value) and "\n" not in str(error.value)


def test_images_that_are_elsewhere_are_refused_in_one_line(tmp_path: Path, content: dict) -> None:
    for each in content["images"]:
        each["file_name"] = "lost/" + each["file_name"].replace(".png", ".lost")
        (tmp_path / each["file_name"].split("/")[1].replace(".lost", ".png")).unlink()
    with pytest.raises(DataError, match="none of its 2 images is there.*images_dir"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "has no list 'images'"),
        ('{"images": [], "annotations": []}', "has no list 'categories'"),
        ('{"images": [], "annotations": [], "categories": []}', "declares no categories"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "no id or no name"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "instances_train.json"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        read_coco(path, [tmp_path])


def test_two_categories_of_one_name_are_refused(tmp_path: Path, content: dict) -> None:
    content["categories"][1]["name"] = "disc"
    with pytest.raises(DataError, match="two categories are called 'disc'"):
        read(tmp_path, content)


def test_a_picture_may_have_another_ending_than_its_annotation(
    tmp_path: Path, content: dict
) -> None:
    Image.open(tmp_path / "0.png").save(tmp_path / "0.JPG")
    (tmp_path / "0.png").unlink()
    found = read(tmp_path, content)
    assert Path(found.images[0].path).name == "0.JPG"
    assert found.defects.counts == {Defect.OTHER_NAME: 1}


def test_numbers_and_ids_of_any_size_are_defects(tmp_path: Path, content: dict) -> None:
    one, huge = dict(content["annotations"][0]), 10**400
    usable = read(tmp_path, content).images[0].objects
    content["images"][0]["height"] = float("inf")  # JSON of Python may hold it
    content["annotations"] += [
        {**one, "area": huge},
        {**one, "bbox": [huge, 0, 1, 1]},
        {**one, "segmentation": [[huge, 0, 1, 1, 2, 2]]},
        {**one, "segmentation": {"size": [float("inf"), 80], "counts": "abc"}},
        {**one, "image_id": "--1"},
        {**one, "image_id": "1" * 5000},
    ]
    found = read(tmp_path, content)
    assert found.defects.counts == {Defect.MALFORMED: 4, Defect.MISSING_IMAGE: 2}
    assert found.images[0].size is None and len(found.images[0].objects) == len(usable)
    assert all(len(line) < 1000 for line in found.defects.lines("train"))


def test_two_categories_of_one_id_are_refused(tmp_path: Path, content: dict) -> None:
    content["categories"].append(dict(content["categories"][0]))  # the same twice does no harm
    assert read(tmp_path, content).class_names == ("disc", "square")
    content["categories"][-1]["name"] = "ring"
    with pytest.raises(DataError, match="two categories have the id 3, 'disc' and 'ring', so"):
        read(tmp_path, content)
