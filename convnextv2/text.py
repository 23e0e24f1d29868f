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


def brief(names: list[str]) -> str:
    """A few names, or the first and last of many; on one line whatever a file holds."""
    shown = [
        name if name.isprintable() and len(name) < 100 else ascii(name)[:100]
        for name in names[:3] + names[-1:]
    ]
    return (
        ", ".join(shown[: len(names)])
        if len(names) <= 3
        else f"{shown[0]} ... {shown[-1]} ({len(names)})"
    )
