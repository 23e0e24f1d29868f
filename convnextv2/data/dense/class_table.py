"""Class tables: the names of classes, and the value or colour of each in label maps.

These formats are read:

- CSV or TSV with a header: a column of names, and a column of ids, of colours, or both
- CSV or TSV without one: `id,name`, `name` or `name,red,green,blue`
- text: one name per line, `id name` or `id: name`; `red green blue name` (CamVid);
  `name:red,green,blue:...:...` (CVAT)
- JSON: a list of names, of objects with id, name and color, or an object from id to name, or from
  name to id or colour
- `obj_class_to_machine_color.json` of Supervisely, where 0 is the background

If a table has no ids, the first class is 0.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from convnextv2.data.listing import visible_folders
from convnextv2.data.split_names import kind_of
from convnextv2.errors import DataError
from convnextv2.files import parse_json

Colour = tuple[int, int, int]

USUAL_NAMES = (
    *("classes.csv", "classes.tsv", "classes.txt", "classes.json", "labels.txt", "labels.csv"),
    *("labelmap.txt", "label_colors.txt", "class_dict.csv", "id2label.json"),
    *("objectInfo150.csv", "objectInfo150.txt", "class_names.txt", "names.txt"),
    *("_classes.csv", "obj_class_to_machine_color.json"),
)
"""The usual names of class tables. Letter case makes no difference."""

_OF_SPLIT = "_classes.csv"
_OF_SUPERVISELY = "obj_class_to_machine_color.json"
_ID = ("id", "idx", "index", "value", "class_id", "label_id", "classid", "pixel_value", "pixel")
_NAME = ("name", "class", "class_name", "label", "category", "names", "label_name")
_COLOUR = ("color", "colour", "rgb", "hex", "color_rgb")
_BANDS = (("r", "red"), ("g", "green"), ("b", "blue"))
MAX_CLASSES = 32_767
"""The largest number of classes that label maps and annotations may have."""
_MAX_VALUE = 0xFFFFFF
"""The largest value that a label map can hold: a colour of three bytes."""


class Entry(NamedTuple):
    """A class in a table."""

    name: str
    id: int | None = None
    colour: Colour | None = None


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set, in the order of the rows of the head.

    Attributes:
        names: The name of each class.
        ids: The value of each class in label maps.
        colours: The colour of each class in label maps; empty if the table has none.
        has_ids: Whether the table has ids. Otherwise the ids count from 0.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    colours: tuple[Colour, ...] = ()
    has_ids: bool = True


def has_pixel_values(folder: Path) -> bool:
    """Return whether a folder has the class table of Roboflow's exports of label maps.

    Its exports of images with several labels have a file of the same name.
    """
    try:
        with open(folder / _OF_SPLIT, encoding="utf-8-sig", errors="replace") as file:
            return "pixel value" in file.readline().casefold()
    except OSError:
        return False


def find_class_table(root: Path) -> Path | None:
    """Find the class table in the folder of a data set; return None if there is none.

    Roboflow writes the same table into the folder of each split, and Supervisely writes it into the
    folder of the project, which has one folder for each data set.

    Raises:
        DataError: There are several class tables.
    """
    files = {path.name.casefold(): path for path in sorted(root.iterdir()) if path.is_file()}
    found = [files[name.casefold()] for name in USUAL_NAMES if name.casefold() in files]
    stems = {path.stem.casefold() for path in found}
    if len(stems) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{root}: has several class tables ({names}). Name one with classes.")
    if found:
        return found[0]
    of_project = root.resolve().parent / _OF_SUPERVISELY
    return of_project if of_project.is_file() else _table_of_splits(root)


def _table_of_splits(root: Path) -> Path | None:
    folders = sorted(
        visible_folders(root)[0].values(), key=lambda each: kind_of(each.name) != "train"
    )
    found = [folder / _OF_SPLIT for folder in folders if has_pixel_values(folder)]
    for other in found[1:]:
        if read_class_table(other) != read_class_table(found[0]):
            raise DataError(
                f"{found[0]} and {other}: have different classes. Name one with classes."
            )
    return found[0] if found else None


def read_class_table(path: Path) -> ClassTable:
    """Read a class table.

    Raises:
        DataError: The table cannot be read, or is not consistent.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise DataError(f"{path}: the class table cannot be read ({why}).") from None
    if path.suffix.lower() == ".json":
        entries = _from_json(text, path)
        if path.name.casefold() == _OF_SUPERVISELY:
            entries = _by_grey_value(entries)
    elif path.suffix.lower() in (".csv", ".tsv"):
        entries = _from_csv(text, path)
    else:
        entries = _from_lines(text, path)
    return _checked(entries, path)


def _checked(entries: Sequence[Entry], path: Path) -> ClassTable:
    """Check that the classes of a table are consistent, and sort them by id.

    Classes without ids are numbered in the order of the table.

    Raises:
        DataError: The classes contradict each other, or cannot be used.
    """
    if not entries:
        raise DataError(f"{path}: lists no class.")
    if len(entries) > MAX_CLASSES:
        raise DataError(f"{path}: lists {len(entries)} classes, expected at most {MAX_CLASSES}.")
    has_ids = _have_all(entries, "id", path)
    if has_ids:
        entries = sorted(entries, key=lambda entry: entry.id or 0)
        ids = tuple(entry.id or 0 for entry in entries)
    else:
        ids = tuple(range(len(entries)))
    has_colours = _have_all(entries, "colour", path)
    colours = tuple(entry.colour for entry in entries if entry.colour is not None)
    names = tuple(entry.name for entry in entries)
    _check_distinct("id", ids, names, path)
    if has_colours:
        _check_distinct("colour", colours, names, path)
    _check_distinct("name", names, names, path)
    if min(ids) < 0:
        raise DataError(f"{path}: the id {min(ids)} is negative, which no label map can hold.")
    for name in names:
        if not name or not name.isprintable():
            raise DataError(f"{path}: the name {name!r} is empty or cannot be printed.")
    return ClassTable(names, ids, colours, has_ids)


def _have_all(entries: Sequence[Entry], what: Literal["id", "colour"], path: Path) -> bool:
    """Return whether all classes have an id, or a colour.

    Raises:
        DataError: Only some of them have one.
    """
    without = [entry.name for entry in entries if getattr(entry, what) is None]
    if without and len(without) < len(entries):
        raise DataError(
            f"{path}: class {without[0]!r} has no {what}, but others have. Give one to each."
        )
    return not without


def _check_distinct(what: str, values: Sequence[Any], names: Sequence[str], path: Path) -> None:
    """Raise DataError if two classes have the same id, colour or name."""
    owners: dict[Any, str] = {}
    for name, value in zip(names, values, strict=True):
        if value in owners:
            raise DataError(
                f"{path}: the {what} {value} stands for two classes ({owners[value]!r} and "
                f"{name!r})."
            )
        owners[value] = name


def _from_csv(text: str, path: Path) -> list[Entry]:
    first = text.split("\n", 1)[0]
    separator = max("\t;,", key=first.count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    try:
        stripped = [[field.strip() for field in row] for row in reader]
    except csv.Error as error:
        raise DataError(
            f"{path}: cannot be read as a table ({error}). Close each quote, or write it twice "
            '("") where it belongs to a name.'
        ) from None
    rows = [row for row in stripped if any(row)]
    if not rows:
        return []
    header = [field.casefold().replace(" ", "_").lstrip("#") for field in rows[0]]
    if any(field in _NAME for field in header):
        return [_from_columns(header, row, path) for row in rows[1:]]
    return [_from_fields(row, path) for row in rows]


def _from_columns(header: Sequence[str], row: Sequence[str], path: Path) -> Entry:
    def value(names: Sequence[str]) -> str | None:
        at = next((header.index(name) for name in names if name in header), None)
        return row[at] if at is not None and at < len(row) else None

    number, colour = value(_ID), value(_COLOUR)
    name = value(_NAME) or ""
    if number is None and not name:
        raise DataError(f"{path}: the line {','.join(row)!r} has no name.")
    bands = [value(names) for names in _BANDS]
    if colour is None and all(bands):
        colour = " ".join(str(band) for band in bands)
    return Entry(name, _id(number, path), _colour(colour, path))


def _from_fields(row: Sequence[str], path: Path) -> Entry:
    numbers = [field.isdecimal() for field in row]
    if len(row) == 1:
        return Entry(row[0])
    if len(row) == 2 and numbers == [True, False]:
        return Entry(row[1], _id(row[0], path))
    if len(row) == 2 and numbers == [False, True]:
        return Entry(row[0], _id(row[1], path))
    if len(row) == 4 and numbers == [False, True, True, True]:
        return Entry(row[0], None, _colour(" ".join(row[1:]), path))
    if len(row) == 5 and numbers == [True, False, True, True, True]:
        return Entry(row[1], _id(row[0], path), _colour(" ".join(row[2:]), path))
    raise DataError(
        f"{path}: the line {','.join(row)!r} cannot be understood. Expected a header with id and "
        "name, or lines of id,name."
    )


_CVAT = re.compile(r"([^:]+):(\d+,\d+,\d+|):[^:]*:[^:]*")
_CAMVID = re.compile(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(\D.*)")
_NUMBERED = re.compile(r"(\d+)\s*[:,\t ]\s*(\D.*)")


def _from_lines(text: str, path: Path) -> list[Entry]:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if lines and "\t" in lines[0] and re.search(r"\bname\b", lines[0], re.IGNORECASE):
        return _from_csv("\n".join(lines), path)
    entries = []
    for line in lines:
        if found := _CVAT.fullmatch(line):
            entries.append(Entry(found[1].strip(), None, _colour(found[2] or None, path)))
        elif found := _CAMVID.fullmatch(line):
            entries.append(
                Entry(found[4].strip(), None, _colour(" ".join(found.groups()[:3]), path))
            )
        elif found := _NUMBERED.fullmatch(line):
            entries.append(Entry(found[2].strip(), _id(found[1], path)))
        else:
            entries.append(Entry(line))
    return entries


def _from_json(text: str, path: Path) -> list[Entry]:
    try:
        parse_json(text)  # checks the number of lists and objects
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}).") from None
    if isinstance(content, dict):
        for key in ("classes", "categories", "labels", "id2label", "names"):
            if isinstance(content.get(key), list | dict):
                content = content[key]
                break
    if isinstance(content, dict):
        return [_from_pair(key, value, path) for key, value in content.items()]
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of classes, or an object from id to name.")
    return [_from_item(item, path) for item in content]


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of JSON.

    Raises:
        ValueError: A key is repeated. Python's parser would keep only the last value.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is repeated")
    return found


def _from_pair(key: str, value: Any, path: Path) -> Entry:
    if isinstance(value, str):
        return Entry(value, _id(key, path))
    if isinstance(value, int) and not isinstance(value, bool):
        return Entry(key, _id(value, path))
    if isinstance(value, list):
        return Entry(key, None, _colour(" ".join(map(str, value)), path))
    raise DataError(f"{path}: the entry {key!r} cannot be understood. Expected id: name.")


def _by_grey_value(entries: Sequence[Entry]) -> list[Entry]:
    """Take the colours of Supervisely, such as (2, 2, 2), as the ids of classes.

    Its tables do not list the background, whose value is 0.
    """
    if not all(entry.colour and len(set(entry.colour)) == 1 for entry in entries):
        return list(entries)
    classes = [Entry(entry.name, entry.colour[0]) for entry in entries if entry.colour]
    if all(entry.id for entry in classes):
        names = {entry.name for entry in classes}
        name = next((name for name in ("background", "unlabelled") if name not in names), "0")
        classes.insert(0, Entry(name, 0))
    return classes


def _from_item(item: Any, path: Path) -> Entry:
    if isinstance(item, str):
        return Entry(item)
    if isinstance(item, dict):
        keys = {str(key).casefold(): value for key, value in item.items()}
        name = next((keys[key] for key in _NAME if key in keys), None)
        number = next((keys[key] for key in (*_ID, "trainid") if key in keys), None)
        colour = next((keys[key] for key in _COLOUR if key in keys), None)
        if isinstance(name, str):
            shown = " ".join(map(str, colour)) if isinstance(colour, list) else colour
            return Entry(name, _id(number, path), _colour(shown, path))
    raise DataError(f"{path}: the entry {str(item)[:80]!r} cannot be understood.")


def _id(value: object, path: Path) -> int | None:
    if value is None or value == "":
        return None
    text = str(value)
    if not re.fullmatch(r"-?\d+", text):
        raise DataError(f"{path}: the id {value!r} is not a whole number.")
    if len(text.lstrip("-0")) > 8 or int(text) > _MAX_VALUE:
        raise DataError(
            f"{path}: the id {text[:40]} is too large for a label map, expected at most "
            f"{_MAX_VALUE:,}."
        )
    return int(text)


def _colour(value: object, path: Path) -> Colour | None:
    """Parse a colour: #rrggbb, or three numbers with any separators."""
    if value is None or not str(value).strip():
        return None
    text = str(value).strip()
    if found := re.fullmatch(r"(?:#|0x)?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", text):
        red, green, blue = (int(part, 16) for part in found.groups())
        return red, green, blue
    parts = re.findall(r"\d+", text)
    if len(parts) != 3 or max(map(len, parts)) > 9 or max(map(int, parts)) > 255:
        raise DataError(
            f"{path}: {text[:40]!r} is not a colour. Expected #rrggbb or red green blue."
        )
    red, green, blue = map(int, parts)
    return red, green, blue
