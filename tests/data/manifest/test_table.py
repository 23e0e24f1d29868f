"""Tables of any content. Those of the usual forms are tested in test_data_docs.py."""

import csv
import io
import unicodedata
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from image_tables import IMAGES, read

from convnextv2.errors import DataError

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
def test_any_content_is_read_as_a_table_or_refused_in_one_line(
    here: Path, content: bytes, name: str, labelled: bool
) -> None:
    try:
        table = read(content, name, labelled=labelled)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert set(table.paths) <= set(IMAGES) | {name}
