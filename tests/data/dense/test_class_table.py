from pathlib import Path

import pytest

from convnextv2.data.dense.class_table import find_class_table, read_class_table
from convnextv2.errors import DataError


def table(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_class_table(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,name\n0,wall\n2,sky\n"),
        ("a.csv", "\ufeffIdx,Ratio,Train,Val,Stuff,Name\n2,0.1,1,1,1,sky\n0,0.2,1,1,1,wall\n"),
        ("a.csv", "0,wall\n2,sky\n"),
        ("a.csv", "name;pixel_value\nwall;0\nsky;2\n"),
        ("a.csv", 'id, name\n0, "wall"\n2, "sky"\n'),
        ("_classes.csv", "Pixel Value, Class\n 0, wall\n 2, sky\n"),
        ("a.tsv", "id\tname\n0\twall\n2\tsky\n"),
        ("a.txt", "0 wall\n2 sky\n"),
        ("a.txt", "# comment\n0: wall\n\n2: sky\n"),
        ("a.json", '{"0": "wall", "2": "sky"}'),
        ("a.json", '{"wall": 0, "sky": 2}'),
        ("a.json", '[{"id": 2, "name": "sky"}, {"id": 0, "name": "wall"}]'),
        ("a.json", '{"id2label": {"0": "wall", "2": "sky"}}'),
    ],
)
def test_ids_and_names_are_read_in_every_form(tmp_path: Path, name: str, text: str) -> None:
    found = table(tmp_path, name, text)
    assert (found.names, found.ids, found.has_ids) == (("wall", "sky"), (0, 2), True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "name,r,g,b\nVoid,0,0,0\nBuilding,128,0,64\n"),
        ("a.csv", "name,color\nVoid,#000000\nBuilding,#800040\n"),
        ("a.csv", "Void,0,0,0\nBuilding,128,0,64\n"),
        ("label_colors.txt", "0 0 0\tVoid\n128 0 64\t\tBuilding\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nVoid:0,0,0::\nBuilding:128,0,64::\n"),
        ("a.json", '{"Void": [0, 0, 0], "Building": [128, 0, 64]}'),
        (
            "a.json",
            '[{"name": "Void", "color": [0, 0, 0]}, {"name": "Building", "color": "#800040"}]',
        ),
    ],
)
def test_colours_are_read_in_every_form(tmp_path: Path, name: str, text: str) -> None:
    found = table(tmp_path, name, text)
    assert (found.names, found.ids) == (("Void", "Building"), (0, 1))
    assert found.colours == ((0, 0, 0), (128, 0, 64)) and not found.has_ids


def test_the_values_of_supervisely_are_ids_and_0_is_the_background(tmp_path: Path) -> None:
    (tmp_path / "ds1").mkdir()
    path = tmp_path / "obj_class_to_machine_color.json"
    path.write_text('{"kiwi": [1, 1, 1], "lemon": [2, 2, 2]}')
    assert find_class_table(tmp_path / "ds1") == find_class_table(tmp_path) == path
    found = read_class_table(path)
    assert found.names == ("background", "kiwi", "lemon")
    assert found.ids == (0, 1, 2) and found.has_ids and not found.colours
    path.write_text('{"background": [1, 1, 1], "lemon": [2, 2, 2]}')
    assert read_class_table(path).names == ("unlabelled", "background", "lemon")
    path.write_text('{"kiwi": [120, 0, 7], "lemon": [0, 0, 0]}')
    assert read_class_table(path).colours == ((120, 0, 7), (0, 0, 0))


def test_names_alone_count_from_zero(tmp_path: Path) -> None:
    for name, text in (("a.txt", "wall\nnight sky\n"), ("a.json", '["wall", "night sky"]')):
        found = table(tmp_path, name, text)
        assert (found.names, found.ids, found.has_ids) == (("wall", "night sky"), (0, 1), False)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("id,name\n0,wall\n0,sky\n", "the id 0 stands for two classes"),
        ("id,name\n0,wall\n1,wall\n", "the name wall stands for two"),
        ("id,name\n0,wall\n,sky\n", "'sky' has no id"),
        ("id,name\nzero,wall\n", "'zero' is not a whole number"),
        ("id,name\n-1,wall\n", "negative"),
        ("name,color\nwall,red\n", "'red' is not a colour"),
        ("", "lists no class"),
        ("1,2,3\n", "cannot be understood"),
        ("id,name\n99999999999999999999,wall\n", "too large for a label map"),
        ("id,name\n16777216,wall\n", "too large for a label map"),
        (f"id,name\n{'9' * 5000},wall\n", "too large for a label map"),
        (f"name,color\nwall,{'9' * 5000} 1 2\n", "'9{40}' is not a colour"),
        (f"id,name\n1,{'x' * 200_000}\n", "cannot be read as a table"),
        ('id,name\n1,"wall\n2,sky\n', "cannot be read as a table .* Close each quote"),
        ('id,name\n1,"wall\nred"\n', "cannot be printed"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        table(tmp_path, "a.csv", text)


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"0,\xff\xfe\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_class_table(tmp_path / "a.csv")
    with pytest.raises(DataError, match="is not JSON"):
        table(tmp_path, "a.json", "{")
    with pytest.raises(DataError, match="is not JSON .*too deeply"):
        table(tmp_path, "a.json", "[" * 50_000)
    with pytest.raises(DataError, match="is not JSON .*the key '1' is repeated"):
        table(tmp_path, "a.json", '{"1": "wall", "1": "sky"}')
    for name, text in (("a.json", '{"wall": 99999999999999999999}'), ("a.txt", f"{'9' * 5000} a")):
        with pytest.raises(DataError, match="too large for a label map"):
            table(tmp_path, name, text)


def test_the_table_of_a_folder_is_found_and_two_are_not_chosen_from(tmp_path: Path) -> None:
    assert find_class_table(tmp_path) is None
    (tmp_path / "ObjectInfo150.csv").write_text("Idx,Name\n1,wall\n")
    assert find_class_table(tmp_path) == tmp_path / "ObjectInfo150.csv"
    (tmp_path / "classes.txt").write_text("wall\n")
    with pytest.raises(DataError, match="several class tables"):
        find_class_table(tmp_path)


def test_the_table_in_the_folders_of_splits_is_found_if_all_agree(tmp_path: Path) -> None:
    for split in ("test", "train", "valid"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_classes.csv").write_text("Pixel Value, Class\n 0, wall\n")
    assert find_class_table(tmp_path) == tmp_path / "train" / "_classes.csv"
    assert find_class_table(tmp_path / "valid") == tmp_path / "valid" / "_classes.csv"
    (tmp_path / "test" / "_classes.csv").write_text("filename, wall, sky\na.jpg, 0, 1\n")
    assert find_class_table(tmp_path) == tmp_path / "train" / "_classes.csv"
    (tmp_path / "valid" / "_classes.csv").write_text("Pixel Value, Class\n 0, sky\n")
    with pytest.raises(DataError, match=r"train/_classes.csv and .*valid/_classes.csv: have diff"):
        find_class_table(tmp_path)
    (tmp_path / "classes.csv").write_text("id,name\n0,wall\n")
    assert find_class_table(tmp_path) == tmp_path / "classes.csv"
