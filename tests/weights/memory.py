"""The memory and the time that it takes to open files."""

import json
from pathlib import Path

from processes import run_program

MIB = 1 << 20
CONSTANT = 256 * MIB
"""The memory that docs/how-to/weights.md allows beside twice the size of a file, in bytes."""


def measure(paths: list[Path]) -> list[dict]:
    """Open files in a process of their own, and return what `open_and_measure` printed of each."""
    script = Path(__file__).with_name("open_and_measure.py")
    code, printed, errors = run_program(script, *paths)
    assert code == 0, errors
    return [json.loads(line) for line in printed.splitlines()]
