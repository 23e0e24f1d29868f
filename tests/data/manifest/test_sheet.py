"""The text of a table: encodings, quotes, JSON, and files that are not tables."""

import json
from pathlib import Path

import pytest
from image_tables import read, refused


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
            "a.json, line 2: is not JSON (Extra data). A file with one object per line",
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
        ("a.csv", "version https://git-lfs.github.com/spec/v1\n", "a.csv: is a Git LFS pointer"),
        ("a.parquet", b"PAR1", "a.parquet: is a pandas table. Save it with .to_csv() there."),
        ("a.csv.gz", b"\x1f\x8b", "a.csv.gz: is compressed or archived. Unpack it."),
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


def test_lines_that_only_look_empty_are_passed_over(here: Path) -> None:
    for empty in ('" ",\n', "\u00a0\n", " ,\t\n"):
        table = read(f"{empty}path,label\n{empty}hat/1.jpg,hat\n")
        assert list(table.paths) == ["hat/1.jpg"] and list(table.labels) == ["hat"]


@pytest.mark.parametrize("mark", ['"', "\r\r"])
def test_a_declared_separator_that_csv_cannot_have_is_not_one(here: Path, mark: str) -> None:
    assert "has no column with the paths of images" in refused(f"sep={mark}\npath,label\n")
