"""Labels and splits of a table, as they are written."""

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_tables import read, refused

from convnextv2.data.manifest import Words, count_words


def test_only_rows_of_the_wanted_splits_are_looked_at(here: Path) -> None:
    asked = []

    def wanted(counts: Any) -> list[str]:
        asked.append(dict(counts))
        return ["Train", "val"]

    text = (
        "path,label,set\nhat/1.jpg,hat,Train\nnope.jpg,,test\nhat/2.jpg,hat, val\n"
        "hat/9.jpg,x,test\nshoe/3.jpg,shoe,Train\n"
    )
    table = read(text, wanted=wanted)
    assert asked == [{"Train": 2, "test": 2, "val": 1}]
    assert list(zip(table.paths, table.labels, table.splits, strict=True)) == [
        ("hat/1.jpg", "hat", "Train"),
        ("hat/2.jpg", "hat", "val"),
        ("shoe/3.jpg", "shoe", "Train"),
    ]
    part = table.of_splits({"Train"})
    assert list(part.paths) == ["hat/1.jpg", "shoe/3.jpg"] and list(part.labels) == ["hat", "shoe"]
    assert "2 of 5 images are not" in refused(text.replace(",,test", ",x,test"))
    assert "1 row has no label, in line 3" in refused(text)


def test_numbers_of_folds_are_kept_as_words_without_decimals(here: Path) -> None:
    table = read("path,label,fold\nhat/1.jpg,hat,0.0\nhat/2.jpg,hat,10.0\n")
    assert list(table.splits) == ["0", "10"]


def test_a_split_can_be_declined(here: Path) -> None:
    table = read("path,label,set\nhat/1.jpg,hat,train\n", columns={"split": ""})
    assert table.splits is None and table.notes == ("list.csv: not used: set.",)


def test_a_column_dataset_is_a_split_only_where_it_names_splits(here: Path) -> None:
    table = read("path,label,data set\nhat/1.jpg,hat,coco\nhat/2.jpg,hat,lvis\n")
    assert table.splits is None
    assert table.notes == (
        "list.csv: the column data set is not taken for a split; it has coco (1), lvis (1).",
    )
    table = read("path,label,Usage\nhat/1.jpg,hat,Training\nhat/2.jpg,hat,PublicTest\n")
    assert list(table.splits) == ["Training", "PublicTest"]
    assert table.notes == ("list.csv: split is read from the column Usage.",)


def test_a_flag_needs_true_and_false(here: Path) -> None:
    table = read("path,label,is_train\nhat/1.jpg,hat,1\nhat/2.jpg,hat,0\n")
    assert list(table.splits) == ["train", "val"]
    table = read("path,label,is_test\nhat/1.jpg,hat,perhaps\n")
    assert table.splits is None and "not taken for a split; it has perhaps (1)" in table.notes[0]


def test_an_image_of_another_split_that_is_trained_on_is_told(here: Path) -> None:
    text = "path,label,split\nhat/1.jpg,,test\nnope.jpg,,test\n" + "./hat/1.jpg,hat,train\n" * 2
    table = read(text, wanted=lambda counts: ["train"])
    assert list(table.paths) == ["hat/1.jpg"]
    assert table.notes == (
        "list.csv: 1 row repeats an image and its label, and is skipped.",
        "list.csv: 1 image is in more than one split (first hat/1.jpg, in test and train): "
        "such images are not new to the model.",
    )


def test_words_are_counted_the_most_frequent_first() -> None:
    words = ["b"] * 2 + ["a"] * 3 + [" "] + [""]
    assert count_words(words) == "a (3), b (2), (empty) (1), ' ' (1)"
    assert count_words(words, max_words=1) == "a (3), 3 more"
    assert count_words({"a": 1_000_000}) == "a (1,000,000)"
    assert count_words(Words(("x", "y"), np.array([1, 1], np.int32))) == "y (2)"


