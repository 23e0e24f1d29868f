"""The folders where a compiled library is kept between runs, and whether each can be trusted.

A library in such a folder is loaded, so its code runs with all the rights of this user. A folder
that belongs to another user, or that others can write to, is therefore skipped.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def cache_folders(say: Callable[[str], None]) -> Iterator[Path]:
    """Find the folders where libraries may be kept, the first choice first.

    The first is the one that CONVNEXTV2_CACHE names, or else `convnextv2` in the user's cache. The
    second is a folder of this user in the system's temporary folder. A missing folder is created.

    Args:
        say: Takes one line for each folder that is skipped, with the reason and the remedy.

    Yields:
        Folders that nobody else can write to. They may be read-only.
    """
    for find in (_of_the_user, _among_the_temporary):
        try:
            folder = find()
            reason = distrust(folder) or _distrust_above(folder)
        except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
            say(f"{_plain(error)}; CONVNEXTV2_CACHE = FOLDER names another.")
            continue
        if reason:
            say(f"{reason}, so nothing is loaded from it; CONVNEXTV2_CACHE = FOLDER names another.")
        else:
            yield folder


def distrust(path: Path) -> str:
    """Return why a file or folder cannot be trusted; "" if only this user and root can change it.

    Raises:
        OSError: Its owner and mode cannot be read.
    """
    found = path.stat()
    if found.st_uid not in (os.getuid(), 0):
        return f"{path} belongs to another user (number {found.st_uid})"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to {path} (chmod go-w {path} prevents that)"
    return ""


def _distrust_above(folder: Path) -> str:
    """Return which parent folder lets anybody replace this folder; "" if none does."""
    for above in folder.parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            remedy = f"chmod o-w {above} prevents that"
            return f"others may write to {above} ({remedy}), which holds {folder}"
    return ""


def _of_the_user() -> Path:
    named = os.environ.get("CONVNEXTV2_CACHE")
    general = os.environ.get("XDG_CACHE_HOME")
    folder = Path(named or Path(general or Path.home() / ".cache") / "convnextv2")
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder.resolve(strict=True)


def _among_the_temporary() -> Path:
    folder = Path(tempfile.gettempdir()).resolve(strict=True) / f"convnextv2-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink():  # anybody may have created it, to point elsewhere
        raise OSError(f"{folder} is a link and not a folder")
    return folder


def _plain(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error).rstrip(".") or type(error).__name__
