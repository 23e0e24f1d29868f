"""Load by `hey` (the Debian package of that name), on the same machine as the server.

Its own share of the processors is measured, because the server cannot have it.
"""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any


def hey(
    url: str, body: Path, kind: str, *, seconds: float, clients: int, rate: float | None = None
) -> dict[str, Any]:
    """Send requests with `hey` for some seconds.

    The clients of one `hey` ask at the same moments. If a rate is given, it is therefore started
    eight times, one after another, so that the arrivals are spread.

    Args:
        url: The address that is asked.
        body: The file that every request sends.
        kind: Its content type.
        seconds: How long to send.
        clients: Clients that ask at the same time.
        rate: Requests per second of all clients together; None for as many as are answered.

    Returns:
        Answers per second, answers by status, the latency in ms of those with status 200, and the
        share of the processors that hey took.
    """
    parts = min(8, clients) if rate else 1
    command = ["hey", "-z", f"{seconds}s", "-c", str(clients // parts), "-m", "POST"]
    command += ["-T", kind, "-D", str(body), "-t", "60"]
    if rate:
        command += ["-q", f"{rate / (clients // parts * parts):.4f}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    running = []
    for part in range(parts):
        if part and rate:
            time.sleep(clients / rate / parts)
        running.append(
            subprocess.Popen([*command, "-o", "csv", url], stdout=subprocess.PIPE, text=True)
        )
    texts = [process.communicate()[0] for process in running]
    wall = time.perf_counter() - began
    if failed := [process.returncode for process in running if process.returncode]:
        raise RuntimeError(f"hey ended with {failed}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    tables = [[line.split(",") for line in text.splitlines()[1:]] for text in texts]
    good = sorted(1000 * float(row[0]) for rows in tables for row in rows if row[6] == "200")
    paces = [
        sum(row[6] == "200" for row in rows) / max(float(row[7]) + float(row[0]) for row in rows)
        for rows in tables
        if rows
    ]
    return {
        "per_second": sum(paces),
        "statuses": dict(Counter(row[6] for rows in tables for row in rows)),
        "p50_ms": good[len(good) // 2] if good else None,
        "p99_ms": good[int(0.99 * (len(good) - 1))] if good else None,
        "max_ms": good[-1] if good else None,
        "hey_share": cpu / wall / len(os.sched_getaffinity(0)),
    }
