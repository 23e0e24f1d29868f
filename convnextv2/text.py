"""Text from files of anyone's, made fit to be printed."""

from __future__ import annotations


def plain(text: object) -> str:
    """Return text that stays on its line and changes nothing else on a screen.

    Args:
        text: Whatever a file holds; `str` is taken of it.

    Returns:
        The same text with each character that is not printable as its Python escape: line breaks,
        terminal sequences, marks that turn the direction of writing, invisible characters and
        halves of surrogate pairs, which no encoding can write.
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))
