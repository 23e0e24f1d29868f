"""Writes files in one atomic step, reads untrusted JSON, and hashes files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which UTF-8 cannot encode."""
_MAX_BRACKETS = 100_000


@contextmanager
def replacing(path: Path, *, makes_folder: bool = False) -> Iterator[Path]:
    """Replace a file in one atomic step, once all of the new content is written.

    The content is on the disk before the name points to it, so a crash leaves either the old file
    or the new one. The permissions are those that the umask asks for, even if a library writes the
    temporary file: safetensors makes files that only their owner can read.

    The name of the temporary file is unique, so two processes that write the same file do not mix
    their contents: the last one wins. What a killed process left in the folder is removed.

    Args:
        path: The file to replace or create.
        makes_folder: Whether to make the parent folder. If the write fails, it is removed again.

    Yields:
        The temporary path to write to.
    """
    if makes_folder:
        with temporary_folders(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                yield temporary
        return
    temporary = _temporary(path)
    temporary.touch()
    permissions = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        temporary.chmod(permissions)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # half a file on a full disk would keep it full
        if isinstance(error, OSError) and error.filename is None:  # from a write to an open file
            error.filename = str(path)
        raise
    os.replace(temporary, path)
    sync_folder(path.parent)


def _temporary(path: Path) -> Path:
    """Return a name beside a file that no other process uses, and remove what others left.

    The name begins with a dot, so that no reader of the folder takes the file for a whole one.
    """
    folder = path.parent
    remove_leftovers(folder)
    return folder / f".{path.name[:40]}.{os.getpid()}-{_machine()}-{next(_numbers)}.tmp"


_numbers = itertools.count()
_swept: set[str] = set()
_TEMPORARY = re.compile(r"\..*\.(\d+)-([0-9a-f]{8})-\d+\.tmp")
_DEAD_S = 7 * 86400.0
"""Another machine's temporary file of this age, in seconds, belongs to a process that has ended."""


def _machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Make a folder for temporary files beside a file that will be made from them.

    It is removed at the end. If this process is killed, the next one that writes there removes it.

    Args:
        path: The file, whose name is part of that of the folder.

    Yields:
        The folder. Only this user can open it.

    Raises:
        OSError: It cannot be made.
    """
    while True:
        temporary = _temporary(path)
        shutil.rmtree(temporary, ignore_errors=True)  # left by a process with the same number
        try:
            temporary.mkdir(mode=0o700)
            break
        except FileExistsError:  # of another user, whose process had the same number
            continue
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def system_scratch(name: str) -> AbstractContextManager[Path]:
    """Make a folder among the temporary files of the system, as `scratch_folder` does.

    Args:
        name: What it is for, which becomes a part of its name.

    Returns:
        A context manager that yields the folder and removes it at the end.
    """
    return scratch_folder(Path(tempfile.gettempdir()) / f"convnextv2-{name}")


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders of processes that have been killed.

    Each process scans a folder only once.
    """
    if (absolute := os.path.abspath(folder)) in _swept:
        return
    _swept.add(absolute)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (found := _TEMPORARY.fullmatch(entry.name)) is None:
                continue
            process, machine = int(found[1]), found[2]
            if machine == _machine():
                is_dead = not _is_alive(process)
            else:
                is_dead = time.time() - entry.stat().st_mtime > _DEAD_S
            if is_dead and entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif is_dead:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def _is_alive(process: int) -> bool:
    """Return whether a process of this machine runs; True if that is unknown."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@contextmanager
def temporary_folders(folder: Path) -> Iterator[None]:
    """Remove a folder and those above it at the end, as far as they are new and empty.

    Args:
        folder: A folder that may be made inside the block.
    """
    new = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    try:
        yield
    finally:
        for each in new:
            with contextlib.suppress(OSError):  # it is not there, or not empty
                each.rmdir()


def reason_of(error: OSError) -> str:
    """Say why the system could not write, such as "No space left on device".

    If a folder cannot be made because a dangling link has its name, this says so. The system would
    only say that the file exists.
    """
    name = error.filename
    if error.errno == errno.EEXIST and name and os.path.islink(name) and not os.path.exists(name):
        return f"{os.fsdecode(name)} is a link to {os.fsdecode(os.readlink(name))}, which is gone"
    return error.strerror or str(error)


_SPACE = "Free some space, then start the same command again (a run: with --resume)."
_PATH = "Choose another path."
_OF_THE_SYSTEM = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EROFS: "Choose a folder that can be written.",
    errno.EACCES: "Choose a path that you may read and write, or change its permissions.",
    errno.EPERM: "Choose a path that you may read and write, or change its permissions.",
    errno.ENOTDIR: _PATH,
    errno.EEXIST: _PATH,
    errno.ENOTEMPTY: _PATH,
    errno.EISDIR: _PATH,
    errno.ENAMETOOLONG: _PATH,
    errno.ELOOP: _PATH,
    errno.EIO: "The disk or the file server is failing; check it, then start the command again.",
    errno.ESTALE: "The file server was down; start the same command again (a run: with --resume).",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
}
"""Errors of the operating system, and their remedies. Any other OSError keeps its traceback."""


def mistake_of(error: OSError) -> str | None:
    """Describe an error of the operating system that a user can fix.

    The line has the file and the remedy. For any other error, the result is None.
    """
    if error.errno not in _OF_THE_SYSTEM:
        return None
    name = error.filename2 or error.filename
    return f"{name or 'a file'}: {reason_of(error)}. {_OF_THE_SYSTEM[error.errno]}"


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, so that they survive a power failure.

    On systems that cannot open or flush folders, this does nothing.

    Args:
        folder: The folder whose entries were created, renamed or deleted.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_MAX_NAME = 255
"""The longest file name that common file systems allow, in bytes."""


def name_after(path: str | Path, ending: str, *, prefix: str = "") -> str:
    """Name a file after another one: its stem between a prefix and an ending.

    The stem is shortened if the name would be too long for file systems.
    """
    stem = Path(path).stem
    room = _MAX_NAME - len(os.fsencode(prefix + ending))
    if len(encoded := os.fsencode(stem)) > room:
        stem = encoded[:room].decode(errors="ignore")
    return f"{prefix}{stem}{ending}"


class UniqueNames:
    """Names files after others, with a number if the name is taken.

    Args:
        ending: The ending of all names, such as ".png".
    """

    def __init__(self, ending: str) -> None:
        self._ending = ending
        self._numbers: dict[str, int] = {}

    def after(self, path: str | Path) -> str:
        """Return a name that was not returned before: "a.png", then "a-2.png" and so on."""
        first = name = name_after(path, self._ending)
        number = self._numbers.get(first, 1)
        while name in self._numbers:
            number += 1
            name = name_after(path, f"-{number}{self._ending}")
        self._numbers[first] = number
        self._numbers.setdefault(name, 1)
        return name


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8 in one atomic step.

    Args:
        path: The file to replace or create.
        text: Its whole content.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in one atomic step.

    Args:
        path: The file to replace or create.
        content: What `json.dumps` accepts.
    """
    write_text(path, json.dumps(content, indent=2) + "\n")


def parse_json(text: str) -> Any:
    """Parse JSON so that every string in it can be written again.

    Python represents bytes of file names that are not UTF-8 as halves of surrogate pairs, and
    writes those into JSON. Each is replaced by its Python escape.

    Args:
        text: The JSON.

    Returns:
        The parsed content.

    Raises:
        ValueError: The text is not JSON, or has too many lists and objects for the memory, or nests
            them too deeply.
    """
    if text.count("[") + text.count("{") > _MAX_BRACKETS:
        raise ValueError(f"more than {_MAX_BRACKETS:,} lists and objects")
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None
    if not re.search(r"\\u[dD][89a-fA-F]", text):
        return content
    return json.loads(
        SURROGATE.sub(
            lambda half: f"\\\\u{ord(half[0]):04x}", json.dumps(content, ensure_ascii=False)
        )
    )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
