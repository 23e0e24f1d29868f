"""Lets a command clean up when a signal ends it.

By default, SIGTERM and SIGHUP end a process at once, and what it has begun to write stays behind.
Here they raise `Ended` in the main thread, as Ctrl-C raises KeyboardInterrupt, so that every `with`
and `finally` on the way out is run.

Packages written in C may drop an exception that is raised while they import other modules, so
nothing is raised during an import. Before the verb is loaded, the process ends at once, since there
is nothing to clean up. Later, the exception is raised once the import is done.

A process that is killed with SIGKILL cannot end its child processes, so these end by themselves. On
every platform, the system closes the pipe between them and the parent when the parent ends.

Only the standard library is imported here, so that the handlers can be installed early.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from convnextv2.errors import GO_ON_LATER, Ended

ENDS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)
)
"""The signals that ask a command to end. Windows has no SIGHUP."""

_SAME_S = 2.0
"""A signal that follows another one within this many seconds counts as the same request: GNU
timeout sends each signal twice, and users press Ctrl-C twice. The second one must not interrupt the
clean-up."""
_RETRY_S = 0.05
_IMPORT_SYSTEM = ("importlib._bootstrap", "_frozen_importlib")
"""The names of the module that imports modules: after `importlib` is imported, and before."""


def quiet_interrupts() -> None:
    """Make Ctrl-C end the process with one line, for the time before any work has begun."""
    with suppress(ValueError):  # not in the main thread
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupted)


def _interrupted(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, b"convnextv2: interrupted\n")
    os._exit(128 + number)


def stop_early() -> None:
    """Make SIGTERM and SIGHUP end the process as a stopped run, for the time before the run begins.

    A launcher may stop its ranks at any moment, even while they import PyTorch. Nothing is wrong
    with the command, so it may be started again.
    """
    for number in set(ENDS) - {signal.SIGINT}:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stopped)


def _stopped(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, b"convnextv2: stopped as asked before the run began\n")
    os._exit(GO_ON_LATER)


@contextmanager
def unwinding() -> Iterator[None]:
    """Let the signals that end a command raise `Ended` inside the block.

    A signal that is already handled or ignored, for example by nohup, is left as it is. In
    processes that are forked inside the block, the signals have their default effect.
    """
    asked = _Asked()
    before = {}
    with suppress(ValueError):  # not in the main thread: whoever owns the signals keeps them
        for number in ENDS:
            handler = signal.getsignal(number)
            if handler in (signal.SIG_DFL, signal.default_int_handler, _interrupted, _stopped):
                signal.signal(number, asked.end)
                before[number] = handler
    try:
        yield
    finally:
        asked.forget()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Asked:
    """Handles the signals that ask this process to end."""

    def __init__(self) -> None:
        self._process, self._last, self._waiting = os.getpid(), float("-inf"), 0

    def end(self, number: int, frame: FrameType | None) -> None:
        """Raise `Ended`, once no module is being imported."""
        if os.getpid() != self._process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if self._waiting or time.monotonic() - self._last < _SAME_S:
            return
        if _imports(frame) and hasattr(signal, "setitimer"):
            if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
                self._waiting = number
                signal.signal(signal.SIGALRM, self._look_again)
                signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
                return
        self._last = time.monotonic()
        raise Ended(number)

    def _look_again(self, number: int, frame: FrameType | None) -> None:
        asked = self._waiting
        self.forget()
        if asked:
            self.end(asked, frame)

    def forget(self) -> None:
        """Stop waiting for the end of an import."""
        if self._waiting:
            self._waiting = 0
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _imports(frame: FrameType | None) -> bool:
    """Return whether a module is being imported."""
    while frame is not None:
        if frame.f_globals.get("__name__") in _IMPORT_SYSTEM:
            return True
        frame = frame.f_back
    return False


def end_with_stdin(clean_up: Callable[[], object]) -> None:
    """End this process when the other end of its standard input is closed.

    The process that started it holds the other end, and writes nothing.

    Args:
        clean_up: Called before the end. It must not raise an error.
    """

    def watch() -> None:
        with suppress(OSError):
            while os.read(0, 1):  # not sys.stdin, whose lock Python takes when it ends
                pass
        clean_up()
        os._exit(GO_ON_LATER)

    threading.Thread(target=watch, name="end with stdin", daemon=True).start()


def end_with_parent() -> None:
    """End this process, which multiprocessing started, when its parent ends.

    Without this, the process would only find out when it returns its result.
    """
    from multiprocessing import parent_process

    parent = parent_process()
    assert parent is not None, "multiprocessing has started this process"

    def watch() -> None:
        parent.join()
        os._exit(GO_ON_LATER)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
