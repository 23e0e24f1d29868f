"""Runs whose weights do not depend on the number of ranks."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from processes import run_ranks
from runs import SMALL, metrics, weights

from convnextv2.cli import main

# 24 images make three steps in an epoch, of four micro-batches with 2 images each.
OPTIONS = [
    *(SMALL + "--elastic --batch_size 2 --epochs 2 --lr 0.01 --clip_norm 1 --seed 3".split()),
    *"--log_every_steps 1 --keep_checkpoints 9 --save_every_steps 1".split(),
]
SUPERVISED = "--mixup 0.8 --drop_path_rate 0.3 --ema".split()
FCMAE = "--decoder_dim 16 --norm_target --ema".split()


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread for this process, in which the run on one rank is made, as for started ranks."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(verb: str, ranks: int, photos: Path, out: Path, *more: str) -> None:
    own = SUPERVISED if verb == "train" else FCMAE
    step = ("--accumulate", str(4 // ranks))
    command = [verb, "--data_dir", str(photos), "--out", str(out), *OPTIONS, *own, *step, *more]
    if ranks == 1:
        assert main(command) == 0
    else:
        print(run_ranks(ranks, *command))


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("verb", "ranks", "then"), [("train", 4, 2), ("pretrain", 2, 1)])
def test_weights_are_the_same_bit_for_bit_on_any_number_of_ranks(
    verb: str,
    ranks: int,
    then: int,
    photos: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    one, many, moved = (tmp_path / name for name in ("one", "many", "moved"))
    run(verb, 1, photos, one)
    run(verb, ranks, photos, many)
    assert same(one, many)
    losses = [
        [line["loss"] for line in metrics(out) if line["kind"] == "train"] for out in (one, many)
    ]
    assert losses[1] == pytest.approx(losses[0], abs=2e-6)  # the log rounds them to six digits

    # The number of ranks changes in the middle of an epoch.
    shutil.copytree(many, moved)
    for folder in (moved / "checkpoints").iterdir():
        if not folder.name.endswith("step-00000001"):
            shutil.rmtree(folder)
    capfd.readouterr()
    run(verb, then, photos, moved, "--resume")
    printed = capfd.readouterr().out
    assert f"step 1 (epoch 0, batch {4 // then})" in printed and "last bits" not in printed
    assert same(one, moved)


def test_what_would_make_other_sums_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*more: str) -> str:
        command = [
            "train",
            "--data_dir",
            str(photos),
            "--out",
            str(tmp_path / "run"),
            *OPTIONS,
            *more,
        ]
        assert main(command) == 2
        return capsys.readouterr().err

    assert "= 3 x 1 = 3 micro-batches, expected a power of two" in refused("--accumulate", "3")
    assert "Give batch_size" in refused("--batch_size", "auto")
    assert "Set drop_last = True" in refused("--drop_last", "False")
    assert "accumulate x batch_size x ranks = 64 x 2 x 1" in refused("--accumulate", "64")
    assert main(["train", "--data_dir", str(photos), "--out", str(tmp_path / "run"), *OPTIONS]) == 0
    again = ("--resume", "--epochs", "3")
    assert "micro-batch: 2 before, 1 from here on" in refused(
        *again, "--batch_size", "1", "--accumulate", "2"
    )
    assert "elastic: True before, False from here on" in refused(*again, "--elastic", "False")
