"""Tables of images. What is said of the usual ones is tested in test_data_docs.py."""

import csv
import io
import json
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from convnextv2.data.manifest import Table, Words, count_words, read_table
from convnextv2.data.manifest.columns import Columns
from convnextv2.data.manifest.content import read_content
from convnextv2.data.manifest.labels import clean_labels
from convnextv2.errors import DataError

IMAGES = ("hat/1.jpg", "hat/2.jpg", "shoe/3.jpg")
ROWS = "hat/1.jpg,hat\nhat/2.jpg,hat\nshoe/3.jpg,shoe\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    place(IMAGES)
    return tmp_path


def place(images: Sequence[str]) -> None:
    for image in images:
        Path(image).parent.mkdir(parents=True, exist_ok=True)
        Path(image).touch()


def read(content: str | bytes, name: str = "list.csv", **options: Any) -> Table:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(name, **options)


def refused(content: str | bytes, name: str = "list.csv", **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(content, name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- columns --------------------------------------------------------------------------------------


def test_columns_can_be_named_or_numbered(here: Path) -> None:
    text = "no,fname,breed name,part\n1,hat/1.jpg,hat,a\n2,shoe/3.jpg,shoe,b\n"
    for columns in (
        {"path": "fname", "label": "Breed_Name", "split": " part"},
        {"path": "2", "label": "3", "split": "4"},
    ):
        table = read(text, columns=columns)
        assert list(table.paths) == ["hat/1.jpg", "shoe/3.jpg"]
        assert list(table.labels) == ["hat", "shoe"] and list(table.splits) == ["a", "b"]
    assert table.notes == (
        "list.csv: path is read from the column fname, label from breed name, split from part; "
        "not used: no.",
    )
    assert refused(text, columns={"path": "file"}) == (
        "list.csv: has no column file for the path. It has the columns no, fname, breed name, part."
    )


def test_numbers_name_the_columns_of_a_table_without_header(here: Path) -> None:
    text = "7,shoe,hat/1.jpg,4\n8,hat,hat/2.jpg,5\n"
    assert "--columns path=3,label=2" in refused(text)
    table = read(text, columns={"path": "3", "label": "2"})
    assert list(table.paths) == ["hat/1.jpg", "hat/2.jpg"] and list(table.labels) == ["shoe", "hat"]
    assert table.notes == (
        "list.csv: has no first line with names; path is read from column 3, "
        "label is read from column 2; not used: 1, 4.",
    )


def test_the_own_names_of_roles_win_over_others(here: Path) -> None:
    table = read("image_id,path,class,label,set,split\nx,hat/1.jpg,a,hat,p,train\n")
    assert (
        list(table.paths) == ["hat/1.jpg"]
        and list(table.labels) == ["hat"]
        and list(table.splits) == ["train"]
    )
    assert table.notes == ("list.csv: not used: image_id, class, set.",)


def test_names_of_classes_win_over_their_numbers(here: Path) -> None:
    table = read("filepaths,class id,class name\nhat/1.jpg,0,hat\n")
    assert list(table.labels) == ["hat"]


def test_one_unknown_column_beside_the_paths_is_the_label(here: Path) -> None:
    table = read(",file,breed\n0,hat/1.jpg,hat\n")
    assert list(table.labels) == ["hat"]
    assert table.notes == ("list.csv: path is read from the column file, label from breed.",)
    assert refused("path\nhat/1.jpg\n") == (
        "list.csv: has no column with the labels. It has the column path. "
        "Name it: --columns label=COLUMN"
    )


def test_without_labels_one_column_is_enough(here: Path) -> None:
    table = read("path\nhat/1.jpg\n", labelled=False)
    assert list(table.paths) == ["hat/1.jpg"] and table.labels is None and table.notes == ()
    table = read("hat/1.jpg\nshoe/3.jpg\n", "list.txt", labelled=False)
    assert list(table.paths) == ["hat/1.jpg", "shoe/3.jpg"]
    table = read("path,label\nhat/1.jpg,\n", labelled=False)
    assert table.labels is None


def test_columns_of_classes_must_be_just_that(here: Path) -> None:
    several = "image,hat,shoe\nhat/1.jpg,1,0\nhat/2.jpg,1,1\nshoe/3.jpg,1,1\n"
    assert refused(several, kind="single") == (
        "list.csv: 2 rows have several classes, or -1, first in line 3. An image has one class "
        "here. Set labels to multi if it may have any number."
    )
    assert "1 row has no label, in line 3" in refused(
        "image,hat,shoe\nhat/1.jpg,1,0\nhat/2.jpg,0,0\n"
    )
    assert refused("image,width,height\nhat/1.jpg,1,640\n") == (
        "list.csv: has no column with the labels, nor one with 0 or 1 for each class: "
        "line 2 has 640 in height. Of the columns width, height, "
        "name the one with the labels: --columns label=COLUMN, or those with 0 and 1: "
        "--columns 'label=COLUMN|COLUMN'"
    )


# --- splits ---------------------------------------------------------------------------------------


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


def test_numbers_of_folds_stay_words(here: Path) -> None:
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
        "list.csv: 1 row repeats an image and its label, and is passed over.",
        "list.csv: 1 image is in more than one split (first hat/1.jpg, in test and train): "
        "such images are not new to the model.",
    )


def test_words_are_counted_the_most_frequent_first() -> None:
    words = ["b"] * 2 + ["a"] * 3 + [" "] + [""]
    assert count_words(words) == "a (3), b (2), (empty) (1), ' ' (1)"
    assert count_words(words, most=1) == "a (3), 3 more"
    assert count_words({"a": 1_000_000}) == "a (1,000,000)"
    assert count_words(Words(("x", "y"), np.array([1, 1], np.int32))) == "y (2)"


# --- labels ---------------------------------------------------------------------------------------


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
        (["3", "12.00"], ["3", "12"]),
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


# --- text -----------------------------------------------------------------------------------------


def test_line_ends_of_every_system_and_empty_lines(here: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        text = end + end.join(["path,label,,", "hat/1.jpg,hat,,", "", ",,,", "shoe/3.jpg,shoe,,"])
        assert list(read(text).paths) == ["hat/1.jpg", "shoe/3.jpg"]


def test_other_encodings_are_recognised_or_refused(here: Path) -> None:
    text = "path,label\nhat/1.jpg,hat\n"
    for encoding in ("utf-16-le", "utf-16-be"):
        table = read(text.encode(encoding))
        assert list(table.labels) == ["hat"]
        assert table.notes == (
            'list.csv: has no byte-order mark and is read as UTF-16. Save it as "CSV UTF-8".',
        )
    assert refused(text.encode() + b"hat/2.jpg,H\x81\xfc\n") == (
        'list.csv, line 3: is neither UTF-8 nor cp1252. Save it as "CSV UTF-8".'
    )
    assert "line 2: is damaged: it begins as, but is not, UTF-8" in refused(
        b"\xef\xbb\xbfpath,label\nhat/1.jpg,\xfc\n"
    )
    assert "is damaged: it begins as, but is not, UTF-16" in refused(text.encode("utf-16") + b"x")
    assert "line 2: holds a zero byte" in refused(text.encode().replace(b"jpg,", b"jpg\0,"))
    line = '{"path": "hat/1.jpg", "label": "Hüte"}\n'
    table = read(line.encode("cp1252"), "list.jsonl")
    assert list(table.labels) == ["Hüte"] and "read as cp1252" in table.notes[0]


def test_an_odd_byte_far_into_a_file_is_found(here: Path) -> None:
    text = b"path,label\n" + b"hat/1.jpg,hat\n" * 100_000 + b"hat/2.jpg,\xe9\n"
    table = read(text)
    assert list(table.labels) == ["hat", "é"] and table.notes[0].startswith(
        "list.csv, line 100002: is not UTF-8"
    )


def test_damaged_quotes_name_their_line(here: Path) -> None:
    assert refused('path,label\nhat/1.jpg,hat\n"hat/2.jpg,a\n' + "shoe/3.jpg,shoe\n" * 9000) == (
        "list.csv, line 3: has a field of more than 131,072 characters. "
        'Close the quote, or write it twice ("") where it belongs to the text.'
    )
    assert "line 2: has text after a closing quote" in refused('path,label\n"hat/1.jpg"x,hat\n')
    assert "line 1: has a quote that is never closed" in refused('path,"label\nhat/1.jpg,hat\n')


@pytest.mark.parametrize(
    "name", ["x" * 5000 + ".jpg", "x" * 5000 + "/1.jpg", "no/" * 2000 + "9.jpg", "hat/1.jpg/"]
)
def test_paths_that_cannot_be_are_missing(here: Path, name: str) -> None:
    message = refused(f"path,label\n{name},hat\n")
    assert message.startswith("list.csv: 1 of 1 images is not in ./: ") and "(line 2)" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "", "a.csv: is empty."),
        ("a.csv", "\n\n,,\n", "a.csv: is empty."),
        ("a.csv", "path,label\n", "a.csv: lists no images."),
        ("a.csv", "path,label\n,hat\n", "a.csv: 1 row has no path, in line 2."),
        ("a.jsonl", "\n", "a.jsonl: is empty."),
        ("a.json", "[]", "a.json: is empty."),
        ("a.json", "{}", "a.json: expected a list of objects such as"),
        (
            "a.json",
            '{"path": 1}\n{"path": 2}',
            "a.json, line 2: is not JSON (Extra data). Objects on a line each are",
        ),
        (
            "a.json",
            '[{"path": "hat/1.jpg", "label": null}]',
            "a.json: 1 row has no label, in entry 1. Every image needs one class here.",
        ),
        (
            "a.json",
            '[{"path": "hat/1.jpg", "label": {}}]',
            "a.json, entry 1: label is an object, {}. Expected one text or",
        ),
        (
            "a.jsonl",
            '{"path": "hat/1.jpg", "label": [["a"]]}',
            'a.jsonl, line 1: label is a list, [["a"]]. Expected one text or',
        ),
        ("a.jsonl", "{path: 1}\n", "a.jsonl, line 1: is not JSON ("),
        ("a.jsonl", "\n[1]\n", "a.jsonl, line 2: expected an object such as"),
        (
            "a.jsonl",
            "[" * 100_000,
            "a.jsonl, line 1: is not JSON (a number or the nesting is too large).",
        ),
        (
            "a.jsonl",
            '{"path": ' + "1" * 5000 + "}",
            "a.jsonl, line 1: is not JSON (a number or the nesting is too large).",
        ),
        ("a.csv", b"PK\x03\x04...", "a.csv: is a spreadsheet or a zip archive."),
        ("a.csv", "<!DOCTYPE html><p>", "a.csv: is a web page."),
        ("a.csv", "version https://git-lfs.github.com/spec/v1\n", "a.csv: is a pointer of Git LFS"),
        ("a.parquet", b"PAR1", "a.parquet: is a table of pandas. Save it with .to_csv() there."),
        ("a.csv.gz", b"\x1f\x8b", "a.csv.gz: is packed. Unpack it."),
        (
            "a.pdf",
            "%PDF",
            "a.pdf: a file, but not a table. Expected a folder, or a file that ends in .csv,",
        ),
    ],
)
def test_files_that_are_no_tables_are_called_what_they_are(
    here: Path, name: str, content: str | bytes, expected: str
) -> None:
    assert refused(content, name).startswith(expected)


