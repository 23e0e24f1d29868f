"""Where we run: the ranks that torchrun, mpirun or SLURM started, and the device of this rank."""

from __future__ import annotations

import math
import os
import signal
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

from convnextv2.cgroup import cpu_quota, free_memory
from convnextv2.errors import DeviceError, LostRankError
from convnextv2.roll_call import RollCall


@dataclass(frozen=True)
class Launch:
    """A process's place among those that a launcher started, as its environment states it.

    Attributes:
        launcher: "torchrun", "mpirun", "SLURM", or "" if there is none.
        rank: The number of this process.
        world_size: The number of all processes.
        local_rank: The number of this process on its host.
        local_world_size: The number of processes on its host.
        job: The launcher's name for the job.
    """

    launcher: str = ""
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    job: str = ""


@dataclass(frozen=True)
class Place:
    """This rank among the others, and its device."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """True on the one rank that prints and writes."""
        return self.rank == 0

    def sum(self, counts: Tensor) -> Tensor:
        """Add a tensor over all ranks, on the CPU, because not every device has float64."""
        counts = counts.cpu()
        if self.world_size > 1:
            dist.all_reduce(counts)
        return counts

    def barrier(self) -> None:
        """Wait for the other ranks."""
        if self.world_size > 1:
            dist.barrier()

    def share(self, *numbers: float) -> list[float]:
        """Add numbers over all ranks, so that all of them decide alike.

        The ranks talk from CPU to CPU, so this does not wait for an accelerator.
        """
        return [float(number) for number in self.sum(torch.tensor(numbers, dtype=torch.float64))]

    def gather(self, value: object) -> list[Any]:
        """A value of each rank, in their order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def at_step(self, step: int) -> None:
        """Tell the other ranks, in case that this one hangs, which step it is at."""
        if _roll_call is not None:
            _roll_call.step = step

    def least(self, value: int) -> int:
        """The smallest of a number of each rank. The ranks talk from CPU to CPU."""
        if self.world_size == 1:
            return value
        smallest = torch.tensor(value)
        dist.all_reduce(smallest, op=dist.ReduceOp.MIN)
        return int(smallest)

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Run the forward pass in `dtype`; float32 changes nothing."""
        return (
            nullcontext()
            if dtype == torch.float32
            else torch.autocast(self.device.type, dtype=dtype)
        )


def find_launch(env: Mapping[str, str]) -> Launch:
    """Read the environment variables of the launchers; torchrun wins over mpirun over SLURM.

    SLURM counts only inside a step of several tasks: a plain `python` inside an allocation is one process."""

    def number(name: str) -> int:
        return int(env.get(name) or 0)

    if "RANK" in env and "WORLD_SIZE" in env:
        return Launch(
            "torchrun",
            number("RANK"),
            number("WORLD_SIZE"),
            number("LOCAL_RANK"),
            number("LOCAL_WORLD_SIZE") or 1,
        )
    if "OMPI_COMM_WORLD_SIZE" in env:
        rank, world_size, local_rank, local_world_size = (
            number(f"OMPI_COMM_WORLD_{name}")
            for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
        )
        return Launch(
            "mpirun",
            rank,
            world_size,
            local_rank,
            local_world_size,
            job=env.get("PMIX_NAMESPACE", ""),
        )
    if (tasks := number("SLURM_STEP_NUM_TASKS")) > 1:
        per_node = tasks // (number("SLURM_STEP_NUM_NODES") or 1)
        return Launch(
            "SLURM",
            number("SLURM_PROCID"),
            tasks,
            number("SLURM_LOCALID"),
            per_node,
            job=env.get("SLURM_JOB_ID", ""),
        )
    return Launch()


_roll_call: RollCall | None = None


def start(
    device: str = "auto", distribute: bool | str = "auto", *, timeout_s: int = 600
) -> tuple[Place, list[str]]:
    """Join the other ranks, if a launcher started any, and choose the device.

    Args:
        device: See `choose_device`.
        distribute: Whether to use the ranks of a launcher.
        timeout_s: How long to wait for a rank that does not answer.

    Returns:
        The place, and lines to announce.

    Raises:
        DeviceError: The device is not there, or the ranks cannot find each other.
    """
    global _roll_call
    launch = find_launch(os.environ)
    notes = []
    if distribute is False and launch.world_size > 1:
        raise DeviceError(
            f"distribute = False, but {launch.launcher} started {launch.world_size} ranks, which would all write the same run. "
            "Drop one of the two."
        )
    if distribute is True and not launch.launcher:
        notes.append(
            "distribute = True, but no launcher (torchrun, mpirun, SLURM) started this process: training in one process."
        )
    chosen = choose_device(device, launch.local_rank)
    if chosen.type == "cpu":
        bound_threads(launch.local_world_size)
    if launch.world_size > 1 and not dist.is_initialized():
        _join(launch, chosen, timeout_s)
        _roll_call = RollCall(launch.rank, launch.world_size)
        notes.append(
            f"{launch.world_size} ranks started by {launch.launcher}, joined by {dist.get_backend()}."
        )
    return Place(chosen, launch.rank, launch.world_size, launch.local_world_size), notes


@contextmanager
def joined(
    device: str = "auto", distribute: bool | str = "auto", *, timeout_s: int = 600
) -> Iterator[tuple[Place, list[str]]]:
    """Be among the other ranks; see `start`.

    Yields:
        The place, and lines to announce.

    Raises:
        LostRankError: In place of an error whose cause is another rank; it names the rank.
    """
    place, notes = start(device, distribute, timeout_s=timeout_s)
    try:
        yield place, notes
        leave()
    except BaseException as error:
        cause = _leave_failed(error)
        if cause is None:
            raise
        raise cause from error


def leave() -> None:
    """Leave the other ranks together with them; does nothing for a single process."""
    if dist.is_initialized():
        dist.barrier()  # rank 0 holds the store that the others still talk to while they leave
        _end()


def _leave_failed(error: BaseException) -> LostRankError | None:
    """Leave the other ranks, of which one is perhaps the cause: then it is named."""
    if not dist.is_initialized():
        return None
    with suppress(ValueError):  # torchrun and mpirun send it to the ranks that are left
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cause = None
    if _roll_call is not None:
        cause = _roll_call.explain(error)
        _roll_call.fail(error if cause is None else None)
    _end()
    return cause


def _end() -> None:
    global _roll_call
    if _roll_call is not None:
        _roll_call.leave()
        _roll_call = None
    dist.destroy_process_group()
    # DistributedDataParallel leaks its group, so nothing joins gloo's threads. One that drops its
    # last Python object while the interpreter shuts down aborts the process: give them a moment.
    time.sleep(0.2)


def _join(launch: Launch, device: torch.device, timeout_s: int) -> None:
    if launch.local_world_size < launch.world_size and "MASTER_ADDR" not in os.environ:
        raise DeviceError(
            f"{launch.launcher} started {launch.world_size} ranks on several hosts, and MASTER_ADDR is not set. "
            "Set it (and MASTER_PORT) to the address of rank 0's host, for example with: mpirun -x MASTER_ADDR=..."
        )
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    # All ranks must agree on the port without talking, and what they share is the job. Outgoing
    # connections take no port below 32768.
    os.environ.setdefault("MASTER_PORT", str(20_000 + zlib.crc32(launch.job.encode()) % 12_000))
    backend = dist.get_default_backend_for_device(device)
    if device.type != "cpu":
        backend = f"cpu:gloo,{device.type}:{backend}"
    try:
        timeout = timedelta(seconds=timeout_s)
        store, _, _ = next(rendezvous("env://", launch.rank, launch.world_size, timeout=timeout))
        # torchrun keeps its store when it starts the ranks again. Without a name of their own, the
        # new ones would find the addresses of those that are gone, and wait for them.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        dist.init_process_group(
            backend,
            store=PrefixStore(f"attempt-{attempt}", store),
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=timeout,
        )
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise DeviceError(
            f"rank {launch.rank} cannot join the others at {where} ({error}). Set MASTER_ADDR and MASTER_PORT."
        ) from error


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device that a user means.

    Args:
        name: "auto" for the accelerator that is there, else the CPU; "gpu" for cuda; "ascend" for npu;
            or a device of PyTorch.
        local_rank: Which accelerator of the host, where the name has no number.

    Raises:
        DeviceError: The device is not there. Nothing falls back to the CPU silently.
    """
    name = {"gpu": "cuda", "ascend": "npu"}.get(name.lower(), name.lower())
    if find_spec("torch_npu"):
        import torch_npu  # type: ignore[import-not-found]  # noqa: F401  # registers the "npu" device
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        name = accelerator.type if accelerator else "cpu"
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda", "npu", "mps", "xpu"):
        raise DeviceError(f"device = {name!r}: expected auto, cpu, cuda, npu, mps or xpu.")
    if kind == "cpu":
        bound_threads()
        return torch.device("cpu")
    if accelerator is None or accelerator.type != kind:
        has = (
            f"this machine has {accelerator.type}"
            if accelerator
            else "this machine has the CPU only"
        )
        raise DeviceError(f"device = {name!r}: not available, {has}. Use device auto or cpu.")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device = {name!r}: expected {kind} or {kind}:NUMBER.") from error
    index = local_rank if device.index is None else device.index
    count = torch.accelerator.device_count()
    if index >= count:
        raise DeviceError(
            f"device = {name!r}: there is no number {index}, this machine has {count}. Start fewer ranks on it."
        )
    torch.accelerator.set_device_index(index)
    return torch.device(device.type, index)


