import pickle
from pathlib import Path

import pytest

from convnextv2.errors import CheckpointError
from convnextv2.weights.opened import open_weights
from convnextv2.weights.pickle_values import Entries, Foreign, PickleError
from convnextv2.weights.pickles import PickleReader

from .bombs import STORAGES, as_archive, as_old, crowds, large_bombs, many_entries, small_bombs
from .memory import CONSTANT, MIB, measure


def test_small_files_cannot_take_memory_or_time(tmp_path: Path) -> None:
    paths = []
    for i, pickled in enumerate(small_bombs().values()):
        paths += [
            as_archive(pickled, tmp_path / f"{i}.pt"),
            as_old(pickled, tmp_path / f"{i}-old.pt"),
        ]
        (tmp_path / f"{i}.pkl").write_bytes(b"\x80\x02" + pickled + b".")
        paths.append(tmp_path / f"{i}.pkl")
    results = measure(paths)
    assert len(results) == len(paths)
    for result in results:
        assert result["said"].isprintable() and result["said"], result
        assert result["grown"] < 32 * MIB and result["seconds"] < 2, result


def test_large_files_take_less_than_twice_their_size_and_a_constant(tmp_path: Path) -> None:
    size = 8 * MIB
    paths = [
        as_archive(pickled, tmp_path / f"{name}.pt") for name, pickled in large_bombs(size).items()
    ]
    paths += [
        many_entries(100_000, tmp_path / "entries.pt"),
        many_entries(400_000, tmp_path / "more.pt"),
    ]
    for result in measure(paths):
        assert result["grown"] < 2 * Path(result["path"]).stat().st_size + CONSTANT, result
        assert result["said"] and result["seconds"] < 10, result


def test_crowds_of_weights_take_no_quadratic_time(tmp_path: Path) -> None:
    paths = [
        as_archive(pickled, tmp_path / f"{name}.pt", STORAGES) for name, pickled in crowds().items()
    ]
    for result in measure(paths):
        assert result["said"].isprintable() and len(result["said"]) < 1000, result
        assert result["seconds"] < 10, result


class Runs:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_would_run_commands_is_named_and_never_run(protocol: int, tmp_path: Path) -> None:
    pickled = pickle.dumps({"model": Runs(tmp_path / "mark")}, protocol=protocol)
    for path in (
        as_archive(pickled[2:-1], tmp_path / "x.pt"),
        as_old(pickled[2:-1], tmp_path / "y.pt"),
    ):
        with pytest.raises(
            CheckpointError, match=r"names _?io\.open, so it is made to run commands"
        ):
            open_weights(path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_are_read_as_python_reads_them(protocol: int) -> None:
    content = {
        "none": None,
        "yes": True,
        "numbers": [0, 255, 65_535, -1, 2**31 - 1, -(2**40), 1.5, float("inf")],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "text": ["ä", "", "x" * 300, "😀"],
        "nested": {"a": {"b": {1: "one", None: "none", 1.5: "half"}}},
        "twice": ["the same"] * 2,
    }
    read, end = PickleReader(pickled := pickle.dumps(content, protocol=protocol)).read()
    assert read == content and isinstance(read, Entries) and end == len(pickled)


def test_objects_of_other_classes_keep_nothing() -> None:
    import collections
    import datetime
    import pathlib

    import numpy as np

    content = {
        "array": np.arange(6.0).reshape(2, 3),
        "scalar": np.float64(1.5),
        "path": pathlib.PurePosixPath("/a/b"),
        "time": datetime.datetime(2026, 1, 2),
        "set": {1, 2},
        "frozen": frozenset({1}),
        "bytes": b"abc",
        "complex": 1j,
        "default": collections.defaultdict(list, a=[1]),
        "ordered": collections.OrderedDict(b=2),
    }
    reader = PickleReader(pickle.dumps(content, protocol=2))
    read, _ = reader.read()
    foreign = {name for name, value in read.items() if isinstance(value, Foreign)}
    assert foreign == set(content) - {"default", "ordered"}
    assert read["default"] == {"a": [1]} and read["ordered"] == {"b": 2}
    assert {"datetime.datetime", "pathlib.PurePosixPath"} < set(reader.foreign)


@pytest.mark.parametrize("protocol", [0, 1])
def test_protocols_that_pytorch_never_wrote_are_refused(protocol: int) -> None:
    with pytest.raises(PickleError):
        PickleReader(pickle.dumps({"a": Runs(Path("x"))}, protocol=protocol)).read()