def test_json_lists_and_later_keys(here: Path) -> None:
    rows = [
        {"path": "hat/1.jpg", "label": True},
        {"label": 2.5, "path": "hat/2.jpg", "split": "val"},
    ]
    for name, text in (
        ("a.json", json.dumps(rows)),
        ("a.ndjson", "\n".join(map(json.dumps, rows))),
    ):
        table = read(text, name)
        assert list(table.labels) == ["true", "2.5"] and list(table.splits) == ["", "val"]


# --- images ---------------------------------------------------------------------------------------


def test_the_folder_of_the_images_may_be_another(here: Path) -> None:
    text = "path,label\n1.jpg,a\n2.jpg,b\n"
    assert list(read(text, "tables/list.csv", images_dir="hat").paths) == ["hat/1.jpg", "hat/2.jpg"]
    (here / "hat").rename(here / "tables" / "hat")
    assert list(read(text, "tables/list.csv", images_dir="hat").paths) == [
        "tables/hat/1.jpg",
        "tables/hat/2.jpg",
    ]
    assert (
        list(read(text, "tables/list.csv", images_dir=here / "tables" / "hat").paths)[0]
        == f"{here}/tables/hat/1.jpg"
    )
    assert (
        refused(text, images_dir="nope")
        == "images_dir = nope: no such folder, neither here nor beside list.csv."
    )


