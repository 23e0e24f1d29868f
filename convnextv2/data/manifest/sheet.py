"""Opens tables of all formats, with the same view of them: a header, and rows of texts."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from convnextv2.data.manifest.packed import quoted
from convnextv2.errors import DataError

Row = tuple[int, Sequence[str]]
"""The number of a line, from 1, and its fields."""

LIST = "\x1f"
"""The character that begins the text for a JSON list, and separates its values: the unit separator
of ASCII. It cannot be part of a name, because names with control characters are refused."""

FORMATS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json")

_AS_CSV = 'Save it as "CSV UTF-8"'
_OTHERS = {
    (".xlsx", ".xls", ".xlsm", ".ods"): f"a spreadsheet. {_AS_CSV} there.",
    (".parquet", ".feather", ".pkl", ".pickle"): "a pandas table. Save it with .to_csv() there.",
    (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".tar"): "compressed or archived. Unpack it.",
}
_FIRST_BYTES = {
    b"PK\x03\x04": f"a spreadsheet or a zip archive. {_AS_CSV}, or unpack it.",
    b"\xd0\xcf\x11\xe0": f"an Excel spreadsheet. {_AS_CSV} there.",
    b"\x1f\x8b": "compressed with gzip. Unpack it.",
    b"PAR1": "a Parquet file. Save it with .to_csv() in pandas.",
    b"version https://git-lfs": "a Git LFS pointer, not the table. Fetch it with git lfs pull.",
    b"<!doctype html": "a web page. Download the table itself.",
    b"<html": "a web page. Download the table itself.",
}
_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_BLANKS = " "
_EMPTY = re.compile(r'[\s",;|]*')
"""Matches a line without any text, which has only blanks, quotes and separators."""


@dataclass(frozen=True)
class Sheet:
    """An opened table, before the roles of its columns are known.

    Attributes:
        first: The fields of the first line that is not empty, or the keys of the objects.
        first_line: The number of this line, from 1.
        unit: The unit of the numbers of rows: "line", or "entry" of a list.
        may_lack_header: Whether `first` may be a row instead of a header.
        rows: Yields the rows after the first line. Arguments: the indices of the columns that are
            used; and the indices of those that may have lists, see `LIST`. All other values of the
            used columns must be texts or numbers.
        separated_by: "commas", "blanks", ...; "" for a single column or for objects with keys.
        notes: Messages about guesses.
        classes: The names of all classes in order, if the file lists them.
        has_types: Whether texts and numbers differ in the file, as in JSON.
    """

    first: tuple[str, ...]
    first_line: int
    may_lack_header: bool
    rows: Callable[[Collection[int], Collection[int]], Iterator[Row]]
    separated_by: str = ""
    unit: str = "line"
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    has_types: bool = False


def open_sheet(path: Path, rate: Callable[[Sequence[str]], int]) -> Sheet:
    """Open a table.

    Args:
        path: A file with one of the endings in `FORMATS`.
        rate: Returns how many fields of a first line are recognised. The separator with the highest
            number is used.

    Returns:
        The table. Its rows are read later.

    Raises:
        DataError: The file is empty or damaged, or has another format.
    """
    kind = path.suffix.lower()
    for endings, what in _OTHERS.items():
        if kind in endings:
            raise DataError(f"{path}: is {what}")
    if kind not in FORMATS:
        raise DataError(
            f"{path}: a file, but not a table. Expected a folder, or a file that ends in "
            f"{', '.join(FORMATS)}."
        )
    encoding, notes = _encoding(path)
    if kind in (".csv", ".tsv", ".txt"):
        return _open_text(path, encoding, notes, rate)
    return _open_json(path, encoding, notes, is_lines=kind != ".json")


# --- bytes ----------------------------------------------------------------------------------------


def _encoding(path: Path) -> tuple[str, tuple[str, ...]]:
    """Detect the encoding from the byte-order mark, or by decoding the whole file."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
        for start, what in _FIRST_BYTES.items():
            if head.lower().startswith(start.lower()):
                raise DataError(f"{path}: is {what}")
        marked = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)
        guessed = None if marked else _utf16_without_mark(head)
        encoding = marked or guessed or "utf-8"
        line = _first_undecodable(path, encoding)
        if line and encoding == "utf-8" and not _first_undecodable(path, "cp1252"):
            what = "is not UTF-8, so the table is read as cp1252"
            return "cp1252", (f"{path}, line {line}: {what}. {_AS_CSV} if names look wrong.",)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}).") from None
    if line:
        name = {"utf-8": "UTF-8 nor cp1252", "utf-8-sig": "UTF-8"}.get(encoding, encoding.upper())
        what = "is neither" if encoding == "utf-8" else "is damaged: it begins as, but is not,"
        raise DataError(f"{path}, line {line}: {what} {name}. {_AS_CSV}.")
    if guessed:
        return guessed, (f"{path}: has no byte-order mark and is read as UTF-16. {_AS_CSV}.",)
    return encoding, ()


