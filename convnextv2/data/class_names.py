"""Names of classes in folders, tables and weights files, in one spelling."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_MAX_NAMED = 5


def class_name_of(text: str) -> str:
    """Return the name of a class in its normal spelling.

    Args:
        text: Name of a folder, label of a table, or name in a weights file.

    Returns:
        The text in Unicode NFC, without blanks at its ends. macOS decomposes accents (NFD), and
        spreadsheets add invisible blanks.
    """
    return unicodedata.normalize("NFC", text).strip()


def is_not_trained(classes: Sequence[str]) -> str:
    """Return the end of an error message about a class that is not among those of a model.

    Args:
        classes: The names of the model's classes.

    Returns:
        The end of a sentence, without the full stop.
    """
    more = ", ..." if len(classes) > _MAX_NAMED else ""
    named = f"{', '.join(classes[:_MAX_NAMED])}{more}"
    return f"is not among the {len(classes)} trained ones ({named})"
