"""A run that is killed at a file operation, and started again by the same command, ends as one that
was never killed."""

import json
from pathlib import Path

import pytest
from processes import Program, finish_ranks
from runs import SMALL, metrics

from convnextv2.weights.safetensors import read_tensors

# Ends at file operation number `point`; 0 for none. At its end, a program calls first what it
# registered last.
KILLED = """
import atexit, os, shutil, sys

count, point = 0, int(sys.argv[1])

def counted(function):
    def call(*arguments, **options):
        global count
        count += 1
        if count == point:
            os._exit(137)
        return function(*arguments, **options)
    return call

os.replace, os.fsync, shutil.rmtree = counted(os.replace), counted(os.fsync), counted(shutil.rmtree)
atexit.register(lambda: print("operations", count))
from convnextv2.cli import main
sys.exit(main(sys.argv[2:]))
"""
OPTIONS = ["--epochs", "3", "--lr", "0.01", "--ema", "--keep_checkpoints", "1"]
EXACT = ("kind", "step", "epoch", "loss", "last_loss", "lr", "top1")


def run(photos: Path, out: Path, point: int, verb: str, *more: str) -> tuple[int, str]:
    """Return the exit code and what was printed by a run that is killed at a file operation."""
    data = ["--data_dir", photos, "--out", out, "--resume", "auto"]
    words = [point, verb, *data, *OPTIONS, *SMALL, *more]
    [(code, printed, errors)] = finish_ranks([Program("-c", KILLED, *words)])
    return code, printed + errors


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
    photos: Path, tmp_path: Path, case: str
) -> None:
    straight, asked = tmp_path / "straight", CASES[case]
    code, printed = run(photos, straight, 0, *asked)
    assert code == 0, printed
    operations = int(printed.split("operations")[1])
    every = max(1, operations // 3)
    for point in range(every // 2 + 1, operations, every):
        out = tmp_path / f"killed-{point}"
        assert run(photos, out, point, *asked)[0] == 137
        code, printed = run(photos, out, 0, *asked)
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
