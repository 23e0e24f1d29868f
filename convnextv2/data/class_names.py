"""Names of classes, however a folder, a table or a weights file writes them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_MAX_NAMED = 5


def class_name_of(text: str) -> str:
    """Return the class that a text means.

    Args:
        text: Name of a folder, label of a table, or name in a weights file.

    Returns:
        The text with composed accents and without blanks at its ends: macOS decomposes accents,
        and spreadsheets leave blanks, which nobody sees.
    """
    return unicodedata.normalize("NFC", text).strip()


def is_not_trained(classes: Sequence[str]) -> str:
    """Say that a class is not among those of a model, of which the first few are named.

    Args:
        classes: The names of the model's classes.

    Returns:
        The end of a sentence, without the full stop.
    """
    more = ", ..." if len(classes) > _MAX_NAMED else ""
    named = f"{', '.join(classes[:_MAX_NAMED])}{more}"
    return f"is not among the {len(classes)} trained ones ({named})"
