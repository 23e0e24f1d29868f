"""Ranks that end, hang or fail, and what the others say."""

import signal
import time

import pytest
from processes import finish_ranks, start_ranks

PROGRAM = """
import errno, os, signal, sys, time
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from convnextv2.cli import main
from convnextv2 import cli
from convnextv2.distributed import joined
from convnextv2.errors import DataError, Stopped

def work(**arguments):
    with joined("cpu", timeout_s=int(sys.argv[2])) as (place, _):
        if sharded := sys.argv[4:] == ["sharded"]:
            model = torch.nn.Linear(8, 8)
            fully_shard(model, mesh=init_device_mesh("cpu", (place.world_size,)))
        for step in range(100_000):
            place.at_step(step)
            if step == 50 and place.rank == int(sys.argv[3]):
                fault = sys.argv[1]
                if fault == "data":
                    raise DataError("7.jpg: is damaged.")
                if fault == "stop":
                    raise Stopped("stopped as asked")
                if fault == "disk":
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")
                if fault == "bug":
                    raise ZeroDivisionError("a bug")
                os.kill(os.getpid(), getattr(signal, fault))
            if sharded:
                model(torch.ones(2, 8)).sum().backward()
            else:
                place.sum(torch.ones(1))
            time.sleep(0.001)

cli.load_verb = lambda name: work
code = main(["train"])
print("exit", code, flush=True)
sys.exit(code)
"""


def run_two(fault: str, rank: int, timeout_s: int = 60, *more: str) -> list[tuple[int, str]]:
    """Run two ranks, of which one has a fault, and return the exit code and output of each.

    A rank that is stopped is killed.
    """
    ranks = start_ranks(2, fault, timeout_s, rank, *more, program=("-c", PROGRAM))
    try:
        other = ranks[1 - rank]
        found = other.communicate(timeout=100)
        if fault == "SIGSTOP":
            ranks[rank].send_signal(signal.SIGKILL)
        outputs = {1 - rank: found, rank: ranks[rank].communicate(timeout=60)}
    finally:
        for process in ranks:
            process.close()
    return [(ranks[i].returncode, "".join(outputs[i])) for i in range(2)]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_reason_of_one_rank_is_what_the_others_say(rank: int) -> None:
    ranks = run_two("data", rank)
    assert [code for code, _ in ranks] == [2, 2], ranks
    assert "error: 7.jpg: is damaged." in ranks[rank][1]
    assert f"rank {rank} failed: 7.jpg: is damaged." in ranks[1 - rank][1]
    assert not any("Traceback" in printed for _, printed in ranks)


def test_the_reason_of_rank_0_is_told_though_a_sharded_model_keeps_its_connections() -> None:
    ranks = run_two("data", 0, 60, "sharded")
    assert [code for code, _ in ranks] == [2, 2], ranks
    assert "rank 0 failed: 7.jpg: is damaged." in ranks[1][1] and "TCPStore" not in ranks[1][1]


def test_a_full_disk_of_one_rank_is_told_by_the_others_with_its_remedy() -> None:
    ranks = run_two("disk", 0)
    assert [code for code, _ in ranks] == [2, 2], ranks
    assert "rank 0 failed: metrics.jsonl: No space left on device. Free some space" in ranks[1][1]


def test_a_bug_keeps_its_traceback_on_its_own_rank_only() -> None:
    (_, told), (code, printed) = run_two("bug", 1)
    assert code == 1 and "ZeroDivisionError: a bug" in printed
    assert "rank 1 failed: a bug" in told and "Traceback" not in told


def test_a_stop_of_one_rank_is_a_stop_for_all() -> None:
    (code, told), (own, _) = run_two("stop", 1)
    assert (code, own) == (75, 75) and "rank 1 failed: stopped as asked" in told, told


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_was_killed_is_named(rank: int) -> None:
    ranks = run_two("SIGKILL", rank)
    code, told = ranks[1 - rank]
    assert code == 75 and f"rank {rank} ended, or does not answer" in told, told
    assert ranks[rank][0] == -signal.SIGKILL


def test_all_ranks_name_the_one_that_was_killed_though_they_end_one_after_another() -> None:
    # With a sharded model, some ranks are woken only by the end of others that were woken earlier.
    ranks = start_ranks(4, "SIGKILL", 60, 3, "sharded", program=("-c", PROGRAM))
    told = [errors for _, _, errors in finish_ranks(ranks)]
    assert [rank.returncode for rank in ranks] == [75, 75, 75, -signal.SIGKILL], told
    assert all("error: rank 3 ended, or does not answer" in errors for errors in told[:3]), told


def test_a_rank_that_hangs_ends_the_job_within_the_stated_time() -> None:
    began = time.monotonic()
    ranks = run_two("SIGSTOP", 1, timeout_s=5)
    assert time.monotonic() - began < 60
    code, told = ranks[0]
    assert code == 75 and "rank 1 ended, or does not answer" in told, told


TWICE = """
import time
import torch
from convnextv2.distributed import joined
for _ in range(3):
    with joined("cpu", timeout_s=20) as (place, _notes):
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 8))
        for step in range(20):
            model(torch.ones(2, 8)).sum().backward()
        print(place.sum(torch.ones(1)).item(), flush=True)
    time.sleep(1 - place.rank)  # so that rank 1 looks for the others first
"""


def test_a_process_trains_several_times_with_the_same_other_ranks() -> None:
    ranks = finish_ranks(start_ranks(2, program=("-c", TWICE)))
    found = [(code, printed.splitlines().count("2.0")) for code, printed, _ in ranks]
    assert found == [(0, 3)] * 2, ranks  # some versions of gloo print lines of their own
