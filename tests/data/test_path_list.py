import pickle

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


def test_no_paths() -> None:
    assert list(PathList.of([])) == []
