"""The knob `columns`: which columns of a table hold what, as text."""

from __future__ import annotations

ROLES = ("path", "label", "split")


def read_columns(text: str) -> dict[str, str]:
    """Read which column of a table is used for what.

    Args:
        text: Such as "path=image_id,label=class,split=fold": names of columns, or their numbers
            from 1. "split=" says that no column is one.

    Returns:
        Role (path, label or split) -> column; empty for an empty text.

    Raises:
        ValueError: The text has another form; the message says what was expected.
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
        raise ValueError("expected another column for each")
    return columns
