"""The share of the machine that a container may use, by the limits of its control groups.

Docker's `--cpus`, Kubernetes' `limits` and systemd's `CPUQuota=` change neither the cores that a
process may run on nor the content of /proc/meminfo. They are found only in the files of its control
group, and the limits of the groups above it apply too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NO_LIMIT = 1 << 60
"""Bytes. A limit of this size or more is none: version 1 then states the largest multiple of a
page."""


@dataclass(frozen=True)
class _Hierarchy:
    """A tree of control groups: version 1 or 2, and our folder in it with those above."""

    version: int
    groups: tuple[Path, ...]


def cpu_quota(proc: Path = Path("/proc/self")) -> float | None:
    """Read how many cores' worth of time this process may take.

    Args:
        proc: The folder that holds `cgroup` and `mountinfo` of the process.

    Returns:
        Cores, such as 1.5, or None if there is no limit.
    """
    quotas = [
        quota
        for hierarchy in _hierarchies(proc, "cpu")
        for group in hierarchy.groups
        if (quota := _quota(group, hierarchy.version)) is not None
    ]
    return min(quotas, default=None)


def free_memory(proc: Path = Path("/proc/self")) -> int | None:
    """Read how much more memory this process may take before its control group is full.

    Args:
        proc: The folder that holds `cgroup` and `mountinfo` of the process.

    Returns:
        Bytes, or None if there is no limit. The inactive part of the page cache counts as free.
    """
    rooms = [
        room
        for hierarchy in _hierarchies(proc, "memory")
        for group in hierarchy.groups
        if (room := _room(group, hierarchy.version)) is not None
    ]
    return min(rooms, default=None)


def _quota(group: Path, version: int) -> float | None:
    if version == 2:
        quota, _, period = _text(group / "cpu.max").partition(" ")
    else:
        quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
    # "max" of version 2 and "-1" of version 1 mean no limit; neither consists of digits.
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _room(group: Path, version: int) -> int | None:
    names = ("max", "current") if version == 2 else ("limit_in_bytes", "usage_in_bytes")
    limit, usage = (_text(group / f"memory.{name}") for name in names)
    if not (limit.isdecimal() and usage.isdecimal()) or int(limit) >= _NO_LIMIT:
        return None
    # In version 1, the fields that include the groups below have names of their own.
    field = "inactive_file" if version == 2 else "total_inactive_file"
    cached = re.search(rf"^{field} (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
    return max(0, int(limit) - int(usage) + (int(cached[1]) if cached else 0))


def _hierarchies(proc: Path, controller: str) -> Iterator[_Hierarchy]:
    """Find the trees that may limit what `controller` controls, of version 1 and version 2."""
    ours = {}  # our path in the tree of each controller; version 2's tree goes by no name
    for line in _text(proc / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        ours.update(dict.fromkeys(controllers.split(","), path))
    for line in _text(proc / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        root, point = (_unescape(field) for field in before.split()[3:5])
        kind, _, options = after.split()[:3]
        if kind == "cgroup2" and "" in ours:
            yield _Hierarchy(2, _folders(Path(point), root, ours[""]))
        elif kind == "cgroup" and controller in options.split(",") and controller in ours:
            yield _Hierarchy(1, _folders(Path(point), root, ours[controller]))


def _folders(point: Path, root: str, path: str) -> tuple[Path, ...]:
    """Find the folder of a group and those above it, as far as they are mounted here.

    Args:
        point: Where the tree is mounted.
        root: The group that is mounted there. Docker mounts the container's own, not the tree's.
        path: The group.
    """
    try:
        below = Path(path).relative_to(root)
    except ValueError:  # elsewhere in the tree: what is mounted is the nearest that we can see
        below = Path()
    if ".." in below.parts:
        below = Path()
    return tuple(point.joinpath(*below.parts[:depth]) for depth in range(len(below.parts) + 1))


def _unescape(field: str) -> str:
    """Undo the octal escapes by which mountinfo writes blanks."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _text(path: Path) -> str:
    """Read a small file of the kernel. Returns an empty text if there is none."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
