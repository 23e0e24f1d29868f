"""The knob `columns`, which names the columns of a table in one text."""

from __future__ import annotations

ROLES = ("path", "label", "split")


def read_columns(text: str) -> dict[str, str]:
    """Read which column of a table has which role.

    Args:
        text: A text such as "path=image_id,label=class,split=fold". Columns are given by name, or
            by number from 1. "split=" says that no column holds the split.

    Returns:
        Role (path, label or split) -> column. It is empty if the text is empty.

    Raises:
        ValueError: The text does not have this form. The message says what was expected.
    """
    columns: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        role, equals, name = (word.strip() for word in part.partition("="))
        if not equals or role not in ROLES:
            raise ValueError(f"expected {', '.join(ROLES)} with = and the name of a column")
        if role in columns:
            raise ValueError(f"expected {role} only once")
        if not name and role != "split":
            raise ValueError(f"expected the name of a column after {role}=")
        columns[role] = name
    taken = [name for name in columns.values() if name]
    if len(set(taken)) < len(taken):
        raise ValueError("expected a different column for each role")
    return columns
