import gc
import multiprocessing
import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from convnextv2.data.path_list import PathList

PATHS = [
    "/a/b/c.jpg",
    "/a/b/d.jpg",
    "e.png",
    "/f.png",
    "a//b.png",
    "./g.png",
    "/a/b/\udce9.jpg",
    "x/é.jpg",
]


def test_paths_come_back_as_they_were() -> None:
    paths = PathList.of(PATHS)
    assert list(paths) == PATHS and len(paths) == len(PATHS)
    assert (
        paths[-1] == "x/é.jpg"
        and list(paths[1:4]) == PATHS[1:4]
        and list(paths[::-2]) == PATHS[::-2]
    )
    assert "e.png" in paths and "h.png" not in paths and paths.index("e.png") == 2
    with pytest.raises(IndexError):
        paths[len(PATHS)]


def test_a_selection_keeps_its_order_and_survives_another_process() -> None:
    chosen = PathList.of(PATHS).take(np.array([5, 0, 0]))
    assert (
        list(chosen) == list(pickle.loads(pickle.dumps(chosen))) == [PATHS[5], PATHS[0], PATHS[0]]
    )


def test_a_list_of_no_paths_is_empty() -> None:
    assert list(PathList.of([])) == []


def _private_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private"))


def _growth(names: Sequence[str]) -> int:
    """Memory that a forked process takes for itself while it reads all names."""
    here, there = multiprocessing.Pipe()
    process = os.fork()
    if process == 0:
        gc.collect()  # which writes to all that it looks at
        before = _private_bytes()
        for index in range(len(names)):
            names[index]
        there.send(_private_bytes() - before)
        os._exit(0)
    os.waitpid(process, 0)
    return here.recv()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells it")
def test_workers_share_the_names_also_after_reading_them() -> None:
    strings = [f"/data/train/{i % 100:04}/{i:012}.jpg" for i in range(200_000)]
    assert _growth(strings) > 10_000_000  # what it is about: a count in each string is written to
    assert _growth(PathList.of(strings)) < 3_000_000
