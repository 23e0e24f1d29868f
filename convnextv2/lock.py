"""Locks that keep two processes from writing one folder, or from making one result.

The system releases a lock when its process ends in any way, so a killed process leaves nothing to
clean up. Network file systems support these locks too (NFS from version 4 on, or with lockd).
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from convnextv2.errors import RunError
from convnextv2.files import temporary_folders

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_held: set[Path] = set()  # since the system lets a process take its own lock twice


@contextmanager
def locked(folder: Path, *, option: str = "out", shown: Path | None = None) -> Iterator[str]:
    """Hold the lock of a folder that is written, which is created if it is missing.

    Child processes do not inherit this kind of lock (`fcntl.lockf`), so a worker that outlives its
    rank for a moment does not block the next start.

    Args:
        folder: The folder.
        option: The option that names it, for the message.
        shown: What the message names in place of the folder.

    Yields:
        A line to announce if the file system has no locks; else an empty text.

    Raises:
        RunError: This process or another one is writing there already.
        OSError: The folder or the lock file cannot be created.
    """
    name = f"{option} = {shown or folder}"
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{name}: exists already and is not a folder. Choose another one.")
    with temporary_folders(folder):  # they stay if something is written
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.resolve() / LOCK
        if path in _held:
            raise RunError(f"{name}: this process is writing there already.")
        descriptor = None
        try:
            descriptor, note = _take(path, name)
            _held.add(path)
            yield note
        finally:
            _held.discard(path)
            if descriptor is not None:
                path.unlink(missing_ok=True)  # while the lock is held; see _take
                os.close(descriptor)


@contextmanager
def building(target: Path, *, option: str = "out") -> Iterator[Path]:
    """Provide an empty folder beside a target, to build in it what then gets the target's name.

    The folder is removed at the end. Its lock keeps other processes from building the same target,
    and what a killed process left in it is removed first.

    Args:
        target: What is made: a file or a folder. The folder that it lies in is created.
        option: The option that names it, for the message.

    Yields:
        The folder. It is on the same file system as the target.

    Raises:
        RunError: This process or another one is making the target.
        OSError: The folder cannot be created.
    """
    absolute = Path(os.path.abspath(target))
    folder = absolute.with_name(f".{absolute.name}.tmp")
    try:
        with locked(folder, option=option, shown=target) as note:
            if note:
                print(note, file=sys.stderr)
            _clear(folder)
            try:
                yield folder
            except OSError as error:
                if error.filename is None:  # ONNX and others write to an open file
                    error.filename = str(target)
                raise
            finally:
                _clear(folder)
    finally:
        with suppress(OSError):  # it is not empty if another process has just taken it
            folder.rmdir()


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def _take(path: Path, name: str) -> tuple[int | None, str]:
    """Take the lock. Returns its descriptor, None without locks, and a line to announce."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # the previous holder has just removed the folder
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            if fcntl is None:
                raise OSError(errno.ENOTSUP, "no locks")
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise RunError(
                    f"{name}: {holder or 'another process'} is writing there. Wait until it ends, "
                    "stop it, or choose another place."
                ) from None
            path.unlink(missing_ok=True)
            return None, f"{path.parent}: no locks there ({error.strerror}); start one at a time."
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
