"""The cores and the memory of this machine or container."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from convnextv2.cgroup import cpu_quota, free_memory


def available_cores() -> int:
    """Count the cores that this process may use.

    Returns:
        The number that the affinity of the process and the quota of its control group (a
        container's `--cpus`) allow. The machine may have more. A part of a core counts as one.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def processor_flags() -> set[str]:
    """Return the sets of instructions that this processor has, such as "avx2", as Linux calls them.

    Returns:
        The flags in /proc/cpuinfo; empty where they are unknown.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return set()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(found[1].split()) if found else set()


def free_host_memory() -> int | None:
    """Return the free memory of this machine or container in bytes, or None if it is unknown."""
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":") for line in file)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return None
    limit = free_memory()
    return free if limit is None else min(free, limit)


def peak_memory(pid: int) -> int:
    """Return the largest resident size that a process has had, in bytes.

    getrusage is not used, because there a child process begins with the peak of its parent.

    Args:
        pid: The process.

    Returns:
        The size; 0 if it is unknown.
    """
    try:
        with open(f"/proc/{pid}/status") as file:
            return next(
                (int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")), 0
            )
    except OSError:
        return 0