def test_labels_are_one_where_they_look_the_same(here: Path) -> None:
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    table = read(
        f"path,label\nhat/1.jpg,{forms[1]}\nhat/2.jpg,{forms[0]} \nshoe/3.jpg,\u00a0{forms[0]}\n"
    )
    assert list(table.labels) == [forms[0]] * 3 and "and 1 more are one class" in table.notes[0]


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        (["3.0", "12.0"], ["3", "12"]),
        (["3", "12.0"], ["3", "12.0"]),
        (["1", "1.0"], ["1", "1.0"]),
        (["01", "1"], ["01", "1"]),
        (["01.0", "1.0"], ["01.0", "1.0"]),
        (["1e3", "1000"], ["1e3", "1000"]),
        (["3.00", "12.00"], ["3.00", "12.00"]),
        (["3.0", "x"], ["3.0", "x"]),
        (["3.5", "1.0"], ["3.5", "1.0"]),
        (["007", "7"], ["007", "7"]),
        (["-1.0", "0.0"], ["-1", "0"]),
        (["None", "NA"], ["None", "NA"]),
    ],
)
def test_whole_numbers_lose_what_pandas_added(
    here: Path, written: list[str], labels: list[str]
) -> None:
    table = read(f"path,label\nhat/1.jpg,{written[0]}\nhat/2.jpg,{written[1]}\n")
    assert list(table.labels) == labels


def test_the_whole_column_decides_whether_pandas_wrote_it(here: Path) -> None:
    text = "path,label,split\nhat/1.jpg,1.0,train\nhat/2.jpg,{},val\n"
    for other, expected in (("x", "1.0"), ("", "1"), ("nan", "1"), ("2.0", "1")):
        table = read(text.format(other), wanted=lambda counts: ["train"])
        assert list(table.labels) == [expected], other


@pytest.mark.parametrize("column", ["class_name", "Label Name"])
def test_a_column_of_names_is_read_as_it_is(here: Path, column: str) -> None:
    table = read(f"path,{column}\nhat/1.jpg,1.0\nhat/2.jpg,2.0\n")
    assert list(table.labels) == ["1.0", "2.0"]


def test_texts_and_numbers_of_json_differ(here: Path) -> None:
    row = '{{"path": "{}", "label": {}}}\n'
    texts = read(row.format("hat/1.jpg", '"1.0"') + row.format("hat/2.jpg", '"2.0"'), "a.jsonl")
    assert list(texts.labels) == ["1.0", "2.0"]
    numbers = read(row.format("hat/1.jpg", "1.0") + row.format("hat/2.jpg", "2"), "a.jsonl")
    assert list(numbers.labels) == ["1", "2"]
    numbers = read(row.format("hat/1.jpg", "1.5") + row.format("hat/2.jpg", "1e300"), "a.jsonl")
    assert list(numbers.labels) == ["1.5", "1e+300"]


def test_names_that_are_one_number_are_told(here: Path) -> None:
    table = read("path,label\nhat/1.jpg,1\nhat/2.jpg,1.0\nshoe/3.jpg,2\n")
    assert table.notes == (
        "list.csv: the labels 1 and 1.0 are written differently, so they are two, although they "
        "are one number.",
    )
    table = read("path,label\nhat/1.jpg,01\nhat/2.jpg,1\nshoe/3.jpg,1e0\n")
    assert "the labels 01 and 1 and 1 more are written differently" in table.notes[0]
    huge = "9" * 400
    assert not read(f"path,label\nhat/1.jpg,{huge}\nhat/2.jpg,{huge}.0\n").notes


def test_rows_without_a_label_are_told_together(here: Path) -> None:
    text = "path,label\nhat/1.jpg,\n\nhat/2.jpg, nan \nshoe/3.jpg\n,,\n" + "hat/1.jpg,#N/A\n" * 9
    assert refused(text) == (
        "list.csv: 12 rows have no label, first in line 2. Every image needs one class here."
    )


def test_labels_with_control_characters_are_refused(here: Path) -> None:
    expected = "1 row has a label with a line break or another control character, in line 3."
    assert expected in refused('path,label\nhat/1.jpg,"a\nb"\n')
    assert "control character, in line 1" in refused(
        '{"path": "hat/1.jpg", "label": "\\ud800"}\n', "list.jsonl"
    )
