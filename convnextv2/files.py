"""Files that are written in one atomic step, and JSON of anyone's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SURROGATE = re.compile("[\ud800-\udfff]")
"""A half of a surrogate pair, which no encoding can write."""
_MOST_BRACKETS = 100_000


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file in one atomic step: give a temporary path, and put it in place when all went well.

    The file is on disk before its name points to it, so that a crash leaves the old or the new one.
    Its permissions are those that the umask asks for, whoever writes the temporary file: the library
    of safetensors gives its files to their owner alone.

    Args:
        path: The file's name at last.

    Yields:
        The path to write to.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    temporary.touch()
    permissions = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        temporary.chmod(permissions)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)  # half a file on a full disk would keep it full
        raise
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, so that they outlive a loss of power.

    A system that cannot open folders, or cannot do this for them, does it in its own time.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one atomic step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one atomic step."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def parse_json(text: str) -> Any:
    """Read JSON in which a half of a surrogate pair becomes its escape, as text that can be written again.

    Args:
        text: JSON. Python writes such halves for names of files that are not UTF-8.

    Returns:
        What it holds.

    Raises:
        ValueError: Where it is no JSON, or of so many lists and objects that it would fill the
            memory.
    """
    if text.count("[") + text.count("{") > _MOST_BRACKETS:
        raise ValueError(f"more than {_MOST_BRACKETS:,} lists and objects")
    content = json.loads(text)
    if not re.search(r"\\u[dD][89a-fA-F]", text):
        return content
    return json.loads(
        SURROGATE.sub(
            lambda half: f"\\\\u{ord(half[0]):04x}", json.dumps(content, ensure_ascii=False)
        )
    )
