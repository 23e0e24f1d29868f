"""Worker processes that prepare batches, and that are replaced if they die."""

from __future__ import annotations

import atexit
import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, TypeVar
from weakref import WeakSet

import torch
from torch.utils.data import DataLoader, Dataset, _utils, get_worker_info

from convnextv2.data.notices import MAX_NAMED, notice
from convnextv2.data.randomness import generator_for
from convnextv2.data.sampler import Position
from convnextv2.ending import ENDS
from convnextv2.errors import DataError
from convnextv2.kernels import choice
from convnextv2.machine import available_cores
from convnextv2.text import counted

PREFETCH = 2
"""The number of batches that each worker prepares in advance, in shared memory."""
MAX_INCIDENTS = 3
"""The run ends with an error if processes die this many times without a batch in between."""

MAX_WORKERS = 16
"""The largest number of workers for `workers: auto`. More would be limited by memory and disks."""

_END_S = 2.0  # seconds after an error within which the process that caused it ends

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Rest = Callable[[int], Iterable[list[Position]]]
"""Maps the number of batches that are done to the remaining batches of positions."""

_SIGNS = {
    signal.SIGKILL: ", which the system sends when memory runs out",
    signal.SIGBUS: ", which is what happens when /dev/shm is full",
}


class Death(NamedTuple):
    """The end of a worker process.

    Attributes:
        pid: The id of the process.
        how: The cause, as the end of a sentence, such as "ended with status 1".
        image: The index of the image that it was preparing; -1 if there was none.
    """

    pid: int
    how: str
    image: int


class Workers(Generic[Item, Prepared]):
    """Prepares batches, in this process or in worker processes.

    A batch depends on its positions alone. If a process dies, all processes are therefore started
    again from the first batch that was not delivered, and the batches stay the same.

    Attributes:
        count: The number of worker processes; 0 to prepare batches in this process.
        replaced: The number of processes that died and were replaced.
    """

    def __init__(
        self,
        images: Dataset[Item],
        collate: Callable[[Sequence[Item]], Prepared],
        count: int,
        *,
        names: Sequence[str],
        persistent: bool = False,
        pin_memory: bool = False,
        after_death: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = notice,
    ) -> None:
        """Create the loader. Processes are started by `run`.

        Args:
            images: Maps a `Position` to an item for `collate`. An exception ends the run, so an
                image that cannot be read must be returned as a value.
            collate: Joins items into a batch.
            count: The number of processes.
            names: The names of the images, by index, for messages.
            persistent: Whether the processes are kept after `run` for the next `run`.
            pin_memory: Whether batches are copied to pinned memory, from which a GPU copies faster.
            after_death: Called when processes have died and all others have been ended, to repair
                shared state such as locks.
            say: Called with a message when a process is replaced.
        """
        self.count, self.replaced = count, 0
        self._names, self._say, self._after_death = names, say, after_death
        self._plan = _Plan()
        self._in_hand = torch.full((count,), -1)
        if count:
            self._in_hand.share_memory_()
        self._build = partial(
            DataLoader,
            _Watched(images, self._in_hand),
            batch_sampler=self._plan,
            num_workers=count,
            collate_fn=collate,
            prefetch_factor=PREFETCH if count else None,
            persistent_workers=persistent and count > 0,
            pin_memory=pin_memory,
            worker_init_fn=partial(_start, choice.chosen()),
        )
        self._loader = self._fresh()
        self._iterator: Any = None  # torch's, which knows the processes
        self._persistent, self._owner = persistent, os.getpid()
        _every.add(self)

    def run(self, rest: Rest) -> Iterator[Prepared]:
        """Prepare batches, in order.

        Args:
            rest: Returns the batches of positions that remain after a number of batches.

        Raises:
            DataError: Processes die repeatedly, or cannot be started.
        """
        done, incidents, is_begun = 0, list[list[Death]](), False
        try:
            while True:
                try:
                    _check(self._iterator)
                    if not is_begun:
                        self._begin(partial(rest, done))
                        is_begun = True
                    prepared: Prepared | None = next(self._iterator, None)
                except Exception as error:
                    found = self._deaths(error)
                    if not found:
                        raise
                    incidents.append(found)
                    self._replace(found)
                    is_begun = False
                    if len(incidents) >= MAX_INCIDENTS:
                        batch = next(iter(rest(done)), [])
                        raise DataError(self._explain(incidents, batch)) from None
                    continue
                if prepared is None:
                    return
                yield prepared
                done += 1
                incidents.clear()
        finally:
            # `rest` may refer to an object that refers to these workers. In such a cycle, the
            # garbage collector would end the workers in an order that makes torch wait for them.
            self._plan.rest = list
            if not self._persistent:
                self.end()

    def end(self) -> None:
        """End the processes. A later `run` starts new ones."""
        # A forked process, such as a worker of another loader, has a copy of this object. It must
        # not end the processes, which are not its children, and whose ids may have been reused.
        if self._iterator is not None and os.getpid() == self._owner:
            _abandon(self._iterator)
            self._iterator, self._loader = None, self._fresh()

    def _fresh(self) -> DataLoader[Any]:
        # Without a generator, each pass would draw from torch's global one.
        return self._build(generator=generator_for("loader"))

    def _begin(self, rest: Callable[[], Iterable[list[Position]]]) -> None:
        self._plan.rest = rest
        self._in_hand.fill_(-1)
        try:
            self._iterator = iter(self._loader)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
                raise
            raise DataError(
                f"workers = {self.count}: the processes cannot be started ({error.strerror}). Use "
                "fewer."
            ) from None
        _keep_signals_away(self._iterator)

    def _deaths(self, error: Exception) -> list[Death]:
        """Return the dead processes, which may be the cause of an error."""
        processes = _processes(self._iterator)
        # torch may report that a batch cannot be fetched while the operating system is still ending
        # the process that prepared it.
        deadline = time.monotonic() + _END_S
        while _all_live(self._iterator) and processes and time.monotonic() < deadline:
            time.sleep(0.01)
        found = [
            Death(process.pid, _how(process.exitcode), int(self._in_hand[number]))
            for number, process in enumerate(processes)
            if not process.is_alive()
        ]
        if not found and "DataLoader worker (pid" in str(error):  # it died while being started
            return [Death(0, "ended while it was started", -1)]
        return found

    def _replace(self, deaths: Sequence[Death]) -> None:
        self.end()
        self._after_death()
        self.replaced += len(deaths)
        for death in deaths:
            had = f" It was preparing {self._names[death.image]}." if death.image >= 0 else ""
            who = f"Worker process {death.pid}" if death.pid else "A worker process"
            self._say(f"{who} {death.how}.{had} It is replaced; no batch is lost.")

    def _explain(self, incidents: Sequence[Sequence[Death]], batch: Sequence[Position]) -> str:
        deaths = [death for incident in incidents for death in incident]
        indices = [death.image for death in deaths if death.image >= 0]
        indices = indices or [position.index for position in batch]
        names = list(dict.fromkeys(self._names[index] for index in indices))
        more = ", ..." if len(names) > MAX_NAMED else ""
        return (
            f"worker processes ended {len(incidents)} times before one batch was ready; the last "
            f"{deaths[-1].how}. They were preparing these images: "
            f"{', '.join(names[:MAX_NAMED])}{more}. Use fewer workers or smaller images, give the "
            "job more memory, or remove the image if it is always the same one."
        )


