"""A lock that keeps two processes from writing one run folder.

The system drops the lock when its process ends in any way, so a kill leaves nothing to clean up.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from convnextv2.errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_held: set[Path] = set()  # since the system lets a process take its own lock twice


@contextmanager
def locked(folder: Path) -> Iterator[str]:
    """Hold the lock of a run folder, which is created if it is missing.

    Child processes do not inherit this kind of lock (`fcntl.lockf`), so a worker that outlives its
    rank for a moment does not block the next start.

    Args:
        folder: The run folder.

    Yields:
        A line to announce if the file system has no locks; else an empty text.

    Raises:
        RunError: This process or another one is writing the run already.
        OSError: The folder or the lock file cannot be created.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"out = {folder}: exists already and is not a folder. Choose another one.")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / LOCK
    if path in _held:
        raise RunError(f"out = {folder}: this process writes that run already.")
    descriptor = None
    try:
        descriptor, note = _take(path, folder)
        _held.add(path)
        yield note
    finally:
        _held.discard(path)
        if descriptor is not None:
            path.unlink(missing_ok=True)  # while the lock is held; see _take
            os.close(descriptor)
        if is_new:
            with suppress(OSError):
                folder.rmdir()  # unless something was written


def _take(path: Path, folder: Path) -> tuple[int | None, str]:
    """Take the lock; return its open file, None without locks, and the line to announce."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is None:
                raise OSError(errno.ENOTSUP, "no locks")
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise RunError(
                    f"out = {folder}: {holder or 'another process'} writes that run. Wait until it "
                    "ends, stop it, or choose another folder."
                ) from None
            path.unlink(missing_ok=True)
            return None, f"{folder}: no lock there ({error.strerror}); start one run at a time."
        try:
            # If the previous holder has deleted the file, this lock belongs to no name at all.
            is_there = os.fstat(descriptor).st_ino == os.stat(path).st_ino
        except FileNotFoundError:
            is_there = False
        if is_there:
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            return descriptor, ""
        os.close(descriptor)
