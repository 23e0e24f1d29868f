"""Ranks that end, hang or fail, and what the others say."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys, time
import torch
from convnextv2.cli import main
from convnextv2 import cli
from convnextv2.distributed import joined
from convnextv2.errors import DataError, Stopped

def work(**arguments):
    with joined("cpu", timeout_s=int(sys.argv[2])) as (place, _):
        for step in range(100_000):
            place.at_step(step)
            if step == 50 and place.rank == int(sys.argv[3]):
                fault = sys.argv[1]
                if fault == "data":
                    raise DataError("7.jpg: is damaged.")
                if fault == "stop":
                    raise Stopped("stopped as asked")
                if fault == "bug":
                    raise ZeroDivisionError("a bug")
                os.kill(os.getpid(), getattr(signal, fault))
            place.sum(torch.ones(1))
            time.sleep(0.001)

cli.load_verb = lambda name: work
code = main(["train"])
print("exit", code, flush=True)
sys.exit(code)
"""


def run_two(tmp_path: Path, fault: str, rank: int, timeout_s: int = 60) -> list[tuple[int, str]]:
    """Run two ranks, of which one has a fault, and return the exit code and output of each.

    A rank that is stopped is killed.
    """
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    port = 20_000 + (os.getpid() * 7 + hash(tmp_path)) % 12_000
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    common |= {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    common |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    ranks = []
    for number in range(2):
        environment = os.environ | common | {"RANK": str(number), "LOCAL_RANK": str(number)}
        command = [sys.executable, str(program), fault, str(timeout_s), str(rank)]
        pipe = subprocess.PIPE
        ranks.append(
            subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
        )
    try:
        other = ranks[1 - rank]
        found = other.communicate(timeout=100)
        if fault == "SIGSTOP":
            ranks[rank].kill()
        outputs = {1 - rank: found, rank: ranks[rank].communicate(timeout=60)}
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    return [(ranks[i].returncode, "".join(outputs[i])) for i in range(2)]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_reason_of_one_rank_is_what_the_others_say(tmp_path: Path, rank: int) -> None:
    ranks = run_two(tmp_path, "data", rank)
    assert [code for code, _ in ranks] == [2, 2], ranks
    assert "error: 7.jpg: is damaged." in ranks[rank][1]
    assert f"rank {rank} failed: 7.jpg: is damaged." in ranks[1 - rank][1]
    assert not any("Traceback" in printed for _, printed in ranks)


def test_a_bug_keeps_its_traceback_on_its_own_rank_only(tmp_path: Path) -> None:
    (_, told), (code, printed) = run_two(tmp_path, "bug", 1)
    assert code == 1 and "ZeroDivisionError: a bug" in printed
    assert "rank 1 failed: a bug" in told and "Traceback" not in told


def test_a_stop_of_one_rank_is_a_stop_for_all(tmp_path: Path) -> None:
    (code, told), (own, _) = run_two(tmp_path, "stop", 1)
    assert (code, own) == (75, 75) and "rank 1 failed: stopped as asked" in told, told


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_was_killed_is_named(tmp_path: Path, rank: int) -> None:
    ranks = run_two(tmp_path, "SIGKILL", rank)
    code, told = ranks[1 - rank]
    assert code == 75 and f"rank {rank} ended, or does not answer" in told, told
    assert ranks[rank][0] == -signal.SIGKILL


def test_a_rank_that_hangs_ends_the_job_within_the_stated_time(tmp_path: Path) -> None:
    began = time.monotonic()
    ranks = run_two(tmp_path, "SIGSTOP", 1, timeout_s=5)
    assert time.monotonic() - began < 60
    code, told = ranks[0]
    assert code == 75 and "rank 1 ended, or does not answer" in told, told
