"""Printing: a line appears once, however many ranks there are."""

from __future__ import annotations

import os

from convnextv2.launch import find_launch


def say(text: str) -> None:
    """Print a line, on the main rank only."""
    if find_launch(os.environ).rank == 0:
        print(text, flush=True)
