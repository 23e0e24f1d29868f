"""Ranks as threads of one process, for functions that talk to the others through `Place`."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from convnextv2.distributed import Place


@dataclass
class Table:
    """The place where each rank puts a value for the others to read."""

    ranks: int
    values: list[Any] = field(init=False)
    barrier: threading.Barrier = field(init=False)

    def __post_init__(self) -> None:
        self.values, self.barrier = [None] * self.ranks, threading.Barrier(self.ranks, timeout=60)


@dataclass(frozen=True)
class Rank(Place):
    """One of several ranks that run in threads."""

    table: Table | None = None

    def gather(self, value: object) -> list[Any]:
        assert self.table is not None
        self.table.values[self.rank] = value
        self.table.barrier.wait()
        found = list(self.table.values)
        self.table.barrier.wait()
        return found

    def sum(self, counts: Tensor) -> Tensor:
        return torch.stack(self.gather(counts)).sum(0)

    def barrier(self) -> None:
        self.gather(None)


def in_ranks(ranks: int, work: Callable[[Place], Any]) -> list[Any]:
    """Call a function on each rank, and return what each returned."""
    table = Table(ranks)
    places = [Rank(torch.device("cpu"), number, ranks, ranks, table) for number in range(ranks)]
    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(work, places))
