"""Reads the lists in the folder ImageSets of Pascal VOC, which name the images of each split."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from convnextv2.data.formats import SUFFIXES
from convnextv2.errors import DataError
from convnextv2.text import plain


def listed_names(path: Path, is_known: Callable[[str], bool]) -> list[str]:
    """Return the names in a list, without endings, each once.

    A line has one name, which may have blanks and stand in quotes, as CVAT writes it. In the lists
    of one class, 1, -1 or 0 follows, which is ignored.

    Args:
        path: The list.
        is_known: Returns whether a name is that of an image or annotation. A name that is not known
            in any form is returned as it stands.

    Raises:
        DataError: The list cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({plain(error.strerror)}).") from None
    names: dict[str, None] = {}
    for line in filter(None, map(str.strip, lines)):
        forms = list(_forms(line))
        names[next(filter(is_known, forms), forms[-1])] = None
    return list(names)


def _forms(line: str) -> Iterator[str]:
    """Yield what the name in a line may be, the most probable one first."""
    for text in (line, re.sub(r"\s+-?[01]$", "", line)):
        bare = text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' else text
        yield bare
        head, dot, ending = bare.rpartition(".")
        if f"{dot}{ending.lower()}" in (".xml", *SUFFIXES):
            yield head
