"""Reading files, and waiting for files whose storage is out of reach for a while."""

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
"""The default of the longest wait for files that are out of reach, in seconds."""
LONGEST_PAUSE_S = 30.0
"""The longest pause between two tries, in seconds."""

_OUT_OF_REACH = (
    # A network file system lost its server, or a disk does not answer.
    *("ESTALE", "EIO", "EREMOTEIO", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH"),
    *("ENETDOWN", "ENETUNREACH", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED"),
    # The machine has no file handles or no memory left.
    *("EMFILE", "ENFILE", "ENOMEM"),
)
_CODES = {
    getattr(errno, name) for name in _OUT_OF_REACH if hasattr(errno, name)
}  # not all of them exist on every system


@runtime_checkable
class Stored(Protocol):
    """A sequence of the names of images that are not files, such as members of tar files."""

    def read(self, index: int) -> bytes:
        """Return the bytes of an image. The errors are those of `read_file`."""

    def take(self, indices: NDArray[np.int64]) -> Sequence[str]:
        """Return the images at these indices, in this order."""

    def names_sha256(self) -> str:
        """Return the SHA-256 of the names, relative to their common folder."""


def read_file(names: Sequence[str], index: int) -> bytes:
    """Return the bytes of a file.

    Args:
        names: The paths of all files of the data.
        index: The index of the file.

    Raises:
        StorageError: The storage is out of reach, so that other files cannot be read either.
        DataError: The file is missing or cannot be opened.
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
    """Return the error for a file that cannot be read.

    Args:
        name: The file.
        error: The error of the operating system.
        gone: Whether the folder is missing too, so that a missing file is a fault of the storage.

    Returns:
        A StorageError if the storage is at fault, and another DataError if the file is.
    """
    if error.errno in _CODES or (gone and error.errno in (errno.ENOENT, errno.ENOTDIR)):
        return StorageError(f"{name}: is out of reach ({error.strerror}).")
    return DataError(f"{name}: cannot be opened ({error.strerror}).")


def _is_folder_gone(names: Sequence[str], name: str) -> bool:
    """Return whether not only the file is missing, but its folder or all files in it.

    The folder existed when the images were listed. If a server is out of reach, the folder is
    missing, with all folders up to the mount point; or the folder is the mount point itself, which
    is then empty.
    """
    folder = os.path.dirname(name) or "."
    try:
        with os.scandir(folder) as entries:
            is_empty = next(entries, None) is None
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, *_CODES)
    # One of several folders may be empty because its only image was removed.
    return is_empty and isinstance(names, PathList) and len(names.folders) == 1 and len(names) > 1


class StorageWait:
    """Waits for files that are out of reach, up to a longest time.

    Attributes:
        waits: The number of waits.
        waited_s: The time of all waits together, in seconds.
        stop_asked: Returns whether a wait should end early. The owner of this object may set it.
    """

    def __init__(
        self,
        wait_s: float = WAIT_S,
        *,
        say: Callable[[str], None] = notice,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without a wait.

        Args:
            wait_s: The longest wait for one batch, in seconds; 0 to raise the error at once.
            say: Called with a message when a wait begins and when it ends.
            sleep: Sleeps for a number of seconds.
            clock: Returns the time in seconds, as `time.monotonic` does.
        """
        self.wait_s = wait_s
        self.waits, self.waited_s = 0, 0.0
        self.stop_asked: Callable[[], bool] = lambda: False
        self._say, self._sleep, self._clock = say, sleep, clock
        self._since: float | None = None

    def wait(self, error: StorageError, is_back: Callable[[], bool]) -> None:
        """Wait until the files can be read again.

        The pauses between tries are 1, 2, 4, ... and at most 30 seconds.

        Args:
            error: The error, whose message names a file.
            is_back: Tries to read the file, and returns whether it can be read.

        Raises:
            StorageError: The longest wait is over. The message says what to do.
            KeyboardInterrupt: `stop_asked` returned True.
        """
        if not self.wait_s:
            raise StorageError(f"{error} data_wait_s = 0, so the run does not wait.") from None
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
            f"{error} The run waited for {self.wait_s:g} s (data_wait_s). Make the file readable "
            "again, and resume the run with --resume. If only this file is damaged, remove it."
        )

    def over(self) -> None:
        """End the wait, if there is one, because the files have been read."""
        if self._since is not None:
            waited = self._end()
            self._say(f"The images can be read again after {waited:.0f} s (wait {self.waits}).")

    def _end(self) -> float:
        assert self._since is not None
        waited = self._clock() - self._since
        self.waited_s += waited
        self._since = None
        return waited

    def _pause(self, seconds: float) -> None:
        # In short pieces, because the signal that asks for a stop does not end a sleep.
        end = self._clock() + seconds
        while (left := end - self._clock()) > 0:
            self._sleep(min(left, 1.0))
            if self.stop_asked():
                raise KeyboardInterrupt