def test_remedies_name_the_folder_that_has_the_images(here: Path) -> None:
    text = "path,label\nshoe/3.jpg,a\n"
    assert refused(text, "tables/list.csv").endswith(
        f"It is found from another folder: --images_dir {here}"
    )
    place(["sets/2020/pictures/x.jpg"])
    assert refused("path,label\nx.jpg,a\n").endswith("It is there: --images_dir sets/2020/pictures")
    assert "Give the folder on this machine" in refused("path,label\nD:\\photos\\x.png,a\n")


def test_endings_are_added_where_one_file_fits_or_as_set(here: Path) -> None:
    place(["a.jpg", "a.png", "b.v2.JPG", "b.txt"])
    text = "path,label\na,hat\nb.v2,shoe\n"
    assert refused(text).endswith(
        "There are a.jpg and a.png: choose an ending, such as --image_suffix .jpg"
    )
    table = read(text.replace("v2", "v2.JPG"), suffix=".png")
    assert list(table.paths) == ["a.png", "b.v2.JPG"] and table.notes == ()
    assert list(read("path,label\na,hat\n", suffix="jpg").paths) == ["a.jpg"]
    assert list(read("path,label\nb.v2,hat\n").paths) == ["b.v2.JPG"]
    assert refused("path,label\nb.png,hat\n").endswith(
        "Correct the table, or give the folder that paths start from: --images_dir FOLDER"
    )
    assert refused("path,label\na.gif,hat\n").endswith("There is a.jpg: correct the table.")


