"""Notify systemd of the state of the server, for units of `Type=notify` and `notify-reload`.

The protocol is described in sd_notify(3).
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress


def notify(*lines: str) -> None:
    """Send assignments such as READY=1 to systemd, if it listens.

    Args:
        lines: The assignments.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto(
            "\n".join(lines).encode(),
            address.replace("@", "\0", 1) if address[0] == "@" else address,
        )


def notify_reloading() -> None:
    """Notify systemd that a reload has begun. READY=1 ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
