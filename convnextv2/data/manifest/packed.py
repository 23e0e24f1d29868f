"""Columns of text that cost little memory for millions of rows.

A list of Python strings takes about 100 bytes a row, and every worker process that reads it gets a
copy of its own, since reading changes the strings' reference counts. The columns here are arrays of
numbers beside a few long texts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray


class Column(Sequence[str]):
    """Texts by index."""

    @abstractmethod
    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Self:
        """Pick rows.

        Args:
            indices: Numbers of the rows, in the order wanted.

        Returns:
            A column of these rows, which shares the texts.
        """

    @abstractmethod
    def _text(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._text(i) for i in range(*index.indices(len(self)))]
        return self._text(range(len(self))[index])


class Words(Column):
    """Texts of which many are the same, such as labels.

    Attributes:
        words: The distinct texts.
        codes: int32 (N,), for each row the index of its text in `words`.
    """

    def __init__(self, words: Sequence[str], codes: NDArray[np.int32]) -> None:
        self.words = tuple(words)
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)

    def _text(self, index: int) -> str:
        return self.words[self.codes[index]]

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Words:
        """See `Column.take`."""
        return Words(self.words, self.codes[indices])

    def counts(self) -> dict[str, int]:
        """Count the rows of each text.

        Returns:
            Text -> number of rows, in the order of `words`; texts without rows are left out.
        """
        counts = np.bincount(self.codes, minlength=len(self.words)).tolist()
        return {word: count for word, count in zip(self.words, counts, strict=True) if count}


class Paths(Column):
    """Paths of files, each a folder and a name.

    Attributes:
        folders: The distinct folders; "" for names that stand alone.
        codes: int32 (N,), for each row the index of its folder in `folders`.
        names: All names, one after the other.
        starts: int64 (N,), where each row's name begins in `names`.
        lengths: int32 (N,), how many letters it has.
    """

    def __init__(
        self,
        folders: Sequence[str],
        codes: NDArray[np.int32],
        names: str,
        starts: NDArray[np.int64],
        lengths: NDArray[np.int32],
    ) -> None:
        self.folders = tuple(folders)
        self.codes = codes
        self.names = names
        self.starts = starts
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.codes)

    def name(self, index: int) -> str:
        """Return the name of one row, without its folder."""
        start = int(self.starts[index])
        return self.names[start : start + int(self.lengths[index])]

    def _text(self, index: int) -> str:
        folder = self.folders[self.codes[index]]
        return f"{folder}{'' if folder.endswith('/') or not folder else '/'}{self.name(index)}"

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Paths:
        """See `Column.take`."""
        codes, starts, lengths = self.codes[indices], self.starts[indices], self.lengths[indices]
        return Paths(self.folders, codes, self.names, starts, lengths)


class NameStore:
    """Collects the names of `Paths` one by one."""

    def __init__(self) -> None:
        self._full: list[str] = []
        self._open: list[str] = []
        self._lengths: list[NDArray[np.int32]] = []

    def append(self, name: str) -> None:
        """Add one name."""
        self._open.append(name)
        if len(self._open) == 65_536:
            self._close()

    def finish(self) -> tuple[str, NDArray[np.int64], NDArray[np.int32]]:
        """Join what was added.

        Returns:
            All names as one text, where each starts (int64), and its length (int32).
        """
        self._close()
        text = "".join(self._full)
        lengths = np.concatenate(self._lengths)
        self._full, self._lengths = [], []
        return text, np.cumsum(lengths, dtype=np.int64) - lengths, lengths

    def _close(self) -> None:
        self._full.append("".join(self._open))
        self._lengths.append(np.fromiter(map(len, self._open), np.int32, len(self._open)))
        self._open = []


def count_words(words: Iterable[str] | Mapping[str, int], *, most: int = 10) -> str:
    """Say how often each word occurs, as in "train (900), val (100)".

    Args:
        words: The words, or how often each occurs.
        most: How many to name; the rest is a number.

    Returns:
        One line, the most frequent words first.
    """
    counts: dict[str, int] = {}
    if isinstance(words, Mapping):
        counts = dict(words)
    elif isinstance(words, Words):
        counts = words.counts()
    else:
        for word in words:
            counts[word] = counts.get(word, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{quoted(word) if word else '(empty)'} ({count:,})" for word, count in ranked[:most]]
    more = [f"{len(ranked) - most:,} more"] if len(ranked) > most else []
    return ", ".join(named + more)


def quoted(text: str, most: int = 100) -> str:
    """Make a text of a file fit for a message: one line, of bounded length, nothing unprintable.

    Args:
        text: Whatever stood in the file.
        most: Letters that are shown; a longer text is cut in its middle.

    Returns:
        The text, in quotes where blanks at its ends or unprintable letters would mislead.
    """
    if len(text) > most:
        text = f"{text[: most // 2]}...{text[-most // 4 :]} ({len(text):,} characters)"
    return text if text.isprintable() and text == text.strip() and text else repr(text)
