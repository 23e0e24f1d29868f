"""Lines for people about images: while batches come in, and about those that were left out."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence

from convnextv2.console import say
from convnextv2.errors import DataError
from convnextv2.launch import find_launch

MAX_NAMED = 10
"""Names in one line."""


def notice(line: str) -> None:
    """Print a line on standard error, from any rank.

    Standard output belongs to what a verb answers, which may be read by machines. The line is one
    write, so that lines of several ranks stay whole.
    """
    launch = find_launch(os.environ)
    prefix = f"rank {launch.rank}: " if launch.world_size > 1 else ""
    sys.stderr.write(f"{prefix}{line}\n")
    sys.stderr.flush()


def left_out_line(names: Collection[str], what: str = "image") -> str:
    """Return a sentence that says how many images were left out, and names the first ten.

    Args:
        names: The names of the images.
        what: One of them in words, such as "validation image".

    Returns:
        The sentence; empty if no image was left out.
    """
    if not names:
        return ""
    count, few = len(names), ", ".join(sorted(names)[:MAX_NAMED])
    more = ", ..." if count > MAX_NAMED else ""
    noun, are = (what, "was") if count == 1 else (f"{what}s", "were")
    return f"{count:,} {noun} could not be read and {are} left out: {few}{more}."


def say_left_out(names: Collection[str], what: str) -> None:
    """Print how many images were left out; see `left_out_line`. Nothing is printed for none."""
    if line := left_out_line(names, what):
        say(line)


def evaluation_notes(notes: Sequence[str], skipped: Collection[str]) -> list[str]:
    """Return lines for people about the images of an evaluation.

    Args:
        notes: What there is to say about the images.
        skipped: The names of those that were left out.
    """
    line = left_out_line(skipped, "validation image")
    return [*notes, line] if line else list(notes)


def none_readable(names: Sequence[str], what: str = "image") -> DataError:
    """Return the error that none of some images can be read.

    Args:
        names: Their names.
        what: One of them in words.
    """
    return DataError(f"no {what} can be read, for example {names[0]}.")
