"""The limits of containers, read from files as the kernel writes them: cgroups(7), proc(5)."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import run_program

from convnextv2 import device, machine
from convnextv2.cgroup import cpu_quota, free_memory
from convnextv2.data.workers import resolve_workers

V2 = "31 23 0:28 {root} {mount} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "31 23 0:28 {root} {mount} rw,nosuid master:9 - cgroup cgroup rw,{controller}"

Make = Callable[..., Path]


@pytest.fixture
def proc(tmp_path: Path) -> Make:
    """A process's folder in /proc.

    groups: its cgroup file. mounts: folder, pattern, root. files: name to text."""

    def make(groups: str, mounts: list[tuple[str, str, str]], files: dict[str, str]) -> Path:
        lines = ["22 1 254:0 / / rw,relatime - ext4 /dev/vda rw"]
        for folder, pattern, root in mounts:
            controller = folder.removeprefix("v1/")
            mount = str(tmp_path / folder).replace(" ", "\\040")
            lines.append(pattern.format(root=root, mount=mount, controller=controller))
        (tmp_path / "mountinfo").write_text("\n".join(lines) + "\n")
        (tmp_path / "cgroup").write_text(groups)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return make


def test_docker_with_a_namespace_of_version_2(proc: Make) -> None:
    """docker run --cpus=2 --memory=1g"""
    files = {
        "cg/cpu.max": "200000 100000\n",
        "cg/memory.max": "1073741824\n",
        "cg/memory.current": "400000000\n",
        "cg/memory.stat": "anon 250000000\nfile 150000000\ninactive_file 100000000\n",
    }
    made = proc("0::/\n", [("cg", V2, "/")], files)
    assert cpu_quota(made) == 2
    assert free_memory(made) == 1073741824 - 400000000 + 100000000


def test_the_narrowest_of_the_groups_above_counts(proc: Make) -> None:
    """A unit without a quota of its own in a slice with CPUQuota=150% and MemoryMax"""
    files = {
        "cg/app.slice/cpu.max": "150000 100000\n",
        "cg/app.slice/memory.max": "1000\n",
        "cg/app.slice/memory.current": "300\n",
        "cg/app.slice/web.service/cpu.max": "max 100000\n",
        "cg/app.slice/web.service/memory.max": "5000\n",
        "cg/app.slice/web.service/memory.current": "200\n",
    }
    made = proc("0::/app.slice/web.service\n", [("cg", V2, "/")], files)
    assert cpu_quota(made) == 1.5
    assert free_memory(made) == 700


def test_docker_of_version_1_which_mounts_the_own_group_only(proc: Make) -> None:
    """cgroup names the host's path; mountinfo says that this very group is mounted."""
    files = {
        "v1/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
        "v1/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "v1/memory/memory.limit_in_bytes": "2000\n",
        "v1/memory/memory.usage_in_bytes": "1500\n",
        "v1/memory/memory.stat": "inactive_file 10\ntotal_inactive_file 400\n",
    }
    mounts = [("v1/cpu,cpuacct", V1, "/docker/4f2a"), ("v1/memory", V1, "/docker/4f2a")]
    made = proc(
        "5:memory:/docker/4f2a\n3:cpu,cpuacct:/docker/4f2a\n1:name=systemd:/docker/4f2a\n",
        mounts,
        files,
    )
    assert cpu_quota(made) == 0.5
    assert free_memory(made) == 900


def test_no_limit_in_either_version(proc: Make) -> None:
    """The two at once, as on machines that are on their way from one to the other"""
    files = {
        "v1/cpu/jobs/cpu.cfs_quota_us": "-1\n",
        "v1/cpu/jobs/cpu.cfs_period_us": "100000\n",
        "v1/memory/jobs/memory.limit_in_bytes": "9223372036854771712\n",
        "v1/memory/jobs/memory.usage_in_bytes": "1500\n",
        "unified/jobs/cgroup.procs": "",
    }
    mounts = [("v1/cpu", V1, "/"), ("v1/memory", V1, "/"), ("unified", V2, "/")]
    made = proc("4:memory:/jobs\n1:cpu:/jobs\n0::/jobs\n", mounts, files)
    assert cpu_quota(made) is None
    assert free_memory(made) is None


def test_a_group_outside_of_what_is_mounted_is_the_mounted_one(proc: Make) -> None:
    """A process moved into a container later sees its own path with dots, or the host's."""
    for path in ("/../other", "/system.slice/other"):
        made = proc(
            f"0::{path}\n", [("a folder", V2, "/kubepods")], {"a folder/cpu.max": "300000 100000\n"}
        )
        assert cpu_quota(made) == 3, path


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert free_memory(tmp_path) is None


@pytest.mark.parametrize(
    ("quota", "cores"), [(None, 64), (2.0, 2), (1.5, 2), (0.5, 1), (100.0, 64)]
)
def test_cores_are_those_of_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert machine.available_cores() == cores
    assert resolve_workers("auto")[0] == min(cores - 1, 16)


def test_memory_is_that_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 12345)
    assert device.available_memory(torch.device("cpu")) == 12345
    monkeypatch.setattr(machine, "free_memory", lambda: 1 << 60)
    available = device.available_memory(torch.device("cpu"))
    assert available is None or available < 1 << 60


def test_threads_are_no_more_than_the_cores_of_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import torch; torch.set_num_threads(8); from convnextv2 import device, machine; "
        "machine.cpu_quota = lambda: 1.0; "
        "device.choose_device('cpu'); print(torch.get_num_threads())"
    )
    monkeypatch.delenv("OMP_NUM_THREADS")
    for given, threads in (({}, 1), ({"OMP_NUM_THREADS": "3"}, 8)):
        code, printed, errors = run_program("-c", script, **given)
        assert code == 0 and int(printed) == threads, errors
