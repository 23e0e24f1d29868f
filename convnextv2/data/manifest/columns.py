"""Finds the columns of a table with the paths, the labels and the splits."""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convnextv2.data.formats import SUFFIXES
from convnextv2.data.manifest.packed import quoted
from convnextv2.data.manifest.sheet import Sheet
from convnextv2.data.split_names import Kind
from convnextv2.errors import DataError

# Names in lower case and without "_", "-" and blanks. A column of an earlier group wins.
_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "path": (
        ("path",),
        ("filepath", "imagepath", "imgpath", "filepaths", "imagepaths", "relativepath", "relpath"),
        (
            *("filename", "imagename", "imagefile", "imgname", "imagefilename", "file", "image"),
            *("img", "filenames", "images", "files", "photo", "picture", "imageindex"),
        ),
        ("imageid", "imgid", "fileid", "idcode", "id", "name"),
    ),
    "label": (
        ("label",),
        ("classname", "labelname", "categoryname", "classlabel"),
        ("class", "category", "target", "species", "labels", "classes"),
        (
            *("classid", "labelid", "categoryid", "targetid", "classidx", "labelidx"),
            *("classindex", "labelindex"),
        ),
        ("gtlabel", "gtlabels", "tags", "tag", "findinglabels", "labelnames", "classnames"),
    ),
    "split": (
        ("split",),
        ("set", "subset", "partition", "phase", "splits", "splitname"),
        ("fold", "folds", "kfold"),
        ("dataset", "usage"),
        ("isvalid", "isval", "isvalidation", "istest", "istrain", "istraining"),
    ),
}
ROLES = tuple(_NAMES)
_TEXT = ("classname", "labelname", "categoryname", "labelnames", "classnames")
NAMES = "class_name"
"""A name for a column of labels that are texts, even if they look like numbers."""
_WEAK = ("dataset", "usage")
_FLAGS: dict[str, Kind] = {
    **dict.fromkeys(("isvalid", "isval", "isvalidation"), "validation"),
    **dict.fromkeys(("istrain", "istraining"), "train"),
    "istest": "test",
}
_LATER = frozenset((".heic", ".heif"))
"""Endings of images that are not read. A name with one of them needs no further ending."""
_GROUPS = {
    role: {name: rank for rank, names in enumerate(groups) for name in names}
    for role, groups in _NAMES.items()
}


@dataclass(frozen=True)
class Columns:
    """The roles of the columns of a table.

    Attributes:
        has_header: Whether the first line has the names of the columns.
        names: The name of each column; "1", "2", ... without a header.
        path: The index of the column with the paths.
        label: The index of the column with the labels, or the indices of one column for each class.
        split: The index of the column with the splits; None without one.
        flag: The split that a true value in that column means; None if it has words.
        is_weak: Whether that column is used only if its words are names of splits.
        notes: Messages about guesses and unused columns.
    """

    has_header: bool
    names: tuple[str, ...]
    path: int
    label: int | tuple[int, ...] | None
    split: int | None
    flag: Kind | None = None
    is_weak: bool = False
    notes: tuple[str, ...] = ()


def is_image_name(text: str) -> bool:
    """Return whether a text has the ending of an image."""
    return os.path.splitext(text)[1].lower() in SUFFIXES | _LATER


def rate(fields: Sequence[str], wanted: Mapping[str, str]) -> int:
    """Count the fields of a first line that are recognised.

    Args:
        fields: The fields.
        wanted: Role -> the user's name of its column.

    Returns:
        The number of fields that are known names of columns or names of images.
    """
    known = {_plain(name) for name in wanted.values()}
    return sum(
        is_image_name(field)
        or _plain(field) in known
        or any(_plain(field) in _GROUPS[role] for role in ROLES)
        for field in fields
    )


def has_names(columns: Columns) -> bool:
    """Return whether the name of the column of labels, such as "class_name", says they are texts.

    A column "label" may hold names or numbers.
    """
    label = columns.label
    return isinstance(label, int) and _plain(columns.names[label]) in _TEXT


def choose_columns(
    path: Path, sheet: Sheet, wanted: Mapping[str, str], *, labelled: bool, exists: bool
) -> Columns:
    """Determine the roles of the columns.

    Args:
        path: The table, for error messages.
        sheet: The opened table.
        wanted: Role (path, label or split) -> the user's name of its column, or its number from 1;
            "" if the table has no column of splits.
        labelled: Whether labels are needed.
        exists: Whether a field of the first line is an existing file.

    Returns:
        The columns.

    Raises:
        DataError: A column is missing, or several columns are possible.
    """
    fields = tuple(field.strip() for field in sheet.first)
    several = _several_given(path, fields, wanted.get("label", ""))
    if several:
        wanted = {**wanted, "label": fields[several[0]]}
    chosen = {role: _given(path, fields, role, wanted[role]) for role in ROLES if wanted.get(role)}
    is_known = any(_plain(field) in _GROUPS[role] for field in fields for role in ROLES)
    is_row = any(map(is_image_name, fields)) or (exists and not is_known)
    if sheet.may_lack_header and is_row:
        return _without_header(path, sheet, fields, chosen, labelled)
    by_name = {role: _candidates(fields, role, chosen) for role in ROLES if role not in wanted}
    for role, found in by_name.items():
        is_needed = labelled or role != "label"
        if len(found) > 1 and is_needed:
            raise DataError(f"{path}: {_ambiguous(fields, role, found)}")
        if found:
            chosen[role] = found[0]
    _fill_by_exclusion(fields, chosen, wanted, labelled)
    return _named_columns(path, fields, chosen, wanted, labelled, several)


