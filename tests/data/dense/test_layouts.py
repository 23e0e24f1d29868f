import json
import shutil
from pathlib import Path

import pytest
from shapes import coco_json, draw_shapes, voc_xml, write_coco, write_voc, write_yolo, yolo_line

from convnextv2.data.dense.layouts import find_layout, split_kind
from convnextv2.errors import DataError


def images_of(root: Path, split: str, asked: str = "auto") -> list[str]:
    annotations = find_layout(root, asked).splits[split]()
    return [Path(image.path).name for image in annotations.images]


def test_instances_beside_a_folder_of_images(tmp_path: Path) -> None:
    layout = find_layout(write_coco(tmp_path))
    assert (layout.format, list(layout.splits)) == ("coco", ["train", "val"])
    assert images_of(tmp_path, "val") == ["val0.png", "val1.png", "val2.png"]


def test_the_layout_of_coco_itself(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        drawn = [draw_shapes(tmp_path / split / "1.png", 0)]
        (tmp_path / "annotations").mkdir(exist_ok=True)
        file = tmp_path / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(coco_json(drawn)))
        shutil.copy(file, file.with_name(f"captions_{split}.json"))
    layout = find_layout(tmp_path)
    assert list(layout.splits) == ["train2017", "val2017"]
    assert layout.choose(None, "train") == "train2017"
    assert layout.choose("val", "validation") == "val2017"
    assert layout.choose("test", "validation") is None
    [image] = layout.splits["val2017"]().images
    assert Path(image.path).parent.name == "val2017"


def test_a_json_file_of_coco_finds_the_images_beside_its_folder(tmp_path: Path) -> None:
    drawn = [draw_shapes(tmp_path / "train2017" / "1.png", 0)]
    draw_shapes(tmp_path / "val2017" / "1.png", 1)
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(coco_json(drawn)))
    [image] = find_layout(file).splits[""]().images
    assert Path(image.path).parent.name == "train2017"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.json", '["sky", "road"]'),
        ("obj_class_to_machine_color.json", '{"kiwi": [1, 1, 1]}'),
        ("meta.json", '{"classes": [], "projectType": "images"}'),
    ],
)
def test_other_json_files_are_not_taken_for_annotations(
    name: str, content: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match="has no objects"):
        find_layout(tmp_path)
    drawn = [draw_shapes(tmp_path / "images" / "a.png", 0)]
    (tmp_path / "mine.json").write_text(json.dumps(coco_json(drawn)))
    assert images_of(tmp_path, "") == ["a.png"]


def test_an_export_of_roboflow_as_coco(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        drawn = [draw_shapes(tmp_path / split / "a.png", 0)]
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(coco_json(drawn)))
    layout = find_layout(tmp_path)
    assert (
        layout.choose(None, "validation") == "valid" and layout.choose("val", "validation") is None
    )
    assert images_of(tmp_path, "valid") == ["a.png"]


