"""The parts of a checkpoint, written by one rank; several ranks are in tests/journey."""

import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from convnextv2.checkpoint import (
    Checkpoint,
    read_checkpoint,
    read_weights,
    rewrite_progress,
    write_sharded_checkpoint,
)
from convnextv2.checkpoint_shards import read_shards, write_shards
from convnextv2.distributed import Place, SideChannel
from convnextv2.errors import DamagedCheckpointError, RunError
from convnextv2.find import find_weights
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.run import Run
from convnextv2.weights.description import Description

TENSORS = {
    "weights/a": torch.arange(12.0).view(3, 4),
    "average/a": torch.arange(12.0).view(3, 4) / 7,
    "optimizer/a|step": torch.tensor(5.0),
    "beside/b": torch.tensor([2, 3]),
}


@pytest.fixture
def channel() -> Iterator[SideChannel]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield SideChannel(Place(torch.device("cpu")), timeout_s=30)
    dist.destroy_process_group()


@pytest.fixture
def checkpoint() -> Checkpoint:
    return Checkpoint(
        Description("encoder", "custom", ConvNeXtV2((1, 1, 1, 1), (4, 4, 4, 4)).arguments),
        {"a": TENSORS["weights/a"]},
        {"a": TENSORS["average/a"]},
        {"a|step": TENSORS["optimizer/a|step"]},
        {"epoch": 1, "step": 5, "batch": 0},
        {"b": TENSORS["beside/b"]},
    )


def test_tensors_come_back_as_pytorch_itself_reads_them(
    channel: SideChannel, tmp_path: Path
) -> None:
    write_shards(tmp_path / "shards", TENSORS, channel)
    found = read_shards(tmp_path / "shards")
    dcp_to_torch_save(tmp_path / "shards", tmp_path / "whole.pt")
    whole = torch.load(tmp_path / "whole.pt")
    assert found.keys() == whole.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor) and torch.equal(whole[name], tensor)
        assert found[name].dtype == tensor.dtype
    assert list(read_shards(tmp_path / "shards", prefix="average/")) == ["average/a"]


def test_a_checkpoint_in_parts_comes_back_as_it_was(
    channel: SideChannel, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "epoch-00001-step-00000005"
    write_sharded_checkpoint(folder, checkpoint, channel)
    rewrite_progress(folder, {"epoch": 1, "step": 5, "batch": 0, "score": 0.5})
    found = read_checkpoint(folder)
    assert found.description.kind == "encoder" and found.progress["score"] == 0.5
    for kind in ("weights", "average", "optimizer", "beside"):
        tensors, expected = getattr(found, kind), getattr(checkpoint, kind)
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert torch.equal(read_weights(folder)["a"], TENSORS["average/a"])
    assert not list(tmp_path.glob("*.tmp"))
    with pytest.raises(RunError, match="is a sharded checkpoint"):
        find_weights(folder)


@pytest.mark.parametrize("name", ["shards/.metadata", "shards/__0_0.distcp", "model.json"])
def test_a_flipped_bit_in_any_part_is_found_and_named(
    name: str, channel: SideChannel, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "epoch-00001-step-00000005"
    write_sharded_checkpoint(folder, checkpoint, channel)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 4
    (folder / name).write_bytes(data)
    with pytest.raises(DamagedCheckpointError, match=f"{folder / name}: has changed"):
        read_checkpoint(folder)
    (folder / name).unlink()
    with pytest.raises(DamagedCheckpointError, match=f"{folder / name}: cannot be read"):
        read_checkpoint(folder)


class _Harm:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("harmed",)


def test_metadata_that_would_execute_something_are_refused(
    channel: SideChannel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shards = tmp_path / "shards"
    write_shards(shards, TENSORS, channel)
    whole = (shards / ".metadata").read_bytes()
    (shards / ".metadata").write_bytes(pickle.dumps(_Harm()))
    with pytest.raises(DamagedCheckpointError, match="asks for posix.mkdir"):
        read_shards(shards)
    assert not (tmp_path / "harmed").exists()
    (shards / ".metadata").write_bytes(whole.replace(b"__0_0.distcp", b"../../x/y/zz"))
    with pytest.raises(DamagedCheckpointError, match="is not what torch"):
        read_shards(shards)
    (shards / ".metadata").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedCheckpointError, match="is not what torch"):
        read_shards(shards)


def test_a_save_that_was_killed_leaves_the_former_checkpoint(
    channel: SideChannel, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    folder = run.save_sharded_checkpoint(checkpoint, channel)
    killed = folder.with_name("epoch-00002-step-00000010.tmp")
    shutil.copytree(folder, killed)
    (killed / "progress.json").unlink()
    found, content, damaged = run.newest_whole()
    assert found == folder and not damaged and content.progress["step"] == 5
    run.prune(2)
    assert not killed.exists() and folder.exists()
    shutil.rmtree(folder / "shards")
    with pytest.raises(Exception, match="cannot be read"):
        run.newest_whole()


def test_what_fails_on_one_rank_is_raised(channel: SideChannel) -> None:
    assert channel.together(lambda: 3) == 3 and channel.gather("a") == ["a"]

    def fail() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        channel.together(fail)