def _several_given(path: Path, fields: Sequence[str], name: str) -> tuple[int, ...]:
    """Return the columns of the classes, which the user named with "|" between them."""
    if "|" not in name or name.strip() in fields:
        return ()
    return tuple(_given(path, fields, "label", part) for part in name.split("|"))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFC", name).casefold())


def _given(path: Path, fields: Sequence[str], role: str, name: str) -> int:
    """Return the index of a column that the user named."""
    name = name.strip()
    if name in fields:
        return fields.index(name)
    same = [i for i, field in enumerate(fields) if _plain(field) == _plain(name)]
    if len(same) == 1:
        return same[0]
    if name.isascii() and name.isdigit() and 1 <= int(name) <= len(fields):
        return int(name) - 1
    raise DataError(f"{path}: has no column {quoted(name)} for the {role}. {_has(fields)}")


def _candidates(fields: Sequence[str], role: str, chosen: Mapping[str, int]) -> list[int]:
    """Return the columns with a name of the best group; more than one column is ambiguous."""
    ranks = {
        i: _GROUPS[role][_plain(field)]
        for i, field in enumerate(fields)
        if _plain(field) in _GROUPS[role] and i not in chosen.values()
    }
    if role == "path" and len(ranks) > 1:
        # Beside another column such as "id", "name" is usually not a path.
        ranks = {i: rank for i, rank in ranks.items() if _plain(fields[i]) != "name"}
    best = min(ranks.values(), default=0)
    return [i for i, rank in ranks.items() if rank == best]


def _ambiguous(fields: Sequence[str], role: str, found: Sequence[int]) -> str:
    """Say that several columns could have a role, and how to choose one."""
    named = " and ".join(quoted(fields[i]) for i in found)
    what = f"has the columns {named}, which could each be the {role}"
    if all(_plain(fields[i]) in _FLAGS for i in found):
        remedy = "Replace them by one column split, with the words train, val and test."
    else:
        remedy = f"Choose one: {_option({role: _unambiguous(fields, found[0])})}"
    return f"{what}. {remedy}"


def _fill_by_exclusion(
    fields: Sequence[str], chosen: dict[str, int], wanted: Mapping[str, str], labelled: bool
) -> None:
    """Assign the remaining column to the remaining role, if there is one of each."""
    rest = [i for i in _named(fields) if i not in chosen.values()]
    open_roles = [role for role in ("path", "label") if role not in chosen and role not in wanted]
    if not labelled and "path" in chosen:
        return
    if len(rest) == 1 and len(open_roles) == 1 and len(chosen) > 0:
        chosen[open_roles[0]] = rest[0]


def _named(fields: Sequence[str]) -> list[int]:
    """Return the columns that have a name. pandas writes its index without one."""
    return [i for i, field in enumerate(fields) if field and not re.match(r"Unnamed: \d+$", field)]


def _named_columns(
    path: Path,
    fields: tuple[str, ...],
    chosen: Mapping[str, int],
    wanted: Mapping[str, str],
    labelled: bool,
    several: tuple[int, ...],
) -> Columns:
    """Describe the columns of a table with a header, once their roles are chosen.

    Args:
        path: The table, for error messages.
        fields: The names of the columns.
        chosen: Role -> column.
        wanted: Role -> the user's name of its column.
        labelled: Whether labels are needed. Without a column for them, all columns that are left
            are taken as one column for each class.
        several: The columns of the classes, if the user named them; otherwise empty.

    Raises:
        DataError: There is no column with the paths, or none with the labels.
    """
    rest = [i for i in _named(fields) if i not in chosen.values()]
    if "path" not in chosen:
        remedy = _remedy(fields, chosen, ("path", "label")[: 1 + labelled])
        raise DataError(f"{path}: has no column with the paths of images. {_has(fields)} {remedy}")
    label: int | tuple[int, ...] | None = chosen.get("label") if labelled else None
    if labelled and label is None:
        if len(rest) < 2:
            remedy = _remedy(fields, chosen, ("label",))
            raise DataError(f"{path}: has no column with the labels. {_has(fields)} {remedy}")
        label, rest = tuple(rest), []
    if labelled and several:
        label, rest = several, [i for i in rest if i not in several]
    if not labelled:
        rest = [i for i in rest if i != chosen.get("label")]
    split = chosen.get("split")
    plain = _plain(fields[split]) if split is not None else ""
    is_given = bool(wanted.get("split"))
    flag = _FLAGS.get(plain)
    is_weak = plain in _WEAK and not is_given
    noted = {"path": True, "label": labelled and not several, "split": not (is_weak or flag)}
    used = {role: chosen[role] for role in ROLES if role in chosen and noted[role]}
    return Columns(
        has_header=True,
        names=fields,
        path=chosen["path"],
        label=label,
        split=split,
        flag=flag,
        is_weak=is_weak,
        notes=_column_notes(path, fields, used, rest),
    )


