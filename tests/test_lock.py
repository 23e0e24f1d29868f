import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from convnextv2.errors import RunError
from convnextv2.lock import LOCK, building, locked

HOLD = """
import os, sys, time
from pathlib import Path
from convnextv2.lock import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:  # a worker
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_folder_has_one_writer_and_a_kill_leaves_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=f"process {other.pid} on .* is writing there"):
            with locked(folder):
                pass
        other.kill()  # its child lives on
        other.wait()
        with locked(folder) as note:
            assert note == ""
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.communicate()
    assert list(folder.iterdir()) == []


def test_a_folder_that_was_made_for_the_lock_alone_goes(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a" / "run"):
        raise ZeroDivisionError
    assert not (tmp_path / "a" / "run").exists()


def test_folders_above_one_that_was_made_for_the_lock_alone_go_too(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "new" / "deep"):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), building(tmp_path / "new" / "deep" / "made.npy"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with building(tmp_path / "new" / "made.npy") as folder:
        (folder / "made.npy").touch()
        os.replace(folder / "made.npy", tmp_path / "new" / "made.npy")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["made.npy"]


def test_a_process_does_not_write_a_run_twice(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    with locked(tmp_path):
        with pytest.raises(RunError, match="this process"), locked(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists() and (tmp_path / "kept").exists()
    with locked(tmp_path):
        pass


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(RunError, match="is not a folder"), locked(tmp_path / "run"):
        pass


BUILD = """
import sys, time
from pathlib import Path
from convnextv2.lock import building
with building(Path(sys.argv[1])) as folder:
    (folder / "half").touch()
    print("building", flush=True)
    time.sleep(60)
"""


def test_two_processes_do_not_build_the_same_and_a_kill_leaves_no_lock(tmp_path: Path) -> None:
    out = tmp_path / "out"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", BUILD, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None and other.stdout.readline() == b"building\n"
        with pytest.raises(RunError, match=f"out = {out}: process {other.pid} on .* is writing"):
            with building(out):
                pass
        with building(tmp_path / "other"):
            pass
        other.kill()
    assert (tmp_path / ".out.tmp" / "half").exists()
    with building(out) as folder:
        assert [path.name for path in folder.iterdir()] == [LOCK]
        (folder / "made").touch()
        (folder / "made").rename(out)
    assert list(tmp_path.iterdir()) == [out]


def test_an_error_of_the_system_names_what_is_made(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=f"No space left.*{tmp_path / 'out'}"),
        building(tmp_path / "out"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []
