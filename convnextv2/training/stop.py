"""Let signals ask training for a stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from convnextv2.ending import ENDS


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Let signals ask for a stop after the current step. A second SIGINT interrupts at once.

    The signals are SIGINT, SIGTERM and SIGHUP. SIGHUP is sent when the terminal is closed. It stays
    ignored if nohup has set that.

    Yields:
        A function that returns whether a signal has asked for a stop.
    """
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if number in received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    with ExitStack() as stack:
        try:
            for number in ENDS:
                if number != signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                stack.callback(signal.signal, number, signal.signal(number, remember))
        except ValueError:  # only the main thread may set handlers
            pass
        yield lambda: bool(received)