def _column_notes(
    path: Path, fields: Sequence[str], used: Mapping[str, int], rest: Sequence[int]
) -> tuple[str, ...]:
    """Return a note on columns whose names differ from their roles, and on unused columns."""
    parts = []
    other = {role: i for role, i in used.items() if _plain(fields[i]) != role}
    for number, (role, i) in enumerate(other.items()):
        verb = "from" if number else "is read from the column"
        parts.append(f"{role} {verb} {quoted(fields[i])}")
    parts = [", ".join(parts)] if parts else []
    if rest:
        names = ", ".join(quoted(fields[i], 40) for i in rest[:10])
        names += f" and {len(rest) - 10} more" * (len(rest) > 10)
        parts.append(f"not used: {names}")
    return (f"{path}: {'; '.join(parts)}.",) if parts else ()


def _without_header(
    path: Path, sheet: Sheet, fields: tuple[str, ...], chosen: dict[str, int], labelled: bool
) -> Columns:
    """Determine the roles of the columns of a table without a header."""
    names = tuple(str(i + 1) for i in range(len(fields)))
    filled = [i for i, field in enumerate(fields) if field]
    if "path" not in chosen:
        images = [i for i in filled if is_image_name(fields[i])] or filled[:1]
        chosen["path"] = images[0]
    rest = [i for i in filled if i not in chosen.values()]
    if labelled and "label" not in chosen:
        if len(rest) != 1:
            raise DataError(f"{path}: {_unclear_row(fields, chosen['path'])}")
        chosen["label"] = rest.pop()
    roles = [role for role in ROLES if role in chosen and (labelled or role != "label")]
    used = {role: chosen[role] for role in roles}
    pairs = ", ".join(f"{role} is read from column {i + 1}" for role, i in used.items())
    between = f", separated by {sheet.separated_by}" if sheet.separated_by == "blanks" else ""
    unused = ", ".join(names[i] for i in rest)
    note = f"{path}: has no first line with names{between}; {pairs}"
    note += f"; not used: {unused}." if unused else "."
    return Columns(
        has_header=False,
        names=names,
        path=used["path"],
        label=used.get("label"),
        split=used.get("split"),
        notes=(note,),
    )


def _unclear_row(fields: Sequence[str], path_column: int) -> str:
    """Say that the first line does not show which column has the labels, and what to do."""
    count = sum(1 for field in fields if field)
    columns = f"{count} columns" if count > 1 else "one column"
    what = f"the first line is a row, not the names of {columns}: {_list(fields)}"
    if count < 2:
        return f"{what}. Add a column with the labels."
    option = f"--columns path={path_column + 1},label=2"
    return f"{what}. Add a first line such as path,label, or: {option}"


def _has(fields: Sequence[str]) -> str:
    count = len(_named(fields))
    if not count:
        return "None of its columns has a name."
    return f"It has the column{'s' * (count != 1)} {_list(fields)}."


def _list(fields: Sequence[str]) -> str:
    named = [quoted(field, 40) for field in fields if field]
    return ", ".join(named[:10]) + (f" and {len(named) - 10} more" if len(named) > 10 else "")


def _remedy(fields: Sequence[str], chosen: Mapping[str, int], roles: Sequence[str]) -> str:
    """Return the option that names the columns, with their names if the choice is clear."""
    rest = [_unambiguous(fields, i) for i in _named(fields) if i not in chosen.values()]
    names = rest if len(rest) == len(roles) else ["COLUMN"] * len(roles)
    option = _option(dict(zip(roles, names, strict=True)))
    return f"Name {'it' if len(roles) == 1 else 'them'}: {option}"


def _unambiguous(fields: Sequence[str], index: int) -> str:
    """Return the name of a column, or its number if the option cannot hold the name."""
    name = fields[index]
    is_clear = name.isprintable() and "," not in name and fields.count(name) == 1
    return name if is_clear else str(index + 1)


def _option(columns: Mapping[str, str]) -> str:
    """Return the option that names columns, quoted for a shell."""
    return f"--columns {shlex.quote(','.join(f'{role}={name}' for role, name in columns.items()))}"