def test_exact_names_win_over_names_that_are_alike(here: Path) -> None:
    forms = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    place([*forms, "X.jpg", "x.jpg", "hat\\1.jpg"])
    rows = [*forms, "X.jpg", "x.jpg", "hat\\1.jpg"]
    table = read("path,label\n" + "".join(f"{row},a\n" for row in rows))
    assert list(table.paths) == rows and table.notes == ()
    assert "is not in ./" in refused("path,label\nX.JPG,a\n")


def test_folders_of_another_machine_are_left_out_only_where_they_are_not_here(here: Path) -> None:
    table = read("path,label\nC:\\data\\hat\\1.jpg,a\nC:\\data\\shoe\\3.jpg,b\n")
    assert list(table.paths) == ["hat/1.jpg", "shoe/3.jpg"]
    assert table.notes == (
        "list.csv: backslashes in paths are read as /.",
        "list.csv: the folder C:/data/ is not there, so paths are read without it.",
    )
    # hat/ is there, so an image that it lacks is missing even if one of its name lies beside it.
    place(["7.jpg"])
    assert "1 of 1 images is not in" in refused("path,label\nhat/7.jpg,a\n")
    # Another folder that is not there either is not left out as well.
    assert "images is not in ./: other/hat/2.jpg (line 3)" in refused(
        "path,label\ndata/hat/1.jpg,a\nother/hat/2.jpg,b\n"
    )


def test_one_image_by_several_spellings_is_one(here: Path) -> None:
    table = read(
        "path,label\nhat/1.jpg,a\n./hat/../hat//1.jpg,a\nhat\\1.jpg,a\nHAT/1.jpg,a\n"
        f"{here}/shoe/3.jpg,b\n"
    )
    assert list(table.paths) == ["hat/1.jpg", f"{here}/shoe/3.jpg"]
    assert list(table.labels) == ["a", "b"]
    assert "list.csv: 3 rows repeat images and their labels, and are passed over." in table.notes
    assert "1 image has two labels, first hat/1.jpg: a (line 2) and b (line 3)" in refused(
        "path,label\nhat/1.jpg,a\nHAT/1.jpg,b\nhat/2.jpg,b\n"
    )


