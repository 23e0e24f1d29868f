from pathlib import Path

import numpy as np
import pytest
from shapes import draw_shapes, voc_xml

from convnextv2.data.dense.defects import Defect
from convnextv2.data.dense.raw import RawAnnotations
from convnextv2.data.dense.scan import scan_objects
from convnextv2.data.dense.voc import listed_files, read_voc
from convnextv2.errors import DataError

OBJECT = (
    "<object><name>{name}</name>{more}<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
    "<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
)


def read(folder: Path) -> RawAnnotations:
    return read_voc(sorted(folder.glob("*.xml")), [folder], str(folder))


def write(folder: Path, name: str, *objects: tuple[str, tuple, str], image: str = "") -> None:
    draw_shapes(folder / (image or f"{name}.png"), 0)
    inner = "".join(OBJECT.format(name=kind, box=box, more=more) for kind, box, more in objects)
    stated = f"{name}.png"
    (folder / f"{name}.xml").write_text(
        f"<annotation><filename>{stated}</filename>{inner}</annotation>"
    )


def test_boxes_count_pixels_from_1_and_include_both_ends(tmp_path: Path) -> None:
    drawn = draw_shapes(tmp_path / "a.png", 3)
    (tmp_path / "a.xml").write_text(voc_xml(drawn))
    found = read(tmp_path)
    boxes = [each.box for each in found.images[0].objects]
    assert boxes == [tuple(map(float, each[1:5])) for each in drawn.objects]
    assert found.images[0].size == (60, 80)
    used = sorted({("disc", "square")[each[0]] for each in drawn.objects})
    assert list(found.class_names) == used


def test_difficult_objects_are_neither_trained_on_nor_counted(tmp_path: Path) -> None:
    hard = "<difficult>1</difficult>"
    write(tmp_path, "a", ("cat", (2, 2, 9, 9), ""), ("cat", (20, 2, 39, 9), hard))
    found = read(tmp_path)
    assert [each.crowd for each in found.images[0].objects] == [False, True]
    assert found.defects.counts == {Defect.DIFFICULT: 1}


def test_what_is_damaged_is_counted(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a",
        ("cat", (2, 2, 9, 9), ""),
        ("cat", (5, 5, 5, 9), ""),
        ("cat", (0, 0, 0, 0), ""),
        ("cat", ("x", 0, 1, 1), ""),
        ("cat", ("nan", 1, 2, 3), ""),
        ("", (1, 1, 5, 5), ""),
    )
    (tmp_path / "b.xml").write_text("<annotation")
    (tmp_path / "c.xml").write_text("<annotation><filename>c.png</filename></annotation>")
    found = read(tmp_path)
    assert len(found.images) == 1 and len(found.images[0].objects) == 1
    assert found.defects.counts == {
        Defect.NO_AREA: 2,
        Defect.MALFORMED: 3,
        Defect.NOT_FINITE: 1,
        Defect.NO_IMAGE: 1,
    }
    assert any(
        "2 boxes without area: left out (a.xml)" in line for line in found.defects.lines("x")
    )


def test_an_image_is_found_though_its_name_is_written_otherwise(tmp_path: Path) -> None:
    write(tmp_path, "Photo", ("cat", (2, 2, 9, 9), ""), image="photo.JPEG")
    found = read(tmp_path)
    assert Path(found.images[0].path).name == "photo.JPEG"
    assert found.defects.counts == {Defect.OTHER_NAME: 1}


def test_a_list_names_the_files_of_a_split(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("a\n\nb  1\nc -1\na\n")
    assert listed_files(path, tmp_path) == [tmp_path / f"{name}.xml" for name in "abc"]


def test_a_list_may_name_files_with_blanks(tmp_path: Path) -> None:
    write(tmp_path, "My photo 1", ("cat", (2, 2, 9, 9), ""))
    path = tmp_path / "train.txt"
    path.write_text("My photo 1\n")
    assert listed_files(path, tmp_path) == [tmp_path / "My photo 1.xml"]
    path.write_text("My other photo\n")
    with pytest.raises(DataError, match="lists 1 file of annotations, none of which is there"):
        read_voc(listed_files(path, tmp_path), [tmp_path], str(path))


def test_outlines_of_roboflow_are_read(tmp_path: Path) -> None:
    polygon = "<polygon><x1>2</x1><y1>3</y1><x2>9</x2><y2>3</y2><x3>5</x3><y3>8</y3></polygon>"
    write(tmp_path, "a", ("cat", (2, 2, 9, 9), polygon))
    [only] = read(tmp_path).images[0].objects
    assert isinstance(only.region, tuple)
    assert np.array_equal(only.region[0], [[2, 3], [9, 3], [5, 8]])


def test_files_without_any_image_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<annotation><filename>a.png</filename></annotation>")
    with pytest.raises(DataError, match="none of its 1 XML files has an image, such as a.xml"):
        read(tmp_path)


def test_a_set_whose_objects_are_all_damaged_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", ("cat", (9, 9, 2, 2), ""))  # the corners are exchanged
    with pytest.raises(DataError, match=r"none of its 1 annotations can be used \(.*area.*\)\.$"):
        scan_objects(read(tmp_path), "train")


def test_damaged_xml_is_not_said_to_lack_an_image(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "a.png", 0)
    (tmp_path / "a.xml").write_text("<annotation><filename>a.png")
    with pytest.raises(DataError, match="none of its 1 XML files can be read, such as a.xml"):
        read(tmp_path)


def test_a_list_of_images_may_begin_with_a_mark_of_the_byte_order(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    found = listed_files(tmp_path / "train.txt", tmp_path)
    assert [file.name for file in found] == ["a.xml", "b.xml"]


def test_a_name_that_was_copied_with_the_file_is_not_believed(tmp_path: Path) -> None:
    write(tmp_path, "a", ("cat", (2, 2, 9, 9), ""))
    write(tmp_path, "b", ("cat", (20, 2, 39, 9), ""))
    (tmp_path / "b.xml").write_text((tmp_path / "b.xml").read_text().replace("b.png", "a.png"))
    found = read(tmp_path)
    boxes = {Path(image.path).name: [each.box for each in image.objects] for image in found.images}
    assert boxes == {"a.png": [(1, 1, 9, 9)], "b.png": [(19, 1, 39, 9)]}
    assert found.defects.counts == {Defect.STALE_NAME: 1}


def test_two_files_of_one_image_give_it_the_objects_of_both(tmp_path: Path) -> None:
    write(tmp_path, "a", ("cat", (2, 2, 9, 9), ""))
    text = (tmp_path / "a.xml").read_text()
    (tmp_path / "second.xml").write_text(text.replace("cat", "dog"))
    found = read(tmp_path)
    assert [[each.label for each in image.objects] for image in found.images] == [[0, 1]]
    assert found.class_names == ("cat", "dog") and found.defects.counts == {Defect.TWICE: 1}


def test_a_size_and_an_encoding_that_cannot_be_are_no_error(tmp_path: Path) -> None:
    write(tmp_path, "a", ("cat", (2, 2, 9, 9), ""))
    write(tmp_path, "b", ("cat", (2, 2, 9, 9), ""))
    text = (tmp_path / "a.xml").read_text()
    size = "<size><width>1e400</width><height>60</height></size>"
    (tmp_path / "a.xml").write_text(text.replace("<object>", f"{size}<object>", 1))
    (tmp_path / "b.xml").write_text(f'<?xml version="1.0" encoding="nothing"?>{text}')
    found = read(tmp_path)
    assert [image.size for image in found.images] == [None]
    assert found.defects.counts == {Defect.MALFORMED: 1}