def _utf16_without_mark(head: bytes) -> str | None:
    """Detect Western text in UTF-16, in which every second byte is zero."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if len(head) < 8 or min(even, odd) > 0 or max(even, odd) < 0.4 * len(head):
        return None
    return "utf-16-le" if odd else "utf-16-be"


def _first_undecodable(path: Path, encoding: str) -> int:
    """Return the number of the first line that cannot be decoded, or 0.

    Raises:
        DataError: The text contains a zero character.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with open(path, "rb") as file:
        while True:
            block = file.read(1 << 20)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                return line + error.object[: error.start].count(b"\n")
            if "\0" in text:
                line += text[: text.index("\0")].count("\n")
                what = "holds a zero byte, so the file is damaged or is not text"
                raise DataError(f"{path}, line {line}: {what}. {_AS_CSV}.")
            line += text.count("\n")
            if not block:
                return 0


# --- lines ----------------------------------------------------------------------------------------


def _open_text(
    path: Path, encoding: str, notes: tuple[str, ...], rate: Callable[[Sequence[str]], int]
) -> Sheet:
    """Open a table whose rows are lines."""
    declared, first = "", ""
    with open(path, encoding=encoding) as file:
        lines = (line.rstrip("\n") for line in file if not _EMPTY.fullmatch(line))
        first = next(lines, "")
        if said := re.fullmatch(r"sep=([^\"\r])\s*", first, re.IGNORECASE):
            declared, first = said[1], next(lines, "")
    if not first:
        raise DataError(f"{path}: is empty.")
    separator = declared or _separator(first, rate)
    has_names = rate(_split(first, separator)) > 1
    is_list = separator == _BLANKS and not has_names

    def rows() -> Iterator[Row]:
        with open(path, encoding=encoding, newline="") as file:
            if separator == _BLANKS:
                found = _blank_separated(file, is_list)
            else:
                found = _separated(path, file, separator)
            if declared:
                next(found)
            yield from found

    every = rows()
    line, fields = next(every)
    every.close()  # type: ignore[attr-defined]

    def after_first(used: Collection[int], lists: Collection[int]) -> Iterator[Row]:
        found = rows()
        next(found)
        return found

    words = {_BLANKS: "blanks", **_SEPARATORS}.get(separator, quoted(separator))
    several = len(fields) > 1
    separated_by = words if several else ""
    return Sheet(tuple(fields), line, True, after_first, separated_by, notes=notes)


def _separator(first: str, rate: Callable[[Sequence[str]], int]) -> str:
    """Return the separator with the most recognised fields; among equals, with the most fields."""
    ranked = []
    for separator in _SEPARATORS:
        fields = _split(first, separator)
        ranked.append((rate(fields), len(fields), separator))
    best = max(ranked, key=lambda item: item[:2])
    if best[1] == 1 and not best[0] and len(first.split()) > 1:
        return _BLANKS
    return best[2]


def _split(line: str, separator: str) -> list[str]:
    if separator == _BLANKS:
        return line.split()
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return [line]


def _separated(path: Path, file: TextIO, separator: str) -> Iterator[Row]:
    """Yield the rows of CSV.

    Raises:
        DataError: A quote is not closed, so that it would contain the rows that follow.
    """
    reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
    line = 0
    try:
        for fields in reader:
            line = reader.line_num
            if any(map(str.strip, fields)):
                yield line, fields
    except csv.Error as error:
        if "limit" in str(error):
            what = f"has a field of more than {csv.field_size_limit():,} characters"
        elif "end of data" in str(error):
            what = "has a quote that is never closed"
        else:
            what = "has text after a closing quote"
        remedy = 'Close the quote, or write it twice ("") where it belongs to the text.'
        raise DataError(f"{path}, line {line + 1}: {what}. {remedy}") from None


def _blank_separated(file: TextIO, is_list: bool) -> Iterator[Row]:
    """Yield rows whose fields are separated by blanks.

    In a list, a row has two fields, and the first may have blanks.
    """
    for number, line in enumerate(file, start=1):
        if fields := line.rsplit(maxsplit=1) if is_list else line.split():
            yield number, fields


# --- objects --------------------------------------------------------------------------------------


