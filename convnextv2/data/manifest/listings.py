"""Finds folders and files whose names in a table may differ from those on disk.

macOS decomposes accents, Windows ignores letter case, and a table from another machine names
folders that do not exist on this one.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator

from convnextv2.data.manifest.columns import is_image_name
from convnextv2.errors import DataError

_MAX_PARTS = 32  # how many of the first folders of a path may be left out
_MAX_TRIES = 20  # limited, because each try may list a large folder


class Listing:
    """The files in one folder, by name and by similar names."""

    def __init__(self, folder: str) -> None:
        try:
            with os.scandir(folder or ".") as entries:
                self.names = {entry.name for entry in entries if _is_file(entry)}
        except OSError as error:
            raise DataError(f"{folder}: cannot be read ({error.strerror}).") from None
        self._alike: dict[str, list[str]] | None = None
        self._stems: dict[str, list[str]] | None = None

    def match(self, name: str) -> tuple[str, str]:
        """Find the file with a name, or with a similar name.

        Args:
            name: The name in the table.

        Returns:
            The name of the file, and the difference: "" for none, "form" for the Unicode form,
            "case" for letter case, or "ending" if the table has no ending. Both are "" if there is
            not exactly one such file.
        """
        if name in self.names:
            return name, ""
        if self._alike is None:
            self._alike = _grouped(self.names)
        alike = self._alike.get(_fold(name), [])
        same = [other for other in alike if _nfc(other) == _nfc(name)]
        if len(same) == 1:
            return same[0], "form"
        if len(alike) == 1:
            return alike[0], "case"
        if is_image_name(name):
            return "", ""
        if self._stems is None:
            self._stems = defaultdict(list)
            for other in filter(is_image_name, self.names):
                self._stems[os.path.splitext(other)[0]].append(other)
        longer = self._stems.get(name, [])
        return (longer[0], "ending") if len(longer) == 1 else ("", "")


class Folders:
    """Finds the folders of a table on this machine.

    Attributes:
        dropped: The first folders of paths, which are left out because they do not exist here; ""
            for none.
        adapted: For each kind of difference between names, a folder in the table and on disk.
    """

    def __init__(self, base: str) -> None:
        self.dropped = ""
        self.adapted: dict[str, tuple[str, str]] = {}
        self._base = base
        self._tries = _MAX_TRIES
        self._children: dict[str, dict[str, list[str]]] = {}

    def find(self, text: str, sample: str) -> str | None:
        """Find one folder.

        Args:
            text: The folder in the table; "" for the base folder.
            sample: The name of an image in this folder, from the table.

        Returns:
            The path of the folder; None if it does not exist.
        """
        found = self._spelled(text)
        if found is None and self.dropped:
            rest = f"{text}/".removeprefix(self.dropped)
            found = None if len(rest) > len(text) else self._spelled(rest.rstrip("/"))
        elif found is None and self._tries:
            self._tries -= 1
            found = self._without_first(text, sample)
        return found

    def _without_first(self, text: str, sample: str) -> str | None:
        ends = [match.end() for match in re.finditer("/+", f"{text}/")]
        for end in ends[:_MAX_PARTS]:
            found = self._spelled(text[end:])
            if found is not None and Listing(found).match(sample)[0]:
                self.dropped = f"{text}/"[:end]
                return found
        return None

    def _spelled(self, text: str) -> str | None:
        """Return the path of a folder, whose Unicode form or letter case may differ."""
        full = os.path.normpath(os.path.join(self._base, _without_tilde(text)))
        if os.path.isdir(full):
            return "" if full == "." else full
        here, *rest = self._deepest(full)
        for part in rest:
            if here not in self._children:
                self._children[here] = _grouped(subfolders(here))
            alike = self._children[here].get(_fold(part), [])
            same = [name for name in alike if _nfc(name) == _nfc(part)] or alike
            if len(same) != 1:
                return None
            if same[0] != part:
                kind = "form" if _nfc(same[0]) == _nfc(part) else "case"
                self.adapted.setdefault(kind, (part, same[0]))
            here = os.path.join("" if here == "." else here, same[0])
        return here

    def _deepest(self, full: str) -> Iterator[str]:
        """Yield the deepest existing folder of a path, and then the parts below it."""
        parts: list[str] = []
        while not os.path.isdir(full or "."):
            full, part = os.path.split(full)
            parts.append(part)
        yield full or "."
        yield from reversed(parts)


def _without_tilde(text: str) -> str:
    """Replace ~ or ~USER at the start of a path by the home folder, if there is one."""
    try:
        return os.path.expanduser(text)
    except ValueError:  # a zero character or half a surrogate pair after ~
        return text


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _fold(text: str) -> str:
    return _nfc(_nfc(text).casefold())


def _grouped(names: set[str]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for name in names:
        groups[_fold(name)].append(name)
    return groups


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a circular link
        return False


def subfolders(folder: str) -> set[str]:
    """Return the names of the folders in a folder; none if it cannot be read."""
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if not _is_file(entry) and entry.is_dir()}
    except OSError:
        return set()
