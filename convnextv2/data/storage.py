"""Storage: files that may be away for a while, and how long they are waited for."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.notices import notice
from convnextv2.data.path_list import PathList
from convnextv2.errors import DataError, StorageError

WAIT_S = 300.0
"""How long files are waited for if nobody says otherwise."""
LONGEST_PAUSE_S = 30.0
"""Between two tries."""

_OUT_OF_REACH = (
    # A network file system lost its server, or a disk does not answer.
    *("ESTALE", "EIO", "EREMOTEIO", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH"),
    *("ENETDOWN", "ENETUNREACH", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED"),
    # The machine has no handles or no memory left for any file.
    *("EMFILE", "ENFILE", "ENOMEM"),
)
_CODES = {getattr(errno, name) for name in _OUT_OF_REACH if hasattr(errno, name)}  # not all systems


@runtime_checkable
class Stored(Protocol):
    """Names of images that are not files, such as members of tar files.

    It is a sequence of names too.
    """

    def read(self, index: int) -> bytes:
        """Read an image whole; raises what `read_file` does."""

    def take(self, indices: NDArray[np.int64]) -> Sequence[str]:
        """Return the images at these indices, in this order."""

    def names_sha256(self) -> str:
        """Return the hash of the names, relative to what they have in common."""


def read_file(names: Sequence[str], index: int) -> bytes:
    """Read a file whole.

    Args:
        names: The paths of all files of the data.
        index: The index of the file.

    Raises:
        StorageError: It is out of reach, as others are.
        DataError: It is missing or cannot be opened.
    """
    if isinstance(names, Stored):
        return names.read(index)
    name = names[index]
    try:
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        is_missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        raise failure(name, error, gone=is_missing and _is_folder_gone(names, name)) from None


def failure(name: str, error: OSError, *, gone: bool = False) -> DataError:
    """Say why a file cannot be read: a StorageError if nothing is wrong with the file itself.

    Args:
        name: The file.
        error: What happened.
        gone: Whether a missing file means that more than this file is missing.
    """
    if error.errno in _CODES or (gone and error.errno in (errno.ENOENT, errno.ENOTDIR)):
        return StorageError(f"{name}: is out of reach ({error.strerror}).")
    return DataError(f"{name}: cannot be opened ({error.strerror}).")


def _is_folder_gone(names: Sequence[str], name: str) -> bool:
    """Say whether more than the file is missing.

    Listing found the folder. If a server is away, the folder is missing with all that is above
    it up to the mount point, or is the mount point itself, which is then empty.
    """
    folder = os.path.dirname(name) or "."
    try:
        with os.scandir(folder) as entries:
            is_empty = next(entries, None) is None
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, *_CODES)
    # A folder among others may have lost its only image.
    return is_empty and isinstance(names, PathList) and len(names.folders) == 1 and len(names) > 1


class Patience:
    """Waits for what is out of reach, at most so long at a stretch.

    Attributes:
        waits: How often was waited.
        waited_s: How long, in seconds.
        stop_asked: Whether the wait should end early; the owner may set it.
    """

    def __init__(
        self,
        wait_s: float = WAIT_S,
        *,
        say: Callable[[str], None] = notice,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with nothing waited for.

        Args:
            wait_s: Seconds at a stretch, that is until a batch comes; 0 to wait for nothing.
            say: Takes lines for people: one when a wait begins, one when it ends.
            sleep: Sleeps so many seconds.
            clock: Seconds from any moment on.
        """
        self.wait_s = wait_s
        self.waits, self.waited_s = 0, 0.0
        self.stop_asked: Callable[[], bool] = lambda: False
        self._say, self._sleep, self._clock = say, sleep, clock
        self._since: float | None = None

    def wait(self, error: StorageError, is_back: Callable[[], bool]) -> None:
        """Wait until a new try is worth while.

        The pauses between tries are 1, 2, 4, ... and at most 30 seconds.

        Args:
            error: What is out of reach.
            is_back: Tries it.

        Raises:
            StorageError: It took too long; the message says what to do.
            KeyboardInterrupt: `stop_asked` says so.
        """
        if not self.wait_s:
            raise StorageError(f"{error} data_wait_s = 0, so it is not waited for.") from None
        if self._since is None:
            self._since = self._clock()
            self.waits += 1
            self._say(f"{error} Waiting for it, at most {self.wait_s:g} s (data_wait_s).")
        pause = 1.0
        while (left := self._since + self.wait_s - self._clock()) > 0:
            self._pause(min(pause, left))
            if is_back():
                return
            pause = min(2 * pause, LONGEST_PAUSE_S)
        self._end()
        raise StorageError(
            f"{error} It was waited for {self.wait_s:g} s (data_wait_s). Make it readable again; a "
            "run then goes on with --resume. If only this file is damaged, remove it."
        )

    def over(self) -> None:
        """Say that the wait, if there was one, is over: what was out of reach has been read."""
        if self._since is not None:
            waited = self._end()
            self._say(f"The images are there again after {waited:.0f} s (wait {self.waits}).")

    def _end(self) -> float:
        assert self._since is not None
        waited = self._clock() - self._since
        self.waited_s += waited
        self._since = None
        return waited

    def _pause(self, seconds: float) -> None:
        # In short pieces: a signal that asks for a stop does not end a sleep.
        end = self._clock() + seconds
        while (left := end - self._clock()) > 0:
            self._sleep(min(left, 1.0))
            if self.stop_asked():
                raise KeyboardInterrupt
