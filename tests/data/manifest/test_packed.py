"""Tables of many rows."""

import os
from pathlib import Path

import pytest
from image_tables import ROWS, read

from convnextv2.data.manifest.columns import Columns
from convnextv2.data.manifest.content import read_content
from convnextv2.data.manifest.labels import clean_labels


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


def test_columns_can_be_indexed_sliced_and_selected(here: Path) -> None:
    table = read("path,label\n" + ROWS)
    assert table.paths[-1] == "shoe/3.jpg" and list(table.paths[1:]) == ["hat/2.jpg", "shoe/3.jpg"]
    assert table.labels[0] == "hat" and "shoe" in table.labels and len(table) == 3
    with pytest.raises(IndexError):
        table.paths[3]
    part = table.take([2, 0])
    assert list(part.paths) == ["shoe/3.jpg", "hat/1.jpg"] and list(part.labels) == ["shoe", "hat"]
    assert table.labels.codes.tolist() == [0, 0, 1] and table.labels.words == ("hat", "shoe")
