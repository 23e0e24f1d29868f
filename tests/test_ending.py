"""A command that a signal ends cleans up behind itself, and says so in one line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convnextv2.ending import unwinding
from convnextv2.errors import Ended
from convnextv2.lock import building

BY_DEFAULT = """
import signal
for name in ("SIGTERM", "SIGHUP"):  # nohup, and shells for what runs behind, have them ignored
    signal.signal(getattr(signal, name), signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""

WRITES = """
import sys, time
from pathlib import Path
import convnextv2.cli
def verb(**arguments):
    from convnextv2.files import replacing
    from convnextv2.lock import building
    out = Path(sys.argv[1])
    with building(out / "folder") as folder, replacing(out / "file") as file:
        (folder / "half").write_text("half")
        file.write_text("half")
        print("writing", flush=True)
        time.sleep(60)
convnextv2.cli.load_verb = lambda name: verb
sys.exit(convnextv2.cli.main(["recipes"]))
"""

HAS_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
print(child.pid, flush=True)
time.sleep(60)
"""

ENDS_WITH_STDIN = """
import time
from pathlib import Path
from convnextv2.ending import end_with_stdin
end_with_stdin(lambda: Path({}).touch())
print("begun", flush=True)
time.sleep(60)
"""

HAS_WORKER = """
import multiprocessing, time, worker
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=worker.work)
    process.start()
    print(process.pid, flush=True)
    time.sleep(60)
"""

WORKER = """
import time
from convnextv2.ending import end_with_parent
def work():
    end_with_parent()
    print("begun", flush=True)
    time.sleep(60)
"""

IMPORTS = """
import sys, time
from convnextv2.ending import unwinding
from convnextv2.errors import Ended
with unwinding():
    try:
        import slow
        time.sleep(60)
    except Ended:
        sys.exit("whole" if "slow" in sys.modules else "half")
"""


def start(code: str, *words: str | Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*words[1:], *sys.path]))}
    command = [sys.executable, "-c", BY_DEFAULT + code, *map(str, words[:1])]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGHUP, 129, "ended by SIGHUP"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_nothing_stays_behind(number: int, code: int, line: str, tmp_path: Path) -> None:
    with start(WRITES, tmp_path) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(number)
        process.send_signal(number)  # GNU timeout sends it twice
        told = process.communicate(timeout=60)[1]
    assert (process.returncode, told) == (code, f"convnextv2: {line}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_waits_for_the_end_of_an_import(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("print('imports', flush=True)\nimport time\ntime.sleep(1)\n")
    with start(IMPORTS, "", tmp_path) as process:
        assert process.stdout is not None and process.stdout.readline() == "imports\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[1] == "whole\n"


def test_signals_that_somebody_else_handles_stay_with_them() -> None:
    taken: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    mine = signal.signal(signal.SIGTERM, lambda number, frame: taken.append(number))
    try:
        with unwinding():
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Ended, match="interrupted"):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
        assert taken == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, mine)


def test_a_forked_process_ends_as_by_default() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with unwinding():
        child = os.fork()
        if child == 0:
            try:
                time.sleep(60)
            finally:
                os._exit(1)
        time.sleep(0.1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    signal.signal(signal.SIGTERM, before)


def test_ctrl_c_before_the_verb_is_there_is_one_line() -> None:
    code = "import time\nfrom convnextv2.ending import quiet_interrupts\nquiet_interrupts()\n"
    with start(f"{code}print('early', flush=True)\ntime.sleep(60)\n") as process:
        assert process.stdout is not None and process.stdout.readline() == "early\n"
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1]
    assert (process.returncode, told) == (130, "convnextv2: interrupted\n")


def test_what_a_killed_process_was_building_is_taken_over(tmp_path: Path) -> None:
    remains = tmp_path / ".out.tmp"
    (remains / "half").mkdir(parents=True)
    (remains / "half" / "file").touch()
    (remains / ".lock").write_text("process 1 on somewhere")
    with building(tmp_path / "out") as folder:
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == []


def ends(pid: str, within_s: float = 20) -> bool:
    """Wait for the end of a process that is not our child."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid.strip()}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    os.kill(int(pid), signal.SIGKILL)
    return False


@pytest.mark.parametrize("kind", ["stdin", "multiprocessing"])
def test_a_child_ends_with_a_parent_that_is_killed(kind: str, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    cleaned = tmp_path / "cleaned"
    if kind == "stdin":
        process = start(HAS_CHILD, ENDS_WITH_STDIN.format(repr(str(cleaned))))
    else:
        process = start(HAS_WORKER, "", tmp_path)
    with process:
        assert process.stdout is not None
        lines = {process.stdout.readline(), process.stdout.readline()}
        lines.remove("begun\n")
        process.kill()
        assert ends(lines.pop())
    assert cleaned.exists() == (kind == "stdin")
