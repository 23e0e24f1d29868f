"""Names of classes, however a folder, a table or a weights file writes them."""

from __future__ import annotations

import unicodedata


def class_name_of(text: str) -> str:
    """Return the class that a text means.

    Args:
        text: Name of a folder, label of a table, or name in a weights file.

    Returns:
        The text with composed accents and without blanks at its ends: macOS decomposes accents,
        and spreadsheets leave blanks, which nobody sees.
    """
    return unicodedata.normalize("NFC", text).strip()
