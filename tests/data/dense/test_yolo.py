from pathlib import Path

import numpy as np
import pytest
from shapes import draw_shapes, write_yolo, yolo_line

from convnextv2.data.dense.defects import Defect
from convnextv2.data.dense.layouts import find_layout
from convnextv2.data.dense.scan import scan_objects
from convnextv2.data.dense.yolo import (
    Images,
    below,
    find_yaml,
    images_of,
    read_keypoints,
    read_names,
    read_yolo,
)
from convnextv2.errors import DataError


def write(folder: Path, **labels: str) -> Images:
    """Write images/NAME.png and labels/NAME.txt."""
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    for name, text in labels.items():
        draw_shapes(folder / "images" / f"{name}.png", 0)
        (folder / "labels" / f"{name}.txt").write_text(text)
    return below(folder / "images")


def test_boxes_and_outlines_are_shares_of_the_image(tmp_path: Path) -> None:
    drawn = draw_shapes(tmp_path / "images" / "a.png", 3)
    lines = "".join(yolo_line(drawn, each, outline) for each in drawn.objects for outline in (0, 1))
    found = read_yolo(write(tmp_path, a=lines), ["disc", "square"], "here")
    assert found.images[0].is_relative and found.images[0].size is None
    for i, each in enumerate(found.images[0].objects):
        kind, x0, y0, x1, y1, points = drawn.objects[i // 2]
        assert each.label == kind
        assert np.allclose(np.multiply(each.box, [80, 60, 80, 60]), [x0, y0, x1, y1], atol=1e-3)
        if i % 2:
            outline = np.array(points).reshape(-1, 2)
            assert np.allclose(each.region[0] * [80, 60], outline, atol=1e-3)


def test_an_empty_file_and_no_file_mean_no_objects(tmp_path: Path) -> None:
    images = write(tmp_path, a="0 0.5 0.5 0.2 0.2\n", b="", c="")
    (tmp_path / "labels" / "c.txt").unlink()
    found = read_yolo(images, ["cat"], "here")
    assert [len(image.objects) for image in found.images] == [1, 0, 0]
    assert found.defects.counts == {}


def test_what_is_damaged_is_counted_with_its_line(tmp_path: Path) -> None:
    text = (
        "0 0.5 0.5 0.2 0.2\n0 0.5 0.5\n7 0.5 0.5 0.1 0.1\nx 1 1 1 1\n0 100 80 20 20\n-1 0 0 1 1\n"
    )
    images = write(tmp_path, a=text)
    (tmp_path / "labels" / "lost.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "labels" / "classes.txt").write_text("cat\n")
    found = read_yolo(images, ["cat"], "here")
    assert len(found.images[0].objects) == 1
    assert found.defects.counts == {
        Defect.MALFORMED: 3,
        Defect.UNKNOWN_CLASS: 1,
        Defect.OUTSIDE: 1,
        Defect.NO_IMAGE: 1,
    }
    assert any("(a.txt, line 3)" in line for line in found.defects.lines("x"))


def test_pixels_in_place_of_shares_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of its 1 lines can be used.*shares"):
        read_yolo(write(tmp_path, a="0 40 30 10 10\n"), ["cat"], "here")


def test_images_without_any_labels_are_refused(tmp_path: Path) -> None:
    images = write(tmp_path, a="")
    (tmp_path / "labels" / "a.txt").unlink()
    with pytest.raises(DataError, match="none of its 1 images has a text file"):
        read_yolo(images, ["cat"], "here")


def test_classes_without_names_get_numbers(tmp_path: Path) -> None:
    found = read_yolo(write(tmp_path, a="2 0.5 0.5 0.2 0.2\n"), None, "here")
    assert found.class_names == ("0", "1", "2") and "get numbers" in found.notes[0]


def test_data_yaml_in_its_forms(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    found = find_yaml(tmp_path)
    assert found is not None
    file, content = found
    assert read_names(tmp_path, content) == ["disc", "square"]
    assert len(images_of(content["train"], file, content["path"]).paths) == 4
    assert read_names(tmp_path, {"names": ["a", "b"]}) == ["a", "b"]
    assert read_names(tmp_path, {"nc": 2}) == ["0", "1"]
    assert read_names(tmp_path, {"names": {0: "a", 2: "c"}}) == ["a", "1", "c"]
    with pytest.raises(DataError, match="neither a list"):
        read_names(tmp_path, {"names": "a"})
    # Exports of Roboflow stand in the folder but write ../train; a list of files will do, too.
    assert len(images_of("../images/train", file, None).paths) == 4
    (tmp_path / "train.txt").write_text("./images/train/0.png\nimages/train/1.png\n")
    listed = images_of("train.txt", file, None).paths
    assert [Path(path).name for path in listed] == ["0.png", "1.png"]
    assert len(images_of(["images/train", "images/val"], file, None).paths) == 6
    with pytest.raises(DataError, match="names images/lost, which does not exist"):
        images_of("images/lost", file, None)
    with pytest.raises(DataError, match=r"names images/train/0\.png, which is an image"):
        images_of("images/train/0.png", file, None)


def test_a_mark_of_the_byte_order_and_line_ends_of_windows_do_no_harm(tmp_path: Path) -> None:
    images = write(tmp_path, a="0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n")
    path = tmp_path / "labels" / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    names = read_names(tmp_path, None)
    assert names == ["cat", "dog"]
    found = read_yolo(images, names, "here")
    assert [each.label for each in found.images[0].objects] == [0, 1]
    assert not found.defects.counts


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a", "b", "a"], "calls a class 'a' twice"),
        ({0: "a", 1: None}, "calls a class ''"),
        (["a", None], "calls a class ''"),
        (["a", "b\n"], None),
        (["a\x07"], r"calls a class 'a\\x07'"),
        ([], "names no class"),
        ({}, "names no class"),
        ({None: "a"}, "not numbered from 0: found None"),
        ({-1: "a", 0: "b"}, "not numbered from 0: found -1"),
        ({0.5: "a", 0: "b"}, r"not numbered from 0: found 0\.5"),
        ({0: "a", "0": "b"}, "names the class 0 twice"),
        ({0: "a", 10**12: "b"}, "expected whole numbers below 32,767"),
    ],
)
def test_names_that_cannot_be_told_apart_are_refused(tmp_path: Path, names, says) -> None:
    if says is None:
        assert read_names(tmp_path, {"names": names}) == ["a", "b"]
        return
    with pytest.raises(DataError, match=says):
        read_names(tmp_path, {"names": names})


def test_a_damaged_data_yaml_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("train: [\n")
    with pytest.raises(DataError, match=r"data\.yaml: cannot be read as YAML"):
        find_yaml(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "other.yaml")
    assert find_yaml(tmp_path) is None
    assert read_names(tmp_path, {"nc": "2"}) == ["0", "1"]


@pytest.mark.parametrize("nc", [10**12, "9" * 5000, 32_768])
def test_more_classes_than_can_be_learned_are_refused(tmp_path: Path, nc) -> None:
    with pytest.raises(DataError, match="expected at most 32,767 classes"):
        read_names(tmp_path, {"nc": nc})


def test_a_class_number_that_cannot_be_one_takes_no_memory(tmp_path: Path) -> None:
    images = write(tmp_path, a="999999999999 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n")
    found = read_yolo(images, None, "here")
    assert found.class_names == ("0", "1") and found.defects.counts == {Defect.MALFORMED: 1}


@pytest.mark.parametrize(
    "text",
    [
        "names: {[a]: b}\n",
        "names: " + "[" * 3000,
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{b}: &{b} [{f'*{a}, ' * 10}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
        )
        + "names: *g\n",
    ],
)
def test_yaml_that_no_list_of_classes_needs_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(f"train: images\n{text}")
    with pytest.raises(DataError, match=r"data\.yaml: cannot be read as YAML"):
        find_yaml(tmp_path)


def test_the_keypoints_of_a_pose_are_not_taken_for_an_outline(tmp_path: Path) -> None:
    points = "0.4 0.4 2 0.6 0.6 2 0.5 0.5 1 0.1 0.2 0"
    images = write(tmp_path, a=f"0 0.5 0.5 0.2 0.4 {points}\n0 0.5 0.5 0.1 0.1\n0 1 1 0 1 0 0\n")
    keypoints = read_keypoints(tmp_path, {"kpt_shape": ["4", "3"]})
    found = read_yolo(images, ["cat"], "here", keypoints=keypoints)
    boxes = [each.box for each in found.images[0].objects]
    assert np.allclose(boxes, [(0.4, 0.3, 0.6, 0.7), (0.45, 0.45, 0.55, 0.55)])
    assert all(each.region is None for each in found.images[0].objects)
    assert found.defects.counts == {Defect.MALFORMED: 1}
    assert found.notes == ("here: keypoints (kpt_shape in data.yaml) are skipped; boxes are read.",)
    assert read_keypoints(tmp_path, None) == read_keypoints(tmp_path, {"kpt_shape": ""}) == 0
    for wrong in ("17", ["17"], ["a", "3"]):
        with pytest.raises(DataError, match=r"kpt_shape: .*, expected two whole numbers"):
            read_keypoints(tmp_path, {"kpt_shape": wrong})


def test_outlines_that_may_be_rotated_boxes_are_mentioned(tmp_path: Path) -> None:
    rotated = "0 0.2 0.3 0.5 0.1 0.7 0.5 0.4 0.7\n"
    (note,) = read_yolo(write(tmp_path, a=rotated, b="0 .5 .5 .1 .1"), ["cat"], "here").notes
    assert note.startswith("here: every outline (1) has 4 corners, as rotated boxes have.")
    assert not read_yolo(write(tmp_path, c="0 0 0 1 0 1 1\n"), ["cat"], "here").notes


def test_a_list_of_images_is_checked_like_any_other(tmp_path: Path) -> None:
    write(tmp_path, a="0 0.5 0.5 0.2 0.2\n", b="0 0.5 0.5 0.2 0.2\n", c="0 0.5 0.5 0.2 0.2\n")
    file = tmp_path / "data.yaml"
    images = ["data/images/a.png", "images\\b.png", f"../{tmp_path.name}/images/a.png"]
    (tmp_path / "train.txt").write_text("\n".join([*images, "images/lost.png"]))
    found = read_yolo(images_of("train.txt", file, None), ["cat"], "here")
    assert [Path(image.path).name for image in found.images] == ["a.png", "b.png"]
    assert [len(image.objects) for image in found.images] == [1, 1]
    # c.png is of another split, so its text file is not without an image.
    assert found.defects.counts == {Defect.TWICE: 1, Defect.MISSING_FILE: 1}


@pytest.mark.parametrize("content", [b"lost/a.png\n", b"PK\x03\x04a\0b/c\n" + bytes(range(256))])
def test_a_list_of_nothing_that_is_there_is_refused(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, a="0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "list.bin").write_bytes(content)
    with pytest.raises(
        DataError, match=r"list\.bin: none of its .* images is there, such as"
    ) as no:
        images_of("list.bin", tmp_path / "data.yaml", None)
    assert str(no.value).isprintable()


def test_a_path_longer_than_any_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="which does not exist"):
        images_of("x" * 300, tmp_path / "data.yaml", None)


def test_every_image_is_used_once_whatever_lies_beside_it(tmp_path: Path) -> None:
    line = "0 0.5 0.5 0.2 0.2\n"
    write(tmp_path, a=line, A=line + line)
    folder = tmp_path / "images"
    draw_shapes(folder / "a.bmp", 0)
    draw_shapes(folder / "@eaDir" / "a.png", 0)
    draw_shapes(folder / ".thumbs" / "a.png", 0)
    (folder / "again").symlink_to(folder)
    found = read_yolo(below(folder), ["cat"], "here")
    names = [Path(image.path).name for image in found.images]
    assert names == ["A.png", "a.bmp", "a.png"]
    assert [len(image.objects) for image in found.images] == [2, 1, 1]
    assert found.defects.counts == {Defect.SHARED_LABELS: 1}
    notes = scan_objects(found, "train").notes
    assert any("skipped folders of the system (@eaDir)" in note for note in notes)
    assert any("skipped 1 path to something that is listed already" in note for note in notes)


@pytest.mark.parametrize("nothing", ["", "null", "[]"])
@pytest.mark.parametrize("written", ["[no, 01, 2020-13-45]", "{0: no, 1: 01, 2: 2020-13-45}"])
def test_classes_are_called_as_they_are_written(tmp_path: Path, written: str, nothing: str) -> None:
    (tmp_path / "data.yaml").write_text(f"train: images\nval: {nothing}\nnames: {written}\n")
    found = find_yaml(tmp_path)
    assert found is not None
    assert read_names(tmp_path, found[1]) == ["no", "01", "2020-13-45"]
    assert list(find_layout(tmp_path).splits) == ["train"]
    assert read_names(tmp_path, {"names": "", "nc": "2"}) == ["0", "1"]
