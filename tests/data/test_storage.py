"""Files that are away for a while."""

import errno
import os
from pathlib import Path

import pytest

from convnextv2.data.path_list import PathList
from convnextv2.data.source import Source
from convnextv2.data.storage import StorageWait, read_file
from convnextv2.errors import DataError, StorageError


class Clock:
    """A clock that only sleeping moves on."""

    def __init__(self) -> None:
        self.now, self.pauses = 1000.0, []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


def storage_wait(clock: Clock, wait_s: float = 300, lines: list[str] | None = None) -> StorageWait:
    say = lines.append if lines is not None else lambda line: None
    return StorageWait(wait_s, say=say, sleep=clock.sleep, clock=lambda: clock.now)


@pytest.mark.parametrize(
    "name",
    "ESTALE EIO ETIMEDOUT ENOTCONN EHOSTDOWN EHOSTUNREACH ECONNREFUSED ECONNRESET EREMOTEIO "
    "EMFILE ENOMEM".split(),
)
def test_a_lost_server_is_no_fault_of_an_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr("builtins.open", fail)
    source = Source(["a/0.jpg"])
    with pytest.raises(StorageError, match="a/0.jpg: is out of reach"):
        source.pixels(0)
    assert source.is_out_of_reach(0)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EISDIR, errno.ENAMETOOLONG])
def test_what_is_wrong_with_one_file_is_not_waited_for(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("builtins.open", fail)
    with pytest.raises(DataError) as caught:
        Source(["a/0.jpg"]).pixels(0)
    assert type(caught.value) is DataError and not Source(["a/0.jpg"]).is_out_of_reach(0)


def test_a_missing_file_and_a_missing_folder_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.jpg").write_bytes(b"x")
        (tmp_path / folder / "1.jpg").write_bytes(b"x")
    names = PathList.of(str(tmp_path / name) for name in ("a/0.jpg", "a/1.jpg", "b/0.jpg"))
    (tmp_path / "a" / "0.jpg").unlink()
    with pytest.raises(DataError) as caught:
        read_file(names, 0)
    assert type(caught.value) is DataError
    (tmp_path / "a" / "1.jpg").unlink()  # the last one of its folder, which is still there
    with pytest.raises(DataError) as caught:
        read_file(names, 1)
    assert type(caught.value) is DataError
    (tmp_path / "a").rmdir()
    with pytest.raises(StorageError):
        read_file(names, 0)
    (tmp_path / "a").write_bytes(b"")  # no folder any more: ENOTDIR
    with pytest.raises(StorageError):
        read_file(names, 0)
    assert read_file(names, 2) == b"x"


def test_an_empty_mount_point_is_a_server_that_is_away(tmp_path: Path) -> None:
    names = PathList.of([str(tmp_path / "0.jpg"), str(tmp_path / "1.jpg")])
    with pytest.raises(StorageError):
        read_file(names, 0)
    (tmp_path / "1.jpg").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        read_file(names, 0)
    assert type(caught.value) is DataError


def test_tries_come_after_longer_and_longer_pauses() -> None:
    clock, tried, lines = Clock(), [], list[str]()

    def is_back() -> bool:
        tried.append(clock.now - 1000)
        return len(tried) == 8

    waiting = storage_wait(clock, 300, lines)
    waiting.wait(StorageError("a.jpg: is out of reach (Stale file handle)."), is_back)
    assert tried == [1, 3, 7, 15, 31, 61, 91, 121]
    assert lines == [
        "a.jpg: is out of reach (Stale file handle). Waiting for it, at most 300 s (data_wait_s)."
    ]
    waiting.over()
    assert lines[1:] == ["The images can be read again after 121 s (wait 1)."]
    waiting.over()
    assert len(lines) == 2 and (waiting.waits, waiting.waited_s) == (1, 121)


def test_a_wait_ends_when_its_time_is_up_whatever_is_tried() -> None:
    clock = Clock()
    waiting = storage_wait(clock, 50)
    with pytest.raises(StorageError, match=r"waited for 50 s \(data_wait_s\).*--resume"):
        waiting.wait(StorageError("a.jpg: is out of reach (x)."), lambda: False)
    assert clock.now == 1050
    # The file can be read, but no batch: that is one and the same wait.
    tries = iter(range(1000))
    with pytest.raises(StorageError, match="waited for 50 s"):
        while True:
            next(tries)
            waiting.wait(StorageError("a.jpg: is out of reach (x)."), lambda: True)
    assert clock.now == 1100 and next(tries) == 51 and waiting.waits == 2


def test_zero_seconds_wait_for_nothing() -> None:
    clock = Clock()
    with pytest.raises(StorageError, match="data_wait_s = 0, so the run does not wait"):
        storage_wait(clock, 0).wait(StorageError("a.jpg: is out of reach (x)."), lambda: True)
    assert not clock.pauses


def test_a_stop_that_is_asked_for_ends_a_wait_within_a_second() -> None:
    clock = Clock()
    waiting = storage_wait(clock)
    waiting.stop_asked = lambda: clock.now >= 1020
    with pytest.raises(KeyboardInterrupt):
        waiting.wait(StorageError("a.jpg: is out of reach (x)."), lambda: False)
    assert 1020 <= clock.now < 1021.01
