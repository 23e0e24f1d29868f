"""Lines that a loader has for people while batches come in."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

from convnextv2.launch import find_launch

MOST_NAMED = 10
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
    """Say how many images were left out, and name the first ten.

    Args:
        names: What the images are called; at least one.
        what: One of them in words, such as "validation image".
    """
    count, few = len(names), ", ".join(sorted(names)[:MOST_NAMED])
    more = ", ..." if count > MOST_NAMED else ""
    noun, are = (what, "was") if count == 1 else (f"{what}s", "were")
    return f"{count:,} {noun} could not be read and {are} left out: {few}{more}"
