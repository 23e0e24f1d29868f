"""Tables whose images have several labels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convnextv2.data.manifest import Table, read_table
from convnextv2.data.sources import find_sources, summary, validation_source
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.read import read_recipe

IMAGES = ("1.jpg", "2.jpg", "3.jpg", "4.jpg")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for image in IMAGES:
        Path(image).touch()
    return tmp_path


def read(content: str, name: str = "t.csv", **options: Any) -> Table:
    Path(name).write_text(content)
    return read_table(name, **options)


def refused(content: str, name: str = "t.csv", **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(content, name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def values(table: Table, *classes: str) -> list[list[int]]:
    assert table.sets is not None and table.labels is None
    assert table.sets.classes == classes
    return table.sets.values.tolist()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("path,labels\n1.jpg,cat|dog\n2.jpg,dog\n3.jpg,\n", "vertical bars"),
        ("path,labels\n1.jpg,cat; dog\n2.jpg,dog\n3.jpg,\n", "semicolons"),
        ('path,labels\n1.jpg,"cat, dog"\n2.jpg,dog\n3.jpg,\n4.jpg,cat\n', "commas"),
        ("Image Index,Finding Labels\n1.jpg,cat|dog\n2.jpg,dog\n3.jpg,\n", "vertical bars"),
        ("path;labels\n1.jpg;cat|dog\n2.jpg;dog\n3.jpg;\n", "vertical bars"),
    ],
)
def test_names_in_one_field_are_split_and_an_empty_field_is_no_label(
    here: Path, content: str, word: str
) -> None:
    table = read(content)
    assert values(table, "cat", "dog")[:3] == [[1, 1], [0, 1], [0, 0]]
    note = next(note for note in table.notes if "several labels" in note)
    assert note == (
        f"t.csv: an image may have several labels, which are read separated by {word}: "
        "2 classes (cat, dog)."
    )


def test_names_that_hold_a_separator_are_not_split_unless_told(here: Path) -> None:
    table = read('path,label\n1.jpg,"tench, Tinca tinca"\n2.jpg,"crane, bird"\n')
    assert table.sets is None and list(table.labels) == ["tench, Tinca tinca", "crane, bird"]
    table = read("path,label\n1.jpg,red square\n2.jpg,blue square\n3.jpg,red\n")
    assert list(table.labels) == ["red square", "blue square", "red"]
    table = read("path,label\n1.jpg,clear water\n2.jpg,water\n", kind="multi", separator=" ")
    assert values(table, "clear", "water") == [[1, 1], [0, 1]]
    # Two names for each of few images are too little evidence for commas, so a line says so.
    table = read('path,label\n1.jpg,"a, b"\n2.jpg,"a, c"\n')
    assert list(table.labels) == ["a, b", "a, c"]
    assert table.notes == (
        "t.csv: a label such as a, b is read as one name. If it lists several, use: "
        "--labels multi --label_separator ','",
    )
    assert values(read('path,label\n1.jpg,"a, b"\n2.jpg,a\n', kind="multi"), "a", "b") == [
        [1, 1],
        [1, 0],
    ]


def test_a_pseudo_class_stays_a_class(here: Path) -> None:
    table = read("path,labels\n1.jpg,No Finding\n2.jpg,Mass|Edema\n3.jpg,Mass\n")
    assert values(table, "Edema", "Mass", "No Finding") == [[0, 0, 1], [1, 1, 0], [0, 1, 0]]


def test_columns_of_0_and_1_may_be_blank_or_minus_1_for_unknown(here: Path) -> None:
    table = read("path,hat,shoe,bag\n1.jpg,1,1,0\n2.jpg,0,,1.0\n3.jpg,-1,0,0\n4.jpg,0,0,-1.0\n")
    assert values(table, "hat", "shoe", "bag") == [[1, 1, 0], [0, -1, 1], [-1, 0, 0], [0, 0, -1]]
    assert table.notes == (
        "t.csv: an image may have several labels: has one column for each of 3 classes "
        "(hat, shoe, bag); 3 of 12 labels are unknown (empty or -1), and count neither in the "
        "loss nor in the figures.",
    )
    # Nothing shows that an image may have several: a row without a label is a mistake.
    assert refused("path,hat,shoe\n1.jpg,1,0\n2.jpg,0,0\n") == (
        "t.csv: 1 row has no label, in line 3. Set labels to multi if an image may have none."
    )
    assert values(read("path,hat,shoe\n1.jpg,1,0\n2.jpg,0,0\n", kind="multi"), "hat", "shoe") == [
        [1, 0],
        [0, 0],
    ]
    assert "hold no 0" in refused("path,hat,shoe\n1.jpg,1,1\n2.jpg,,1\n")


def test_columns_of_classes_can_be_chosen_among_others(here: Path) -> None:
    content = "path,Sex,hat,shoe\n1.jpg,F,1,1\n2.jpg,M,0,1\n"
    assert "--columns 'label=COLUMN|COLUMN'" in refused(content)
    table = read(content, columns={"label": "hat|shoe"})
    assert values(table, "hat", "shoe") == [[1, 1], [0, 1]]
    assert table.notes[0] == "t.csv: not used: Sex."


def test_lists_of_json_hold_names_or_numbers(here: Path) -> None:
    rows = [
        {"file_name": "1.jpg", "labels": ["cat", "dog"]},
        {"file_name": "2.jpg", "labels": []},
        {"file_name": "3.jpg", "labels": None},
        {"file_name": "4.jpg", "labels": ["red, dog"]},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    table = read(lines, "t.jsonl")
    expected = [[1, 1, 0], [0, 0, 0], [-1, -1, -1], [0, 0, 1]]  # null: nobody has looked
    assert values(table, "cat", "dog", "red, dog") == expected
    assert values(read(json.dumps(rows), "t.json"), "cat", "dog", "red, dog") == expected
    numbers = [{"path": "1.jpg", "label": [0, 2]}, {"path": "2.jpg", "label": [2]}]
    assert values(read(json.dumps(numbers), "n.json"), "0", "2") == [[1, 1], [0, 1]]
    assert "label is a list" in refused(json.dumps(numbers), "n.json", kind="single")
    bad = [{"path": ["1.jpg"], "label": ["a"]}]
    assert "path is a list" in refused(json.dumps(bad), "b.json")


def test_annotation_files_of_mmpretrain_name_all_classes(here: Path) -> None:
    content = {
        "metainfo": {"classes": ["zebra", "cat", "yak"]},
        "data_list": [
            {"img_path": "1.jpg", "gt_label": [0, 1]},
            {"img_path": "2.jpg", "gt_label": []},
        ],
    }
    table = read(json.dumps(content), "m.json")
    assert values(table, "zebra", "cat", "yak") == [[1, 1, 0], [0, 0, 0]]  # in their order
    content["data_list"][1]["gt_label"] = [3]
    assert refused(json.dumps(content), "m.json") == (
        "m.json, entry 2: gt_label = 3: expected 0 to 2, since metainfo lists 3 classes."
    )
    content["data_list"] = [{"img_path": f"{i + 1}.jpg", "gt_label": i} for i in range(3)]
    table = read(json.dumps(content), "m.json")
    assert list(table.labels) == ["zebra", "cat", "yak"]
    source = find_sources(Recipe(data_dir="m.json", val_while_train=False), labelled=True)[0]
    assert source.class_names == ("zebra", "cat", "yak") and source.targets.tolist() == [0, 1, 2]


def test_rows_of_one_image_each_add_a_label_if_told(here: Path) -> None:
    content = "path,label\n1.jpg,cat\n2.jpg,dog\n1.jpg,dog\n1.jpg,Human face\n"
    assert "set labels to multi if an image may have several" in refused(content)
    table = read(content, kind="multi")
    assert list(table.paths) == ["1.jpg", "2.jpg"]
    assert values(table, "Human face", "cat", "dog") == [[1, 1, 1], [0, 0, 1]]
    assert "t.csv: 2 rows repeat images, and their labels are added." in table.notes


def test_rows_that_may_deny_a_label_are_refused(here: Path) -> None:
    content = "ImageID,LabelName,Confidence\n1.jpg,cat,1\n1.jpg,dog,0\n"
    assert "has the column Confidence" in refused(content, kind="multi")


def test_an_image_of_two_splits_keeps_its_labels_apart(here: Path) -> None:
    content = "path,label,split\n1.jpg,cat,train\n1.jpg,dog,val\n1.jpg,yak,val\n2.jpg,yak,train\n"
    table = read(content, kind="multi")
    assert list(table.splits) == ["train", "val", "train"]
    assert values(table, "cat", "dog", "yak") == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_unknown_names_of_the_validation_split_are_listed_with_the_nearest(here: Path) -> None:
    Path("t.csv").write_text(
        "path,labels,split\n1.jpg,cat|horse,train\n2.jpg,cat,train\n3.jpg,hors|cat,val\n"
        "4.jpg,yeti,val\n"
    )
    with pytest.raises(DataError) as caught:
        find_sources(Recipe(data_dir="t.csv"), labelled=True)
    assert str(caught.value) == (
        "t.csv: the labels 'hors' (is 'horse' meant?), 'yeti' are not among the 2 trained classes "
        "(cat, horse). Correct them, or leave their images out."
    )


def test_the_model_decides_the_order_of_classes(here: Path) -> None:
    Path("t.csv").write_text("path,labels\n1.jpg,cat|dog\n2.jpg,dog\n3.jpg,\n")
    recipe = Recipe(data_dir="t.csv", labels="multi")
    source = validation_source(recipe, ["yak", "dog", "cat"], trained_on=False)
    assert source.targets.tolist() == [[0, 1, 1], [0, 1, 0], [0, 0, 0]]
    assert source.targets.dtype == np.int8
    Path("t.csv").write_text("path,dog,cat\n1.jpg,1,0\n2.jpg,1,\n")
    source = validation_source(recipe, ["yak", "cat", "dog"], trained_on=False)
    assert source.targets.tolist() == [[-1, 0, 1], [-1, -1, 1]]  # no column, so it is unknown


def test_only_a_table_can_have_several_labels(here: Path) -> None:
    with pytest.raises(DataError, match="labels = multi: .* is not a table"):
        find_sources(Recipe(data_dir=str(here), labels="multi"), labelled=True)
    with pytest.raises(DataError, match="labels = multi: bundled is not a table"):
        find_sources(Recipe(dataset="bundled", labels="multi"), labelled=True)


def test_labels_multi_reads_what_was_detected(here: Path) -> None:
    # A run writes labels: multi into its recipe, and must read the same when it goes on.
    for content in (
        "path,labels\n1.jpg,cat|dog\n2.jpg,dog\n3.jpg,\n",
        'path,labels\n1.jpg,"a,b;c"\n2.jpg,c\n3.jpg,"a,b"\n',
        "path,hat,shoe\n1.jpg,1,1\n2.jpg,0,\n",
    ):
        found, told = read(content), read(content, kind="multi")
        assert found.sets.classes == told.sets.classes
        assert found.sets.values.tolist() == told.sets.values.tolist()


def test_two_classes_of_one_name_are_refused(here: Path) -> None:
    said = refused("path,hat,hat,split\n1.jpg,1,1,train\n2.jpg,0,1,train\n", kind="multi")
    assert "class 1 and class 2 are both called hat" in said


def test_names_that_mix_separators_are_told(here: Path) -> None:
    content = "path,labels\n1.jpg,hat|coat\n2.jpg,hat;coat\n3.jpg,coat\n4.jpg,hat|shoe\n"
    notes = " ".join(read(content).notes)
    assert "the label hat;coat is read as one name, though its parts are labels too" in notes


def test_images_are_counted_not_labels(here: Path) -> None:
    for image in IMAGES:
        (here / image).touch()
    (here / "t.csv").write_text(
        "path,labels,split\n1.jpg,cat|dog,train\n2.jpg,dog,train\n3.jpg,,train\n4.jpg,cat,val\n"
    )
    training, validation = find_sources(Recipe(data_dir="t.csv"), labelled=True)
    assert summary(training, validation).startswith("3 images for training, 2 classes")


@pytest.mark.parametrize("blank", [" ", "space"])
def test_a_blank_is_a_separator_as_it_is_or_in_words(here: Path, blank: str) -> None:
    (here / "t.csv").write_text("path,label\n1.jpg,cat dog\n2.jpg,dog\n3.jpg,cat\n4.jpg,cat dog\n")
    recipe, _ = read_recipe({"data_dir": "t.csv", "label_separator": blank})
    training, _ = find_sources(recipe, labelled=True)
    assert training.class_names == ("cat", "dog") and training.is_multi_label


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["hat", "sh\noe"], "class 2 is called 'sh\\noe', expected a name in one line"),
        (["", "hat"], "class 1 is called '', expected a name in one line"),
        (["hat", "hat"], "class 1 and class 2 are both called hat"),
    ],
)
def test_names_of_classes_are_one_line_each(here: Path, classes: list[str], said: str) -> None:
    for label in (0, [0]):
        listed = {"classes": classes}
        images = [{"img_path": "1.jpg", "gt_label": label}]
        assert said in refused(json.dumps({"metainfo": listed, "data_list": images}), "m.json")
    if all(classes):
        header = ",".join(f'"{name}"' for name in classes)
        for kind in ("single", "multi"):
            assert said in refused(f"path,{header}\n1.jpg,1,0\n2.jpg,0,1\n", kind=kind)


def test_control_characters_in_one_of_several_names_are_refused(here: Path) -> None:
    assert "1 row has a label with a line break or another control character, in line 3" in refused(
        "path,label\n1.jpg,a|b\n2.jpg,a\x1fb|a\n"
    )
    rows = [{"path": "1.jpg", "label": ["a"]}, {"path": "2.jpg", "label": ["a\x1fb"]}]
    assert refused(json.dumps(rows), "t.json") == (
        "t.json, entry 2: label has the name 'a\\x1fb'. Expected a name without control characters."
    )
