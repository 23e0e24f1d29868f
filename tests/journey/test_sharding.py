"""Runs whose weights, gradients and moments are shared among the ranks."""

import shutil
from pathlib import Path

import pytest
import torch
from maps import draw_maps
from processes import finish_ranks, run_ranks, start_ranks
from runs import SMALL, metrics, weights
from shapes import write_coco
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from convnextv2.cli import main
from convnextv2.weights.safetensors import read_tensors

COMMON = [*SMALL, *"--log_every_steps 1 --seed 3 --lr 0.01".split()]
TRAIN = ["train", *COMMON, *"--clip_norm 1 --ema --epochs 4 --val_every_epochs 4".split()]
TRAIN += ["--keep_policy", "all"]


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in metrics(run) if record["kind"] == "train"]


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


def halt(straight: Path, halted: Path, checkpoint: int) -> Path:
    """Copy a run as it was when it had written only so many checkpoints."""
    shutil.copytree(straight, halted)
    for folder in sorted((halted / "checkpoints").iterdir())[checkpoint:]:
        shutil.rmtree(folder)
    return halted


@pytest.fixture(scope="module")
def on_four(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs of three steps on four ranks, each with a part of two of eight images."""
    out = tmp_path_factory.mktemp("sharded") / "four"
    own = ("--data_dir", photos, "--batch_size", 2, "--shard", "--save_every_steps", 4)
    run_ranks(4, *TRAIN, *own, "--out", out)
    return out


def test_four_ranks_learn_what_one_process_learns(
    on_four: Path, photos: Path, tmp_path: Path
) -> None:
    own = ["--data_dir", str(photos), "--batch_size", "8", "--out", str(tmp_path / "one")]
    assert main([*TRAIN, *own]) == 0
    alone = losses(tmp_path / "one")
    assert len(alone) == 12 and losses(on_four) == pytest.approx(alone, rel=1e-5, abs=2e-6)
    figures = [
        [record["top1"] for record in metrics(run) if record["kind"] == "eval"]
        for run in (on_four, tmp_path / "one")
    ]
    assert figures[0] == figures[1]
    one, four = weights(tmp_path / "one"), weights(on_four)
    for name, tensor in one.items():
        torch.testing.assert_close(four[name], tensor, rtol=1e-3, atol=1e-4)


def test_the_weights_in_one_file_are_those_that_pytorch_gathers(
    on_four: Path, tmp_path: Path
) -> None:
    newest = sorted((on_four / "checkpoints").iterdir())[-1]
    assert len(list((newest / "shards").glob("__*"))) == 4
    dcp_to_torch_save(newest / "shards", tmp_path / "whole.pt")
    whole = torch.load(tmp_path / "whole.pt")
    average = {
        key.removeprefix("average/"): tensor
        for key, tensor in whole.items()
        if key.startswith("average/")
    }
    assert_same_bits(weights(on_four), average)
    assert read_tensors(on_four / "best" / "model.safetensors")[0].keys() == average.keys()


@pytest.mark.parametrize("ranks", [2, 1])
def test_a_run_of_four_ranks_goes_on_with_fewer(
    ranks: int,
    on_four: Path,
    photos: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = halt(on_four, tmp_path / "run", 2)  # in the middle of the second epoch
    own = [*TRAIN, "--data_dir", str(photos), "--batch_size", "2", "--out", str(out), "--resume"]
    if ranks == 1:  # without --shard, it is a run like any other
        assert main(own) == 0
        printed = capfd.readouterr().out
    else:
        printed = run_ranks(ranks, *own, "--shard")
    assert "keep 8 images in a step" in printed and "at step 4 (epoch 1, batch" in printed
    assert losses(out) == pytest.approx(losses(on_four), rel=1e-5, abs=2e-6)
    newest = sorted((out / "checkpoints").iterdir())[-1]
    assert (newest / "shards").is_dir() == (ranks > 1)


def test_pre_training_goes_on_bit_for_bit_and_learns_as_without_sharding(
    photos: Path, tmp_path: Path
) -> None:
    command = [*"pretrain --decoder_dim 16 --ema --epochs 1 --batch_size 4".split(), *COMMON]
    command += ["--data_dir", str(photos), "--save_every_steps", "2", "--keep_policy", "all"]
    sharded, plain = tmp_path / "sharded", tmp_path / "plain"
    run_ranks(2, *command, "--shard", "--out", sharded)
    run_ranks(2, *command, "--out", plain)
    assert losses(sharded) == pytest.approx(losses(plain), rel=1e-5, abs=2e-6)
    halted = halt(sharded, tmp_path / "halted", 1)
    run_ranks(2, *command, "--shard", "--out", halted, "--resume")
    assert_same_bits(weights(halted), weights(sharded))
    # A run that was not sharded can go on as one that is.
    moved = halt(plain, tmp_path / "moved", 1)
    printed = run_ranks(2, *command, "--shard", "--out", moved, "--resume")
    assert "shard: False before, True from here on" in printed
    assert losses(moved) == pytest.approx(losses(plain), rel=1e-5, abs=2e-6)


SEGMENT = "--task segmentation --head_channels 16 --batch_size 2 --max_class_share 1".split()
DETECT = (
    "--task detection --batch_size 2 --fpn_channels 16 --box_dim 32 --rois 32 --proposals 50 "
    "--anchor_scale 4 --warmup_epochs 0 --lr 0.002 --finest_stride 8"
).split()


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_dense_tasks_learn_as_without_sharding(task: str, tmp_path: Path) -> None:
    if task == "segmentation":
        data, own = draw_maps(tmp_path / "maps", train=8, val=3), SEGMENT
    else:
        data, own = write_coco(tmp_path / "coco"), DETECT
    command = ["train", *COMMON, *own, "--data_dir", str(data), "--epochs", "1", "--ema"]
    for name, more in (("sharded", ["--shard"]), ("plain", [])):
        run_ranks(2, *command, *more, "--out", tmp_path / name)
    sharded, plain = tmp_path / "sharded", tmp_path / "plain"
    assert losses(sharded) == pytest.approx(losses(plain), rel=1e-4, abs=2e-6)
    figure = "miou" if task == "segmentation" else "ap"
    found = [
        [record[figure] for record in metrics(run) if record["kind"] == "eval"]
        for run in (sharded, plain)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-3)


FULL = """
import os, resource, sys
if os.environ["RANK"] == "1":
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.RLIM_INFINITY))
from convnextv2.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_disk_that_is_full_on_one_rank_is_told_and_costs_no_checkpoint(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = ["train", *COMMON, "--data_dir", str(photos), "--out", str(out), "--shard"]
    run_ranks(2, *command, "--epochs", "1")
    kept = {path: path.read_bytes() for path in (out / "checkpoints").rglob("*") if path.is_file()}
    more = ["--resume", "--epochs", "2"]
    done = finish_ranks(start_ranks(2, *command, *more, program=("-c", FULL)))
    assert [code for code, _, _ in done] == [2, 2], done
    # SMALL and COMMON both set log_every_steps, which a line of its own says.
    (line,) = (each for each in done[0][2].splitlines() if "is given twice" not in each)
    assert "rank 1" in line and "File too large" in line
    assert {path: path.read_bytes() for path in kept} == kept
    run_ranks(2, *command, *more)
    assert metrics(out)[-1]["epoch"] == 2
