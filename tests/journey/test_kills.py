"""A run that is killed at a file operation, and started again by the same command, ends as one that
was never killed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import SMALL, metrics

from convnextv2.weights.safetensors import read_tensors

# Each run is a copy of a process that has imported everything, since that takes most of its time.
KILLER = """
import atexit, json, os, shutil, sys, threading, traceback

count, point = 0, 0

def counted(function):
    def call(*arguments, **options):
        global count
        count += 1
        if count == point:
            os._exit(137)
        return function(*arguments, **options)
    return call

os.replace, os.fsync, shutil.rmtree = counted(os.replace), counted(os.fsync), counted(shutil.rmtree)

from convnextv2.cli import main
import convnextv2.verbs.pretrain, convnextv2.verbs.train

for line in sys.stdin:
    log, point, arguments = json.loads(line)
    pid = os.fork()
    if pid == 0:
        code, count = 1, 0
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        try:
            code = main(arguments)
            for thread in threading.enumerate():  # as the interpreter does before it ends
                if thread is not threading.main_thread() and not thread.daemon:
                    thread.join()
            atexit._run_exitfuncs()
            print("operations", count)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
OPTIONS = ["--epochs", "3", "--lr", "0.01", "--ema", "--keep_checkpoints", "1"]
EXACT = ("kind", "step", "epoch", "loss", "last_loss", "lr", "top1")


class Killer:
    """Runs command lines, and kills them at their file operation number `point`; 0 for none."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", KILLER],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, photos: Path, out: Path, point: int, verb: str, *more: str) -> tuple[int, str]:
        """Return the exit code and what was printed."""
        data = ["--data_dir", str(photos), "--out", str(out), "--resume", "auto"]
        log, process = out.with_suffix(".log"), self._process
        asked = str(log), point, [verb, *data, *OPTIONS, *SMALL, *more]
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline()), log.read_text()

    def close(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    killer = Killer()
    yield killer
    killer.close()


def told(out: Path) -> list[dict]:
    return [{name: record.get(name) for name in EXACT} for record in metrics(out)]


SELDOM = ("--val_every_epochs", "2")
CASES = {
    "latest_k": ("train", "--keep_policy", "latest_k", "--save_every_steps", "4", *SELDOM),
    "top_k": (
        "train",
        "--keep_policy",
        "top_k",
        "--async_save",
        "False",
        "--mindcv_files",
        "True",
        *SELDOM,
    ),
    "pretrain": ("pretrain", "--decoder_dim", "8", "--save_every_steps", "1"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_kill_at_a_file_operation_changes_nothing(
    killer: Killer, photos: Path, tmp_path: Path, case: str
) -> None:
    straight, asked = tmp_path / "straight", CASES[case]
    code, printed = killer.run(photos, straight, 0, *asked)
    assert code == 0, printed
    operations = int(printed.split("operations")[1])
    every = max(1, operations // 3)
    for point in range(every // 2 + 1, operations, every):
        out = tmp_path / f"killed-{point}"
        assert killer.run(photos, out, point, *asked)[0] == 137
        code, printed = killer.run(photos, out, 0, *asked)
        assert code == 0, (point, printed)
        assert told(out) == told(straight), point
        for name in ("last", "best") if asked[0] == "train" else ("last",):
            tensors, expected = (
                read_tensors(each / name / "model.safetensors")[0] for each in (out, straight)
            )
            assert all(tensors[key].equal(expected[key]) for key in expected), (point, name)
            described = [
                json.loads((each / name / "model.json").read_text())["training"]
                for each in (out, straight)
            ]
            assert described[0] == described[1]
        assert [path.name for path in sorted((out / "checkpoints").iterdir())] == [
            path.name for path in sorted((straight / "checkpoints").iterdir())
        ], point
