import errno
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from convnextv2.checkpoint import (
    Checkpoint,
    read_checkpoint,
    read_progress,
    rewrite_progress,
    write_checkpoint,
)
from convnextv2.errors import CheckpointError, DamagedCheckpointError, RunError
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.run import Run
from convnextv2.training.state import Progress
from convnextv2.weights.description import Description

FILES = ("average.safetensors", "model.json", "model.safetensors", "optimizer.safetensors")


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    model = ConvNeXtV2((1, 1, 1, 1), (4, 4, 4, 4), num_classes=2)
    weights = dict(model.state_dict())
    return Checkpoint(
        Description("classifier", "custom", model.arguments, class_names=["a", "b"]),
        weights,
        {name: tensor + 1 for name, tensor in weights.items()},
        {"head.weight|exp_avg": torch.ones(2, 4)},
        {"epoch": 1, "step": 5, "score": 0.5},
    )


def test_a_checkpoint_comes_back_as_it_was(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "epoch-00001-step-00000005"
    write_checkpoint(folder, checkpoint)
    rewrite_progress(folder, {"epoch": 1, "step": 5, "score": 0.75})
    found = read_checkpoint(folder)
    assert found.description == checkpoint.description
    assert found.progress == {"epoch": 1, "step": 5, "score": 0.75} == read_progress(folder)
    for part in ("weights", "average", "optimizer"):
        tensors, expected = getattr(found, part), getattr(checkpoint, part)
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert sorted(json.loads((folder / "progress.json").read_text())["files"]) == list(FILES)


@pytest.mark.parametrize("where", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("name", [*FILES, "progress.json"])
def test_one_flipped_bit_in_any_file_is_found_and_named(
    name: str, where: float, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "c", checkpoint)
    path = tmp_path / "c" / name
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedCheckpointError, match=name):
        read_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("name", [*FILES, "progress.json"])
def test_a_file_that_is_cut_or_gone_is_named(
    name: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "c", checkpoint)
    path = tmp_path / "c" / name
    for content in (path.read_bytes()[:-2], b"", None):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DamagedCheckpointError, match=name):
            read_checkpoint(tmp_path / "c")
        path.write_bytes(b"")


def test_the_newest_whole_checkpoint_is_taken_and_damaged_ones_are_told(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    folders = [tmp_path / "checkpoints" / f"epoch-{i:05d}-step-{i:08d}" for i in (1, 2, 3)]
    for folder in folders:
        folder.parent.mkdir(exist_ok=True)
        write_checkpoint(folder, checkpoint)
    (folders[2] / "optimizer.safetensors").write_bytes(b"x")
    found, _, damaged = run.newest_whole()
    assert found == folders[1]
    ((folder, line),) = damaged
    assert folder == folders[2] and "optimizer.safetensors" in line
    run.set_aside(folder)
    assert run.checkpoints() == folders[:2]
    assert (folders[2].parent / (folders[2].name + ".damaged")).is_dir()
    for folder in folders[:2]:
        (folder / "progress.json").write_text("{}")
        shutil.rmtree(folder / "progress.json", ignore_errors=True)
        (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="No other checkpoint"):
        run.newest_whole()
    with pytest.raises(RunError, match="no checkpoint"):
        Run(tmp_path / "other").newest_whole()


def test_links_and_strange_files_among_checkpoints_are_no_obstacle(tmp_path: Path) -> None:
    # People move checkpoints to a disk with room and leave a link behind.
    run, elsewhere = Run(tmp_path / "run"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "weights").touch()
    (run.path / "checkpoints" / "epoch-00002-step-00000002").mkdir(parents=True)
    (run.path / "checkpoints" / "epoch-00001-step-00000001").symlink_to(elsewhere)
    (run.path / "checkpoints" / "upload.tmp").touch()
    run.prune(keep=1)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == [
        "epoch-00002-step-00000002"
    ]
    assert (elsewhere / "weights").exists()


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"epoch": 2, "step": 99999999999, "batch": 0}',
        '{"epoch": null, "step": "x", "batch": 0}',
        '{"epoch": 1, "step": 5}',
        '{"epoch": 1, "step": 5, "batch": -1}',
    ],
)
def test_a_position_without_a_hash_is_that_of_its_folder(
    content: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "epoch-00001-step-00000005"
    write_checkpoint(folder, checkpoint)
    (folder / "progress.json").write_text('{"epoch": 1, "step": 5, "batch": 0}')  # as it once was
    assert read_checkpoint(folder).progress["step"] == 5
    (folder / "progress.json").write_text(content)
    with pytest.raises(DamagedCheckpointError, match="does not match epoch-00001-step-00000005"):
        read_checkpoint(folder)


def test_progress_of_a_newer_version_is_refused_in_one_line() -> None:
    with pytest.raises(CheckpointError, match="has phase, which this version does not know"):
        Progress.read({"epoch": 1, "step": 5, "batch": 0, "phase": "late"})


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("name", [*FILES, "progress.json"])
def test_a_file_that_is_out_of_reach_is_not_damaged(
    name: str, number: int, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    folders = [tmp_path / "checkpoints" / f"epoch-0000{i}-step-0000000{i}" for i in (1, 2)]
    for folder in folders:
        folder.parent.mkdir(exist_ok=True)
        write_checkpoint(folder, checkpoint)
    opened = io.open

    def refuse(path: object, *arguments: object, **named: object) -> object:
        if str(path) == str(folders[1] / name):
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)  # of pathlib
    with pytest.raises(OSError, match=name):
        run.newest_whole()