def _open_json(path: Path, encoding: str, notes: tuple[str, ...], *, is_lines: bool) -> Sheet:
    """Open a table whose rows are JSON objects."""
    objects = _object_lines if is_lines else _object_list
    keys: dict[str, None] = {}
    first_line = 0
    classes: list[str] = []
    for line, row in objects(path, encoding, classes):
        first_line = first_line or line
        keys.update(dict.fromkeys(row))
    if not first_line:
        raise DataError(f"{path}: is empty.")
    header = tuple(keys)
    unit = "line" if is_lines else "entry"

    def rows(used: Collection[int], lists: Collection[int]) -> Iterator[Row]:
        for line, row in objects(path, encoding, []):
            fields = []
            for i, key in enumerate(header):
                value = row.get(key) if i in used else None
                if i in lists and isinstance(value, list) and all(map(_is_plain, value)):
                    names = list(map(_as_text, value))
                    if broken := next((name for name in names if LIST in name), ""):
                        what = f"{quoted(key)} has the name {quoted(broken)}"
                        remedy = "Expected a name without control characters."
                        raise DataError(f"{path}, {unit} {line}: {what}. {remedy}")
                    fields.append(LIST + LIST.join(names))
                    continue
                if isinstance(value, list | dict):
                    kind = "a list" if isinstance(value, list) else "an object"
                    what = (
                        f"{quoted(key)} is {kind}, {quoted(json.dumps(value, ensure_ascii=False))}"
                    )
                    raise DataError(f"{path}, {unit} {line}: {what}. Expected one text or number.")
                fields.append(_as_text(value))
            yield line, fields

    return Sheet(
        header,
        first_line,
        False,
        rows,
        unit=unit,
        notes=notes,
        classes=tuple(classes),
        has_types=True,
    )


_EXACT = 2**53
"""From here on, float64 skips whole numbers."""


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        value = int(value)  # 3.0 is the same number as 3, and pandas writes either
    return "" if value is None or value != value else json.dumps(value)  # NaN is not text


def _object_lines(
    path: Path, encoding: str, classes: list[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects on the lines of a file. `classes` is not used."""
    with open(path, encoding=encoding) as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                what = getattr(error, "msg", "a number or the nesting is too large")
                raise DataError(f"{path}, line {number}: is not JSON ({what}).") from None
            if not isinstance(row, dict):
                example = '{"path": "a.jpg", "label": "cat"}'
                raise DataError(f"{path}, line {number}: expected an object such as {example}.")
            yield number, row


def _object_list(
    path: Path, encoding: str, classes: list[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of one list, numbered from 1.

    Args:
        path: The file.
        encoding: The encoding of the file.
        classes: The classes that the file lists, as annotations of mmpretrain do, are appended to
            this list.
    """
    content = _json(path, encoding)
    if isinstance(content, dict) and isinstance(content.get("data_list"), list):
        classes += _classes_in(content)
        content = content["data_list"]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        example = '[{"path": "a.jpg", "label": "cat"}, ...]'
        raise DataError(f"{path}: expected a list of objects such as {example}.")
    for number, row in enumerate(content, start=1):
        yield number, _with_names(row, classes, f"{path}, entry {number}") if classes else row


def _classes_in(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the classes in the metainfo of an annotation file of mmpretrain."""
    metainfo = content.get("metainfo", content.get("meta_info"))
    classes = metainfo.get("classes") if isinstance(metainfo, dict) else None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return ()
    return tuple(classes)


def _with_names(row: Mapping[str, Any], classes: Sequence[str], where: str) -> dict[str, Any]:
    """Replace class indices in the gt_label of an entry by the names of the classes."""

    def name(number: Any) -> Any:
        if isinstance(number, bool) or not isinstance(number, int):
            return number
        if not 0 <= number < len(classes):
            raise DataError(
                f"{where}: gt_label = {number}: expected 0 to {len(classes) - 1}, since metainfo "
                f"lists {len(classes)} classes."
            )
        return classes[number]

    label = row.get("gt_label")
    named = list(map(name, label)) if isinstance(label, list) else name(label)
    return {**row, "gt_label": named} if "gt_label" in row else dict(row)


def _json(path: Path, encoding: str) -> Any:
    """Read a JSON file."""
    try:
        with open(path, encoding=encoding) as file:
            return json.load(file)
    except json.JSONDecodeError as error:
        what = f"is not JSON ({error.msg}). A file with one object per line must end in .jsonl."
        raise DataError(f"{path}, line {error.lineno}: {what}") from None
    except (ValueError, RecursionError):
        what = "is not JSON (a number or the nesting is too large)"
        raise DataError(f"{path}: {what}.") from None