def test_yolo_with_and_without_data_yaml(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    layout = find_layout(tmp_path)
    assert (layout.format, list(layout.splits)) == ("yolo", ["train", "val"])
    assert len(images_of(tmp_path, "train")) == 4
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("disc\nsquare\n")
    layout = find_layout(tmp_path)
    assert layout.format == "yolo" and layout.splits["train"]().class_names == ("disc", "square")


def test_an_export_of_roboflow_as_yolo(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        drawn = draw_shapes(tmp_path / split / "images" / "a.png", 0)
        (tmp_path / split / "labels").mkdir()
        text = "".join(yolo_line(drawn, each) for each in drawn.objects)
        (tmp_path / split / "labels" / "a.txt").write_text(text)
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['disc', 'square']\n"
    )
    assert images_of(tmp_path, "val") == ["a.png"] == images_of(tmp_path, "train")


def test_a_yaml_file_names_the_data_itself(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "cells.yml")
    layout = find_layout(tmp_path / "cells.yml")
    assert (layout.format, list(layout.splits)) == ("yolo", ["train", "val"])
    assert len(images_of(tmp_path / "cells.yml", "train")) == 4
    (tmp_path / "cells.yml").write_text("a: {")
    with pytest.raises(DataError, match=r"cells\.yml: cannot be read as YAML"):
        find_layout(tmp_path / "cells.yml")
    (tmp_path / "cells.yml").write_text("a: b")
    with pytest.raises(DataError, match=r"cells\.yml: has no objects\."):
        find_layout(tmp_path / "cells.yml")


def test_an_export_of_cvat_as_yolo(tmp_path: Path) -> None:
    drawn = draw_shapes(tmp_path / "obj_train_data" / "a b.png", 0)
    (tmp_path / "obj_train_data" / "a b.txt").write_text(yolo_line(drawn, drawn.objects[0]))
    (tmp_path / "train.txt").write_text("data/obj_train_data/a b.png\n")
    (tmp_path / "obj.names").write_text("disc\nsquare\n")
    layout = find_layout(tmp_path)
    assert layout.format == "yolo" and layout.splits["train"]().class_names == ("disc", "square")


def test_of_two_json_files_of_a_split_one_is_read_and_the_other_told(tmp_path: Path) -> None:
    write_coco(tmp_path)
    shutil.copy(tmp_path / "instances_train.json", tmp_path / "train_2.json")
    assert not find_layout(tmp_path).splits["train"]().notes  # instances_*.json goes first
    for name in ("train", "val"):
        (tmp_path / f"instances_{name}.json").rename(tmp_path / f"{name}.json")
    [line] = find_layout(tmp_path).splits["train"]().notes
    assert line.startswith(f"{tmp_path}/train.json: is read alone.") and "train_2.json" in line
    assert not find_layout(tmp_path).splits["val"]().notes


def test_a_single_split_of_any_name_is_for_training(tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / "instances_train.json").rename(tmp_path / "instances_default.json")
    assert find_layout(tmp_path).only() is None
    (tmp_path / "instances_val.json").unlink()
    assert find_layout(tmp_path).only() == "default"
    (tmp_path / "instances_default.json").rename(tmp_path / "instances_test.json")
    assert find_layout(tmp_path).only() is None


def test_text_files_beside_images(tmp_path: Path) -> None:
    drawn = draw_shapes(tmp_path / "train" / "a.png", 0)
    (tmp_path / "train" / "a.txt").write_text(yolo_line(drawn, drawn.objects[0]))
    (tmp_path / "train" / "_darknet.labels").write_text("disc\nsquare\n")
    layout = find_layout(tmp_path)
    assert layout.format == "yolo" and layout.splits["train"]().class_names == ("disc", "square")


def test_pascal_voc_with_lists_and_beside_images(tmp_path: Path) -> None:
    layout = find_layout(write_voc(tmp_path / "voc"))
    assert (layout.format, sorted(layout.splits)) == ("voc", ["train", "val"])
    assert images_of(tmp_path / "voc", "val") == ["val_0.png", "val_1.png"]
    drawn = draw_shapes(tmp_path / "export" / "train" / "a.png", 0)
    (tmp_path / "export" / "train" / "a.xml").write_text(voc_xml(drawn))
    assert find_layout(tmp_path / "export").format == "voc"
    shutil.rmtree(tmp_path / "voc" / "ImageSets")
    assert list(find_layout(tmp_path / "voc").splits) == [""]
    assert len(images_of(tmp_path / "voc", "")) == 6


CAPITALS = {"images": "Images", "labels": "LABELS", "Annotations": "ANNOTATIONS"}


def in_capitals(root: Path) -> Path:
    """Rename the usual folders, and give annotations endings in capitals."""
    for path in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
        if path.is_dir() and path.name in CAPITALS:
            path.rename(path.with_name(CAPITALS[path.name]))
        elif path.suffix in (".txt", ".xml") and "ImageSets" not in path.parts:
            path.rename(path.with_suffix(path.suffix.upper()))
    return root


@pytest.mark.parametrize("data_yaml", [True, False])
def test_yolo_in_capitals(tmp_path: Path, data_yaml: bool) -> None:
    write_yolo(tmp_path / "small")
    in_capitals(shutil.copytree(tmp_path / "small", tmp_path / "large"))
    for folder, images in (("small", "images"), ("large", "Images")):
        (tmp_path / folder / "classes.txt").write_text("disc\nsquare\n")
        text = f"train: {images}/train\nval: {images}/val\nnames: [disc, square]\n"
        (tmp_path / folder / "data.yaml").write_text(text)
    if not data_yaml:
        for folder in ("small", "large"):
            (tmp_path / folder / "data.yaml").unlink()
        (tmp_path / "large" / "classes.txt").rename(tmp_path / "large" / "classes.TXT")
    expected, layout = find_layout(tmp_path / "small"), find_layout(tmp_path / "large")
    assert layout.format == "yolo" and list(layout.splits) == list(expected.splits)
    for split in ("train", "val"):
        given, found = expected.splits[split](), layout.splits[split]()
        assert found.class_names == ("disc", "square") and found.total == given.total > 0
        assert [image.objects for image in found.images] == [each.objects for each in given.images]
    (tmp_path / "large" / "LABELS" / "val" / "other.TXT").write_text("0 .5 .5 .1 .1")
    defects = find_layout(tmp_path / "large").splits["val"]().defects.lines("val")
    assert any("1 file of annotations without an image" in line for line in defects)


def test_text_files_in_capitals_beside_images(tmp_path: Path) -> None:
    drawn = draw_shapes(tmp_path / "train" / "a.png", 0)
    (tmp_path / "train" / "a.TXT").write_text(yolo_line(drawn, drawn.objects[0]))
    layout = find_layout(tmp_path)
    assert layout.format == "yolo" and layout.splits["train"]().total == 1


@pytest.mark.parametrize("lists", [True, False])
def test_pascal_voc_in_capitals(tmp_path: Path, lists: bool) -> None:
    root = in_capitals(write_voc(tmp_path))
    (root / "JPEGImages").rename(root / "IMAGES")
    if not lists:
        shutil.rmtree(root / "ImageSets")
    layout = find_layout(root)
    assert layout.format == "voc" and set(layout.splits) == ({"train", "val"} if lists else {""})
    found = [read() for read in layout.splits.values()]
    assert sum(len(list(each.images)) for each in found) == 6
    assert all(each.total and not each.defects.counts for each in found)


def test_xml_files_in_capitals_beside_images(tmp_path: Path) -> None:
    drawn = draw_shapes(tmp_path / "train" / "a.png", 0)
    (tmp_path / "train" / "a.XML").write_text(voc_xml(drawn))
    layout = find_layout(tmp_path)
    assert layout.format == "voc" and layout.splits["train"]().total == len(drawn.objects)


def test_coco_in_capitals(tmp_path: Path) -> None:
    drawn = [draw_shapes(tmp_path / "Images" / "train" / "1.png", 0)]
    (tmp_path / "ANNOTATIONS").mkdir()
    (tmp_path / "ANNOTATIONS" / "instances_train.json").write_text(json.dumps(coco_json(drawn)))
    assert images_of(tmp_path, "train") == ["1.png"]


def test_the_first_format_is_read_unless_another_is_asked_for(tmp_path: Path) -> None:
    write_voc(write_coco(tmp_path))
    layout = find_layout(tmp_path)
    assert (layout.format, layout.others) == ("coco", ("voc",))
    assert find_layout(tmp_path, "voc").format == "voc"
    with pytest.raises(DataError, match="has no annotations in the format of YOLO"):
        find_layout(tmp_path, "yolo")


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "train" / "cats" / "a.png", 0)
    with pytest.raises(DataError, match="has no objects. Expected COCO JSON"):
        find_layout(tmp_path)


def test_a_single_file_has_no_splits(tmp_path: Path) -> None:
    write_coco(tmp_path)
    layout = find_layout(tmp_path / "instances_train.json")
    assert list(layout.splits) == [""] and len(list(layout.splits[""]().images)) == 6
    (tmp_path / "instances_val.json").unlink()
    (tmp_path / "instances_train.json").rename(tmp_path / "nuclei.json")
    assert list(find_layout(tmp_path).splits) == [""]


def test_splits_are_known_by_their_names() -> None:
    kinds = {"train2017": "train", "valid": "validation", "val_2014": "validation", "test": "test"}
    assert {name: split_kind(name) for name in kinds} == kinds
    assert split_kind("trainval") is None
