"""The classes of label maps: which values are classes, and which are ignored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from convnextv2.data.dense.class_table import ClassTable
from convnextv2.data.dense.label_maps import Coding
from convnextv2.data.dense.scan_maps import MapScan
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe
from convnextv2.text import counted

_MAX_VALUES = 256
"""The largest number of values that are used as classes if there is no class table."""


class UnknownValuesError(DataError):
    """Label maps hold values that belong to no class.

    Args:
        message: The message.
        values: The values.
        ignored: The values that are ignored.
    """

    def __init__(self, message: str, values: Sequence[int], ignored: Sequence[int]) -> None:
        super().__init__(message)
        self.values, self.ignored = tuple(values), tuple(ignored)


def decide_classes(
    table: ClassTable | None,
    scans: Sequence[MapScan],
    recipe: Recipe,
    coloured: bool,
    trained: Sequence[str] = (),
) -> tuple[ClassTable, tuple[int, ...], list[str]]:
    """Decide which values in the maps are classes, and which are ignored.

    Args:
        table: The class table; None without one.
        scans: The scans of all splits.
        recipe: Its knobs state which values are ignored.
        coloured: Whether values are colours.
        trained: The classes of the model that is evaluated; empty in training.

    Returns:
        The classes, the ignored values, and notes about guesses.

    Raises:
        DataError: The values cannot be classes, or fewer than two classes are left.
    """
    values = sorted(set().union(*(scan.pixels for scan in scans)))
    notes: list[str] = []
    asked = recipe.ignore_values
    if values == [0, 255] and not coloured and _may_be_binary(table, recipe):
        names = table.names if table else ("background", "foreground")
        names = tuple(trained) if len(trained) == 2 and not table else names
        notes.append(
            f"The maps hold only 0 and 255: 0 is {names[0]}, and 255 is {names[1]}. If 255 is to "
            "be ignored, set ignore_values = 255."
        )
        return ClassTable(names, (0, 255)), (), notes
    ignored = (255,) if asked is None and not coloured else asked or ()
    if table is None:
        table = _from_values(values, (*ignored, 0) if recipe.reduce_zero_label else ignored)
        notes.append(
            f"There is no class table, so the {len(table.names)} values in the maps are the "
            "classes. Name them with classes = FILE."
        )
    if recipe.reduce_zero_label:
        table, ignored = _without_zero(table, ignored)
    own = _values_of(table, coloured)
    if asked is None and 255 in own:
        ignored = tuple(value for value in ignored if value != 255)
    if dropped := [name for name, value in zip(table.names, own, strict=True) if value in ignored]:
        notes.append(f"Not a class: {', '.join(dropped)} (its value is ignored).")
        table = _kept(table, [i for i, value in enumerate(own) if value not in ignored])
    if len(table.names) < 2:
        left = ", ".join(table.names) or "all are ignored"
        raise DataError(
            f"{counted(len(table.names), 'class(es)')} left ({left}), so there is nothing to "
            "distinguish. Check classes, ignore_values and reduce_zero_label."
        )
    return table, ignored, notes


def _may_be_binary(table: ClassTable | None, recipe: Recipe) -> bool:
    """Return whether 255 may be a class, because nothing states that it is ignored."""
    return (
        recipe.ignore_values is None
        and not recipe.reduce_zero_label
        and (table is None or (len(table.names) == 2 and not table.has_ids))
    )


def _from_values(values: Sequence[int], ignored: Sequence[int]) -> ClassTable:
    found = [value for value in values if value not in ignored]
    if len(found) > _MAX_VALUES:
        raise DataError(
            f"the label maps hold {len(found)} different values, which cannot be classes. Give "
            "maps of class indices, or a class table with classes = FILE."
        )
    if not found:
        raise DataError("the label maps hold only ignored values.")
    return ClassTable(tuple(str(value) for value in found), tuple(found))


def _without_zero(
    table: ClassTable, ignored: tuple[int, ...]
) -> tuple[ClassTable, tuple[int, ...]]:
    """Ignore the value 0. If the table has no ids, the classes then begin at 1."""
    ignored = (0, *(value for value in ignored if value))
    if not table.has_ids:
        return replace(table, ids=tuple(number + 1 for number in table.ids)), ignored
    return table, ignored


def _kept(table: ClassTable, keep: Sequence[int]) -> ClassTable:
    return ClassTable(
        tuple(table.names[i] for i in keep),
        tuple(table.ids[i] for i in keep),
        tuple(table.colours[i] for i in keep) if table.colours else (),
        table.has_ids,
    )


def build_coding(
    classes: ClassTable, rows: Sequence[int], ignored: tuple[int, ...], coloured: bool
) -> Coding:
    """Build the coding that turns the values in maps into rows of the head.

    Args:
        classes: The classes.
        rows: The row of each class.
        ignored: The values that are ignored.
        coloured: Whether values are colours, red << 16 | green << 8 | blue.
    """
    return Coding(_values_of(classes, coloured), tuple(rows), ignored, coloured)


def _values_of(table: ClassTable, coloured: bool) -> tuple[int, ...]:
    """Return the value of each class in the maps; see `Coding`."""
    if not coloured:
        return table.ids
    return tuple(red << 16 | green << 8 | blue for red, green, blue in table.colours)


def check_values(scan: MapScan, coding: Coding) -> None:
    """Check that each value in the maps belongs to a class or is ignored.

    Args:
        scan: The scan of a split.
        coding: The values of the classes, and the ignored ones.

    Raises:
        UnknownValuesError: The message lists the unknown values, with the number of maps and one
            example of each.
    """
    known = {*coding.values, *coding.ignored}
    unknown = [value for value in sorted(scan.pixels) if value not in known]
    if not unknown:
        return
    few = "; ".join(
        f"{coding.show(value)} in {counted(scan.maps[value], 'map(s)')}, such as "
        f"{scan.examples[value]}"
        for value in unknown[:5]
    )
    more = "; ..." if len(unknown) > 5 else ""
    remedy = "Add them to the class table (classes), or ignore them with ignore_values."
    if unknown == [0] and min(coding.values) == 1:
        remedy = (
            "The classes begin at 1. If 0 stands for no class, set reduce_zero_label = True, which "
            "ignores it."
        )
    raise UnknownValuesError(
        f"the label maps hold {counted(len(unknown), 'value(s)')} outside the "
        f"{len(coding.values)} classes: {few}{more}. {remedy}",
        unknown,
        coding.ignored,
    )