_every: WeakSet[Workers[Any, Any]] = WeakSet()


@atexit.register
def _end_all() -> None:
    """End the worker processes when this process ends.

    multiprocessing would send SIGTERM, which workers ignore, and then wait for them forever.
    """
    for workers in list(_every):
        workers.end()


class _Plan:
    """The batches to prepare next. `Workers` replaces them at each start."""

    rest: Callable[[], Iterable[list[Position]]] = list

    def __iter__(self) -> Iterator[list[Position]]:
        return iter(self.rest())


class _Watched(Dataset[Item]):
    """Images that record which of them each process is preparing, for `Death.image`."""

    def __init__(self, images: Dataset[Item], in_hand: torch.Tensor) -> None:
        self.images, self.in_hand = images, in_hand

    def __getitem__(self, position: Position) -> Item:
        worker = get_worker_info()
        if worker is None:
            return self.images[position]
        self.in_hand[worker.id] = position.index
        item = self.images[position]
        self.in_hand[worker.id] = -1
        return item


class _DeadError(Exception):
    """A process was found dead before a batch was requested."""


def _processes(iterator: Any) -> list[Any]:
    return getattr(iterator, "_workers", [])


def _check(iterator: Any) -> None:
    # torch would notice only while it waits for a batch, where it looks every five seconds.
    if not _all_live(iterator):
        raise _DeadError


def _all_live(iterator: Any) -> bool:
    return all(process.is_alive() for process in _processes(iterator))


def _keep_signals_away(iterator: Any) -> None:
    """Stop torch's handler of SIGCHLD from raising an error when one of these processes dies.

    The error would occur anywhere in the main thread, for example in the middle of a step of the
    optimizer. `run` notices dead processes itself, between batches.
    """
    if getattr(iterator, "_worker_pids_set", False):
        _utils.signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]
        iterator._worker_pids_set = False


def _abandon(iterator: Any) -> None:
    """Kill the processes.

    torch's own shutdown acquires locks, which a process may have held when it was killed.
    """
    if not _processes(iterator):
        return
    iterator._shutdown = True
    _keep_signals_away(iterator)
    thread = getattr(iterator, "_pin_memory_thread", None)
    if thread is not None:
        iterator._pin_memory_thread_done_event.set()
        thread.join(timeout=10)  # it checks the event every five seconds
    for process in iterator._workers:
        process.kill()
    for process in iterator._workers:
        process.join(timeout=5)
    for queue in iterator._index_queues:
        queue.cancel_join_thread()
        queue.close()


def _how(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"ended with status {exitcode}"
    try:
        number = signal.Signals(-exitcode)
    except ValueError:  # a real-time signal
        return f"was ended by signal {-exitcode}"
    return f"was ended by {number.name}{_SIGNS.get(number, '')}"


def _start(kernels: choice.Choice, worker: int) -> None:
    # torchrun, SLURM, systemd and GNU timeout send SIGTERM to all processes of a job, and a closed
    # terminal sends SIGHUP. If a worker died of it, its rank could not save before it ends. Workers
    # end with their rank.
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)
    # Only a forked worker inherits the choice of kernels. A spawned worker starts with "auto".
    if kernels == "plain":
        choice.choose("plain")


def resolve_workers(setting: int | Literal["auto"], local_ranks: int = 1) -> tuple[int, str]:
    """Return the number of worker processes of a rank, and a message if it had to be reduced.

    Args:
        setting: A number, which is limited to the rank's share of the cores; or "auto" for that
            share minus one core for the rank itself, but at most MAX_WORKERS.
        local_ranks: The number of ranks on this machine.
    """
    share = max(1, available_cores() // local_ranks)
    if setting == "auto":
        return min(share - 1, MAX_WORKERS), ""
    if setting > share:
        return (
            share,
            f"workers = {setting}: this rank has {counted(share, 'core(s)')}, so {share} used.",
        )
    return setting, ""
