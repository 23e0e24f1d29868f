"""Worker processes that die while they prepare batches, and when the rank ends."""

import multiprocessing
import os
import signal
import sys
import time

import pytest
import torch
from processes import run_program
from torch.utils.data import Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from convnextv2.data import workers as workers_module
from convnextv2.data.sampler import EpochSampler, Position
from convnextv2.data.workers import MAX_WORKERS, Workers, _end_all, resolve_workers
from convnextv2.errors import DataError

NAMES = [f"{i}.jpg" for i in range(24)]


class Numbers(Dataset):
    """An item is a function of its position. One of them may end the process that prepares it."""

    def __init__(self, deadly: int | None = None, how: int = signal.SIGKILL) -> None:
        self.deadly, self.how = deadly, how

    def __getitem__(self, position: Position) -> torch.Tensor:
        if position.index == self.deadly and multiprocessing.parent_process():
            os.kill(os.getpid(), self.how)
        return torch.tensor([position.epoch, position.index])


@pytest.fixture(autouse=True)
def _quick_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch looks for dead processes every five seconds; here more often."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


def workers(images: Dataset, count: int, said: list[str], **options) -> Workers:
    return Workers(images, torch.stack, count, names=NAMES, say=said.append, **options)


def rest(epoch: int):
    sampler = EpochSampler(len(NAMES), 3, seed=1)

    def rest_of_epoch(done: int):
        sampler.set_epoch(epoch, done)
        return iter(sampler)

    return rest_of_epoch


def pids(running: Workers) -> list[int]:
    return [process.pid for process in running._iterator._workers]


@pytest.mark.parametrize("count", [1, 2])
def test_workers_that_are_killed_in_an_epoch_or_between_two_change_no_batch(count: int) -> None:
    said: list[str] = []
    expected = [list(workers(Numbers(), 0, said).run(rest(epoch))) for epoch in (0, 1)]
    running = workers(Numbers(), count, said, persistent=True)
    found = []
    for number, batch in enumerate(running.run(rest(0))):
        if number == 2:
            os.kill(pids(running)[-1], signal.SIGKILL)
        found.append(batch)
    os.kill(pids(running)[0], signal.SIGKILL)
    for epoch, batches in enumerate((found, list(running.run(rest(1))))):
        assert len(batches) == len(expected[epoch]) == 8
        assert all(torch.equal(*pair) for pair in zip(batches, expected[epoch], strict=True))
    assert running.replaced == 2 and len(said) == 2
    assert all("was ended by SIGKILL" in line and "no batch is lost" in line for line in said)
    running.end()


@pytest.mark.parametrize("how", [signal.SIGBUS])
def test_an_image_that_ends_every_process_is_named(how: signal.Signals) -> None:
    said: list[str] = []
    with pytest.raises(DataError, match=r"ended 3 times .*preparing these images: 7\.jpg\. "):
        list(workers(Numbers(7, how), 1, said).run(rest(0)))
    # A process that died before its last batches were fetched costs one line more.
    assert len(said) >= 3 and all(how.name in line for line in said)


def test_a_death_is_no_error_wherever_the_main_process_is() -> None:
    """torch's handler of SIGCHLD would raise one in the middle of whatever runs here."""
    running = workers(Numbers(), 1, [], persistent=True)
    batches = running.run(rest(0))
    next(batches)
    os.kill(pids(running)[0], signal.SIGKILL)
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        torch.ones(10).sum()
    assert len(list(batches)) == 7
    running.end()


def test_a_forked_process_leaves_the_workers_of_its_parent_alone() -> None:
    running = workers(Numbers(), 2, [], persistent=True)
    batches = running.run(rest(0))
    next(batches)
    process = os.fork()
    if process == 0:
        try:
            batches.close()
            running.end()
            _end_all()
        finally:
            os._exit(0)
    os.waitpid(process, 0)
    assert len(list(batches)) == 7 and running.replaced == 0
    short = workers(Numbers(), 1, [])  # whose processes end with each run
    batches = short.run(rest(0))
    next(batches)
    process = os.fork()
    if process == 0:
        try:
            batches.close()
        finally:
            os._exit(0)
    os.waitpid(process, 0)
    assert len(list(batches)) == 7 and short.replaced == 0
    running.end()


LEFT_OPEN = """
import sys, torch
sys.path[:0] = %r
from test_workers import Numbers, rest, workers
running = workers(Numbers(), 2, [], persistent=True)
held = running.run(rest(0))
next(held)
print("ends")
"""


def test_a_process_ends_at_once_although_its_workers_ignore_sigterm() -> None:
    program = LEFT_OPEN % [os.path.dirname(__file__), *sys.path]
    code, printed, errors = run_program("-c", program, timeout=60)
    assert code == 0 and printed == "ends\n", errors


def test_workers_are_clamped_to_the_cores_of_a_rank(monkeypatch):
    monkeypatch.setattr(workers_module, "available_cores", lambda: 8)
    assert (
        resolve_workers("auto") == (7, "")
        and resolve_workers("auto", 4) == (1, "")
        and resolve_workers("auto", 8) == (0, "")
    )
    assert resolve_workers(3) == (3, "")
    workers, note = resolve_workers(16, 2)
    assert workers == 4 and "workers = 16" in note
    monkeypatch.setattr(workers_module, "available_cores", lambda: 128)
    assert resolve_workers("auto")[0] == MAX_WORKERS
