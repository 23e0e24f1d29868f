"""Messages to the user about images that cannot be read or are left out."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence

from convnextv2.console import say
from convnextv2.errors import DataError
from convnextv2.launch import find_launch

MAX_NAMED = 10
"""The largest number of names in one message."""


def notice(line: str) -> None:
    """Print a line on standard error, from any rank.

    Standard output is for the results of a verb, which programs may read. The line is written in
    one call, so that the lines of several ranks do not mix.
    """
    launch = find_launch(os.environ)
    prefix = f"rank {launch.rank}: " if launch.world_size > 1 else ""
    sys.stderr.write(f"{prefix}{line}\n")
    sys.stderr.flush()


def left_out_line(names: Collection[str], what: str = "image") -> str:
    """Describe how many images were left out, with the names of the first ten.

    Args:
        names: The names of the images.
        what: The noun for one image, such as "validation image".

    Returns:
        A sentence; "" if no image was left out.
    """
    if not names:
        return ""
    count, few = len(names), ", ".join(sorted(names)[:MAX_NAMED])
    more = ", ..." if count > MAX_NAMED else ""
    noun, are = (what, "was") if count == 1 else (f"{what}s", "were")
    return f"{count:,} {noun} could not be read and {are} left out: {few}{more}."


def say_left_out(names: Collection[str], what: str) -> None:
    """Print how many images were left out, if any; see `left_out_line`."""
    if line := left_out_line(names, what):
        say(line)


def evaluation_notes(notes: Sequence[str], skipped: Collection[str]) -> list[str]:
    """Return the messages about the images of an evaluation.

    Args:
        notes: The notes of the source.
        skipped: The names of the images that were left out.
    """
    line = left_out_line(skipped, "validation image")
    return [*notes, line] if line else list(notes)


def none_readable(names: Sequence[str], what: str = "image") -> DataError:
    """Return the error for a set of images none of which can be read.

    Args:
        names: The names of the images.
        what: The noun for one image.
    """
    return DataError(f"no {what} can be read, for example {names[0]}.")
