"""Columns of text that take little memory for millions of rows.

A list of Python strings takes about 100 bytes for each row. Each worker process that reads it gets
its own copy, because reading changes the reference counts of the strings. The columns here are
arrays of numbers and a few long texts.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class Words(Sequence[str]):
    """A column with few distinct texts, such as labels.

    Attributes:
        words: The distinct texts.
        codes: int32 (N,), the index in `words` of the text of each row.
    """

    def __init__(self, words: Sequence[str], codes: NDArray[np.int32]) -> None:
        self.words = tuple(words)
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Words: ...
    def __getitem__(self, index: int | slice) -> str | Words:
        if isinstance(index, slice):
            return Words(self.words, self.codes[index])
        return self.words[self.codes[index]]

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Words:
        """Return the texts at these indices, in this order."""
        return Words(self.words, self.codes[indices])

    def counts(self) -> dict[str, int]:
        """Count the rows of each text.

        Returns:
            Text -> number of rows, in the order of `words`. Texts without rows are left out.
        """
        counts = np.bincount(self.codes, minlength=len(self.words)).tolist()
        return {word: count for word, count in zip(self.words, counts, strict=True) if count}


class NameStore:
    """Collects the names for a `PathList`."""

    def __init__(self) -> None:
        self._names = bytearray()
        self._lengths = array("i")

    def append(self, name: str) -> None:
        """Add one name."""
        try:
            encoded = os.fsencode(name)
        except UnicodeEncodeError:  # a lone surrogate, which cannot be in the name of a file
            encoded = name.encode("utf-8", "replace")
        self._names += encoded
        self._lengths.append(len(encoded))

    def finish(self) -> tuple[bytes, NDArray[np.int64], NDArray[np.int32]]:
        """Join the names that were added.

        Returns:
            All names, joined; the position of each name, int64 (N,); and its length, int32 (N,).
        """
        lengths = np.array(self._lengths, np.int32)
        return bytes(self._names), np.cumsum(lengths, dtype=np.int64) - lengths, lengths


def count_words(words: Iterable[str] | Mapping[str, int], *, max_words: int = 10) -> str:
    """Describe how often each word occurs, as in "train (900), val (100)".

    Args:
        words: The words, or the number of times that each occurs.
        max_words: The number of words that are named. The others are only counted.

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
    named = [
        f"{quoted(word) if word else '(empty)'} ({count:,})" for word, count in ranked[:max_words]
    ]
    more = [f"{len(ranked) - max_words:,} more"] if len(ranked) > max_words else []
    return ", ".join(named + more)


def quoted(text: str, max_length: int = 100) -> str:
    """Return a text from a file for a message: in one line, printable, and not too long.

    Args:
        text: The text in the file.
        max_length: The number of characters that are shown. A longer text is cut in the middle.

    Returns:
        The text. It is quoted if it is empty, has blanks at its ends, or unprintable characters.
    """
    if len(text) > max_length:
        start, end = text[: max_length // 2], text[-max_length // 4 :]
        text = f"{start}...{end} ({len(text):,} characters)"
    return text if text.isprintable() and text == text.strip() and text else repr(text)