def test_links_are_images_but_folders_and_broken_links_are_not(here: Path) -> None:
    os.symlink("hat/1.jpg", "link.jpg")
    os.symlink("nowhere.jpg", "broken.jpg")
    os.symlink("loop.jpg", "loop.jpg")
    os.mkdir("folder.jpg")
    assert list(read("path,label\nlink.jpg,a\n").paths) == ["link.jpg"]
    message = refused("path,label\nbroken.jpg,a\nloop.jpg,a\nfolder.jpg,a\nlink.jpg,a\n")
    assert (
        "3 of 4 images are not in ./: broken.jpg (line 2), loop.jpg (line 3), folder.jpg (line 4)."
        in message
    )


# --- many rows ------------------------------------------------------------------------------------


def test_each_folder_is_listed_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scan(folder))
    read("path,label\n" + ROWS * 2 + "./hat/1.jpg,hat\n")
    assert sorted(listed) == ["hat", "shoe"]


def test_many_classes_cost_no_more_than_few() -> None:
    """50,000 classes x 200,000 rows: with a search of all classes for each row that takes hours."""
    rows = ((i + 2, [f"c{i % 50_000}/{i}.jpg", f"c{i % 50_000}"]) for i in range(200_000))
    columns = Columns(True, ("path", "label"), 0, 1, None)
    content = read_content(Path("list.csv"), rows, columns, base=Path(), suffix="")
    labels, notes = clean_labels(Path("list.csv"), content.labels, content.lines, "line")
    assert len(content.paths) == 200_000 and content.paths[199_999] == "c49999/199999.jpg"
    assert labels[50_001] == "c1" and len(labels.words) == 50_000 and notes == ()
    assert content.lines[-1] == 200_001


def test_columns_are_sequences(here: Path) -> None:
    table = read("path,label\n" + ROWS)
    assert table.paths[-1] == "shoe/3.jpg" and list(table.paths[1:]) == ["hat/2.jpg", "shoe/3.jpg"]
    assert table.labels[0] == "hat" and "shoe" in table.labels and len(table) == 3
    with pytest.raises(IndexError):
        table.paths[3]
    part = table.take([2, 0])
    assert list(part.paths) == ["shoe/3.jpg", "hat/1.jpg"] and list(part.labels) == ["shoe", "hat"]
    assert table.labels.codes.tolist() == [0, 0, 1] and table.labels.words == ("hat", "shoe")


# --- any content ----------------------------------------------------------------------------------

LABELS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8).filter(
    lambda text: text.strip() and text.strip().lower() not in ("nan", "#n/a")
)
FIELDS = st.sampled_from(
    [
        *IMAGES,
        "hat",
        "a",
        "1",
        "0",
        "",
        " ",
        "path",
        "label",
        "split",
        "train",
        '"',
        "x.png",
        "é",
        "\0",
    ]
)
ANYTHING = st.lists(st.one_of(FIELDS, st.sampled_from(list(",;\t|\n\r ='{}[]:"))), max_size=40).map(
    "".join
)


@settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(LABELS, min_size=3, max_size=3),
    st.sampled_from(",;\t|"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
@example(['say "hat"', "a,b;c|d", "x|y"], ";", "utf-16")
def test_what_the_csv_module_writes_is_read(
    here: Path, labels: list[str], separator: str, encoding: str
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator)
    writer.writerows([["path", "label"], *zip(IMAGES, labels, strict=True)])
    table = read(buffer.getvalue().encode(encoding))
    assert list(table.paths) == list(IMAGES)
    expected = [unicodedata.normalize("NFC", label).strip() for label in labels]
    if any(".0" in note for note in table.notes):
        expected = [str(int(float(label))) for label in expected]
    assert list(table.labels) == expected


@settings(
    max_examples=300,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.one_of(
        ANYTHING, ANYTHING.map("path,label\n".__add__), ANYTHING.map('{"path": '.__add__)
    ).map(str.encode)
    | st.binary(max_size=60),
    st.sampled_from(["list.csv", "list.tsv", "list.txt", "list.jsonl", "list.json"]),
    st.booleans(),
)
def test_any_content_is_a_table_or_one_line(
    here: Path, content: bytes, name: str, labelled: bool
) -> None:
    try:
        table = read(content, name, labelled=labelled)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert set(table.paths) <= set(IMAGES) | {name}
