import json
import random
from pathlib import Path

import pytest

from convnextv2.data.imagenet import categories, imagenet_rows, synsets
from convnextv2.errors import DataError
from convnextv2.evaluation.classes import RowMatch, match_rows, natural_key, pairs, read_class_names

NUMBERED = sorted(
    f"class{i}" for i in range(1, 13)
)  # class1, class10, class11, class12, class2, ...


def rows(classes, names=(), count=None, *, format="official", order="auto"):
    found = match_rows(classes, names, count or len(classes), format=format, order=order)
    assert isinstance(found, RowMatch), found
    return list(found.rows)


def reason(classes, names=(), count=None, *, format="official", order="auto") -> str:
    found = match_rows(classes, names, count or len(classes), format=format, order=order)
    assert isinstance(found, str), found
    return found


def test_rows_without_names_have_the_order_of_the_tool_that_trained_them() -> None:
    assert rows(NUMBERED, format="timm") == [int(name[5:]) - 1 for name in NUMBERED]
    for format in ("official", "mmpretrain", "mindcv", "transformers"):
        assert rows(NUMBERED, format=format) == list(range(12))
    assert rows(NUMBERED, format="official", order="natural") == rows(NUMBERED, format="timm")
    assert rows(NUMBERED, format="timm", order="text") == list(range(12))


def test_the_natural_order_is_timms() -> None:
    timm = pytest.importorskip("timm.data.readers.reader_image_folder")
    draw = random.Random(0)
    names = ["".join(draw.choices("aB1 0_2é", k=6)) for _ in range(200)]
    assert [natural_key(name) for name in names] == [timm.natural_key(name) for name in names]


@pytest.mark.parametrize("format", ["timm", "official", "transformers"])
def test_folders_that_are_the_numbers_of_the_rows_are_those_rows(format: str) -> None:
    plain = [str(i) for i in range(12)]
    assert rows(sorted(plain), format=format) == [int(name) for name in sorted(plain)]
    padded = [f"{i:03}" for i in range(12)]
    assert rows(padded, [f"label {i}" for i in range(12)], format=format) == list(range(12))
    # ImageNet-V2 names its folders like this.
    assert rows(sorted(str(i) for i in range(1000)), list(categories()), format=format)[1:3] == [
        1,
        10,
    ]


def test_names_go_before_numbers() -> None:
    names = sorted(str(i) for i in range(12))  # a head that was trained on the folders as text
    assert rows(names, names, format="convnextv2") == list(range(12))
    assert rows(["2", "10"], names, 12, format="convnextv2") == [
        names.index("2"),
        names.index("10"),
    ]


def test_rows_are_found_by_name_in_any_form_of_unicode() -> None:
    assert rows(["hat", "caf\u00e9"], ["cafe\u0301", "shoe", "hat "], 3) == [2, 0]
    assert rows(["hat", "scarf"], ["shoe", "hat", "cap"], 3) == [1, None]
    assert rows(["crane", "hat"], ["crane", "crane", "hat"], 3) == [None, 2]  # which crane?


def test_imagenets_ids_and_names_find_their_rows_in_a_thousand() -> None:
    assert rows(["n02102040", "n01440764"], count=1000) == [
        217,
        0,
    ]  # Imagenette's, by ImageNet's list
    assert rows(["english springer", "tench", "cassette_player"], count=1000) == [217, 0, 482]
    theirs = [f"{name}, something else" for name in categories()]
    assert rows(["n02102040"], theirs, 1000, format="transformers") == [217]
    assert imagenet_rows(["crane (n02012849)", "crane (n03126707)"]) == [134, 517]
    assert imagenet_rows(["n02102040", "hat"]) is imagenet_rows(["tench", "Tench"]) is None
    assert len(synsets()) == len(set(synsets())) == 1000 and list(synsets()) == sorted(synsets())


def test_what_would_be_a_guess_is_asked_about() -> None:
    assert "10 rows without names" in reason(["hat", "shoe"], count=10)
    assert "1000 rows without names" in reason(["hat", "shoe"], count=1000)
    assert "names its classes differently" in reason(["hat", "shoe"], ["cat", "dog"])
    assert "names its classes differently" in reason(["hat", "shoe"], list(categories()), 1000)
    assert "numbers of its rows as well" in reason(["0", "1", "2"], ["1", "2", "3"])
    assert "10 rows without names" in reason(["1", "5", "9"], count=10)  # from 0, or from 1?
    assert "numbers from 0 to 9" in reason(["1", "10"], count=10, order="number")
    assert "the data have 2 classes" in reason(["1", "10"], count=10, order="text")
    assert rows(["1", "5", "9"], count=10, order="number") == [1, 5, 9]


def test_names_that_are_only_the_numbers_of_the_rows_are_no_names() -> None:
    assert rows(["hat", "shoe"], ["0", "1"]) == [0, 1]
    assert rows(NUMBERED, [str(i) for i in range(12)], format="timm")[1] == 9


@pytest.mark.parametrize(
    "text",
    [
        "shoe\r\n hat \n\ncap\n",
        "\ufeffshoe\nhat\ncap",
        json.dumps(["shoe", "hat", "cap"]),
        json.dumps({"0": "shoe", "1": "hat", "2": "cap"}),
    ],
)
def test_a_file_may_name_the_rows(tmp_path: Path, text: str) -> None:
    file = tmp_path / "names.txt"
    file.write_text(text, encoding="utf-8")
    assert read_class_names(file) == ["shoe", "hat", "cap"]
    assert rows(["cap", "hat"], ["x", "y", "z"], 3, order=str(file)) == [2, 1]
    with pytest.raises(DataError, match="names 3 classes, the weights have 4"):
        match_rows(["cap"], [], 4, format="timm", order=str(file))


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"a": "hat"}', None, b"\xff\xfe\xff"])
def test_a_file_that_names_no_rows_is_one_line(tmp_path: Path, text) -> None:
    file = tmp_path / "names.txt"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as error:
        read_class_names(file)
    assert "class_order" in str(error.value) and "\n" not in str(error.value)


def test_the_first_pairs_are_shown() -> None:
    match = RowMatch((0, 9, 10, 11), "x")
    assert pairs(["a", "b", "c", "d"], match) == "a = 0, b = 9, c = 10, ..."
