"""Printing: each line once for all ranks, and answers in JSON apart from the lines."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from contextvars import ContextVar
from typing import Any, TextIO

from convnextv2.launch import find_launch

_ANSWERS: ContextVar[TextIO | None] = ContextVar("answers", default=None)
"""The stream for the answers of the verb that runs; None if it was not asked for JSON."""


def say(text: str) -> None:
    """Print a line, on the main rank only."""
    if find_launch(os.environ).rank == 0:
        print(text, flush=True)


def print_to_stderr(line: str) -> None:
    """Print a line to stderr, unless the terminal was closed."""
    with suppress(OSError):
        print(line, file=sys.stderr)


@contextmanager
def answering(as_json: bool) -> Iterator[None]:
    """Set whether the verb that runs in the block answers in JSON.

    A verb that another verb calls has no answers of its own.

    Args:
        as_json: Whether `print_json` prints to stdout. All other lines go to stderr then, so that a
            program can read the output.
    """
    before = _ANSWERS.set(sys.stdout if as_json else None)
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            yield
    finally:
        _ANSWERS.reset(before)


def print_json(content: Any) -> None:
    """Print a verb's answer as one line of JSON, if the verb was asked for it.

    Args:
        content: What `json.dumps` accepts. Numbers that are not finite become null, because JSON
            cannot represent them.
    """
    out = _ANSWERS.get()
    if out is not None and find_launch(os.environ).rank == 0:
        print(json.dumps(_finite(content), allow_nan=False), file=out, flush=True)


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content