def choose_precision(setting: str, device: torch.device) -> torch.dtype:
    """Return the dtype of autocast.

    Args:
        setting: A dtype by name, or "auto": bfloat16 if the device computes with it natively, float16
            on GPUs that have tensor cores for that only (Volta and Turing), else float32.
        device: Of this rank.
    """
    if setting != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
            setting
        ]
    if device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    elif device.type == "cuda":
        generation = torch.cuda.get_device_capability(device)[0]
        if generation == 7:
            return torch.float16
        native = generation >= 8
    else:
        native = device.type in ("npu", "xpu")
    return torch.bfloat16 if native else torch.float32


def available_cores() -> int:
    """Count the cores that this process may use.

    Returns:
        What its affinity and the quota of its control group (a container's `--cpus`) allow, not
        what the machine has. A part of a core counts as one.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def bound_threads(local_ranks: int = 1) -> None:
    """Let PyTorch start no more threads than there are cores for this process.

    PyTorch counts the machine's cores. Threads beyond a container's quota are stopped together in
    the middle of each operation. OMP_NUM_THREADS, where it is set, wins.

    Args:
        local_ranks: how many processes share the cores.
    """
    share = max(1, available_cores() // local_ranks)
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > share:
        torch.set_num_threads(share)


def available_memory(device: torch.device) -> int | None:
    """Bytes that are free on the device, or None where it does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "cpu":
        try:
            with open("/proc/meminfo") as file:
                fields = dict(line.split(":") for line in file)
            free = int(fields["MemAvailable"].split()[0]) * 1024
        except (OSError, KeyError):
            return None
        limit = free_memory()
        return free if limit is None else min(free, limit)
    return None


def peak_memory(pid: int) -> int:
    """Bytes of the largest resident size that a process has had; 0 where the system does not tell.

    Not by getrusage: there a child begins with the peak of the process that started it."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next(
                (int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")), 0
            )
    except OSError:
        return 0


def say(text: str) -> None:
    """Print a line, on the main rank only."""
    if find_launch(os.environ).rank == 0:
        print(text, flush=True)
