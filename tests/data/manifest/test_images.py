"""The image files that the paths in a table mean."""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from image_tables import place, read, refused


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
    assert refused("path,label\nx.jpg,a\n").endswith("Found with: --images_dir sets/2020/pictures")
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
        "list.csv: the folder C:/data/ does not exist, so paths are read without it.",
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
    assert "list.csv: 3 rows repeat images and their labels, and are skipped." in table.notes
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


@pytest.mark.parametrize("start", ["~\0", "~\ud800", "~nobody-is-called-this"])
def test_a_home_that_cannot_be_is_a_folder_that_is_not_there(here: Path, start: str) -> None:
    table = read(json.dumps([{"path": f"{start}/hat/1.jpg", "label": "a"}]), "list.json")
    assert list(table.paths) == ["hat/1.jpg"] and "does not exist" in table.notes[0]
    message = refused(json.dumps([{"path": f"{start}/9.jpg", "label": "a"}]), "list.json")
    assert message.startswith("list.json: 1 of 1 images is not in ./")


def test_the_folder_of_the_images_may_name_a_user_who_is_unknown(here: Path) -> None:
    assert refused("path,label\n1.jpg,a\n", images_dir="~nobody-is-called-this/hat") == (
        "images_dir = ~nobody-is-called-this/hat: no such folder, neither here nor beside list.csv."
    )


def test_remedies_can_be_typed_in_a_shell(here: Path) -> None:
    place(["my sets/pictures/x.jpg"])
    assert refused("path,label\nx.jpg,a\n").endswith("Found with: --images_dir 'my sets/pictures'")
