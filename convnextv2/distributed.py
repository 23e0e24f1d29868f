"""The ranks that train together: how they find each other, what they exchange, how they leave."""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from convnextv2.device import autocast, bound_threads, choose_device
from convnextv2.errors import DeviceError, LostRankError
from convnextv2.launch import Launch, find_launch
from convnextv2.roll_call import RollCall

_Result = TypeVar("_Result")


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

    def sum_numbers(self, *numbers: float) -> list[float]:
        """Add numbers over all ranks, so that all of them make the same decision.

        The numbers are exchanged between CPUs, so this does not wait for an accelerator.
        """
        return [float(number) for number in self.sum(torch.tensor(numbers, dtype=torch.float64))]

    def gather(self, value: object) -> list[Any]:
        """Collect a value of each rank, in the order of the ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def at_step(self, step: int) -> None:
        """Publish the current step, so that the other ranks can name it if this one hangs."""
        if _roll_call is not None:
            _roll_call.step = step

    def min(self, value: int) -> int:
        """Return the smallest of the numbers of all ranks, exchanged between CPUs."""
        if self.world_size == 1:
            return value
        smallest = torch.tensor(value)
        dist.all_reduce(smallest, op=dist.ReduceOp.MIN)
        return int(smallest)

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Run the forward pass in `dtype`; float32 changes nothing."""
        # PyTorch has no autocast for some devices, even if it is not enabled.
        return nullcontext() if dtype == torch.float32 else autocast(self.device, dtype)


class SideChannel:
    """A second connection of all ranks, from CPU to CPU, for work in parallel with training.

    A thread that saves must not use the connection of the training steps: the collectives of two
    threads would mix. All ranks must open their channel together.

    Args:
        place: This rank.
        timeout_s: How long to wait for a rank that does not answer.
    """

    def __init__(self, place: Place, *, timeout_s: int) -> None:
        self.rank, self.world_size = place.rank, place.world_size
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        assert isinstance(group, dist.ProcessGroup), "every rank is in it"
        self.group = group

    def gather(self, value: object) -> list[Any]:
        """Collect a value of each rank, in the order of the ranks."""
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def together(self, action: Callable[[], _Result]) -> _Result:
        """Do something on every rank, and fail on all of them if it fails on one.

        Args:
            action: What this rank does. It must not talk to the other ranks.

        Raises:
            OSError: The action failed on some rank. The message names the rank unless it is this
                one.
        """
        failure: Exception | None = None
        result: list[_Result] = []
        try:
            result.append(action())
        except Exception as error:
            failure = error
        report = None if failure is None else (getattr(failure, "errno", None), str(failure))
        failures = self.gather(report)
        if failure is not None:
            raise failure
        for rank, found in enumerate(failures):
            if found is not None:
                number, text = found
                raise (
                    OSError(number, f"rank {rank}: {text}")
                    if number
                    else OSError(f"rank {rank}: {text}")
                )
        return result[0]


_roll_call: RollCall | None = None
_stores: dict[tuple[str, ...], Store] = {}
"""The stores in which the ranks find each other, by address and rank. Each is kept until the
process ends: if a later training used a new store, a rank could reach the remains of the old one,
and would wait there forever."""
_trainings = 0
"""The number of trainings that this process has joined."""


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
        DeviceError: The device does not exist, or the ranks cannot find each other.
    """
    global _roll_call
    launch = find_launch(os.environ)
    notes = []
    if distribute is False and launch.world_size > 1:
        raise DeviceError(
            f"distribute = False, but {launch.launcher} started {launch.world_size} ranks, "
            "which would all write the same run. Drop one of the two."
        )
    if distribute is True and not launch.launcher:
        notes.append(
            "distribute = True, but no launcher (torchrun, mpirun, SLURM) started this process: "
            "training in one process."
        )
    chosen = choose_device(device, launch.local_rank)
    if chosen.type == "cpu":
        bound_threads(launch.local_world_size)
    if launch.world_size > 1 and not dist.is_initialized():
        name = _join(launch, chosen, timeout_s)
        _roll_call = RollCall(launch.rank, launch.world_size, name)
        notes.append(
            f"{launch.world_size} ranks started by {launch.launcher}, joined by "
            f"{dist.get_backend()}."
        )
    return Place(chosen, launch.rank, launch.world_size, launch.local_world_size), notes


@contextmanager
def joined(
    device: str = "auto", distribute: bool | str = "auto", *, timeout_s: int = 600
) -> Iterator[tuple[Place, list[str]]]:
    """Join the other ranks for the duration of the block; see `start`.

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
    """Leave the other ranks after an error. Returns an error that names the rank that caused it."""
    if not dist.is_initialized():
        return None
    with suppress(ValueError):  # torchrun and mpirun send it to the remaining ranks
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cause = None
    if _roll_call is not None:
        cause = _roll_call.explain(error)
        _roll_call.fail(cause or error)
        # This wakes the others that wait for this rank in an operation, unless an object that holds
        # the group is still alive: DistributedDataParallel, or a sharded model.
        dist.destroy_process_group()
        _roll_call.wait_for_readers()
    _end()
    return cause


def _end() -> None:
    global _roll_call
    if _roll_call is not None:
        _roll_call.leave()
        _roll_call = None
    if dist.is_initialized():
        dist.destroy_process_group()
    # DistributedDataParallel leaks its group, so nothing joins gloo's threads. One that drops its
    # last Python object while the interpreter shuts down aborts the process: give them a moment.
    time.sleep(0.2)


def _join(launch: Launch, device: torch.device, timeout_s: int) -> str:
    """Join the other ranks.

    Returns:
        A name for the keys of this training in the store.
    """
    global _trainings
    if launch.local_world_size < launch.world_size and "MASTER_ADDR" not in os.environ:
        raise DeviceError(
            f"{launch.launcher} started {launch.world_size} ranks on several hosts, and "
            "MASTER_ADDR is not set. Set it (and MASTER_PORT) to the address of rank 0's host, for "
            "example with: mpirun -x MASTER_ADDR=..."
        )
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    # All ranks must agree on the port without communicating, so it follows from the job, which they
    # share. Linux gives outgoing connections no port below 32768.
    os.environ.setdefault("MASTER_PORT", str(20_000 + zlib.crc32(launch.job.encode()) % 12_000))
    backend = dist.get_default_backend_for_device(device)
    if device.type != "cpu":
        backend = f"cpu:gloo,{device.type}:{backend}"
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    key = (address, port, str(launch.rank), str(launch.world_size))
    try:
        timeout = timedelta(seconds=timeout_s)
        if key not in _stores:
            found = rendezvous("env://", launch.rank, launch.world_size, timeout=timeout)
            _stores[key] = next(found)[0]
        # torchrun also keeps its store when it restarts the ranks. Without a prefix of their own,
        # the new ranks would find the addresses of the old ones, and wait for them.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        name = f"attempt-{attempt}/training-{_trainings}"
        _trainings += 1
        dist.init_process_group(
            backend,
            store=PrefixStore(name, _stores[key]),
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=timeout,
        )
    except (RuntimeError, ValueError) as error:
        raise DeviceError(
            f"rank {launch.rank} cannot join the others at {address}:{port} ({error}). Set "
            "MASTER_ADDR and MASTER_PORT."
        ) from error
    return name
