"""Handle signals that come before the server runs.

Only the standard library is imported here, so that the handlers are set early.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType

_hangups = 0


def hold() -> None:
    """Record a SIGHUP from now on, and end the process with exit code 0 on SIGTERM.

    By default, a SIGHUP ends the process, and neither signal ends the first process of a container.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, _remember)
    signal.signal(signal.SIGTERM, _end)


def ignore() -> None:
    """Ignore both signals from now on.

    At its exit, Python restores the defaults of all other handlers, but not this one.
    """
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def was_hung_up() -> bool:
    """Return whether a SIGHUP has come since `hold`."""
    return _hangups > 0


def _remember(number: int, frame: FrameType | None) -> None:
    global _hangups
    _hangups += 1


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another one must not interrupt the end
    with suppress(OSError, RuntimeError, ValueError):  # the output may be closed
        print("Stopped before the server had started.", flush=True)
    # Not sys.exit: packages written in C drop an exception that is raised while they import others,
    # and the server would continue. No request has been accepted that could be lost.
    os._exit(0)
