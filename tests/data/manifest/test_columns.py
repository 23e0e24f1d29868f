"""The roles of the columns of a table."""

import shlex
from pathlib import Path

import pytest
from image_tables import read, refused

from convnextv2.recipe.columns import read_columns


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


@pytest.mark.parametrize(
    "text",
    [
        "Image File,File Name,label\nhat/1.jpg,x,hat\n",
        "path,label,label\nhat/1.jpg,hat,shoe\n",
        '"what, where",kind of thing\nhat/1.jpg,hat\n',
    ],
)
def test_remedies_name_columns_as_a_shell_and_the_option_take_them(here: Path, text: str) -> None:
    remedy = refused(text).partition("--columns ")[2]
    [option] = shlex.split(remedy)
    table = read(text, columns=read_columns(option))
    assert list(table.paths) == ["hat/1.jpg"] and list(table.labels) == ["hat"]


def test_columns_without_names_are_called_that(here: Path) -> None:
    assert refused("Unnamed: 0,Unnamed: 1\nhat/1.jpg,hat\n").startswith(
        "list.csv: has no column with the paths of images. None of its columns has a name."
    )
