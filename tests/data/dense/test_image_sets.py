from pathlib import Path

import pytest

from convnextv2.data.dense.image_sets import listed_names
from convnextv2.errors import DataError


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("a", "a"),
        ("My photo 1", "My photo 1"),
        ('"My photo 1"', "My photo 1"),
        ('"My photo 1"  -1', "My photo 1"),
        ("My photo 1 1", "My photo 1"),
        ("a.JPG", "a"),
        ("a.xml 0", "a"),
        ("v1.5", "v1.5"),
        ("lost  1", "lost"),
    ],
)
def test_a_line_is_read_as_the_name_that_is_there(tmp_path: Path, line: str, name: str) -> None:
    path = tmp_path / "train.txt"
    path.write_text(f"\ufeff{line}\n\n{line}\n", encoding="utf-8")
    assert listed_names(path, {"a", "My photo 1", "v1.5"}.__contains__) == [name]


def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.txt: cannot be read"):
        listed_names(tmp_path / "train.txt", bool)
