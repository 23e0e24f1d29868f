"""The run that weights belong to is found from any working folder."""

import errno
import os
from pathlib import Path

import pytest

from convnextv2.deploy.formats import ARTIFACT_FORMATS
from convnextv2.errors import RunError
from convnextv2.find import PROGRAMS, find_weights, run_of


@pytest.mark.parametrize(
    ("inside", "given"),
    [
        ("", "run/best/model.safetensors"),
        ("run", "best/model.safetensors"),
        ("run/best", "model.safetensors"),
        ("run/checkpoints/epoch-0001", "model.safetensors"),
        ("run", "x.ckpt"),
    ],
)
def test_a_run_is_found_from_inside(
    inside: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "epoch-0001").mkdir(parents=True)
    (tmp_path / "run" / "recipe.yaml").write_text("epochs: 1\n")
    monkeypatch.chdir(tmp_path / inside)
    run = run_of(Path(given))
    assert run is not None and run.path.samefile(tmp_path / "run")


def test_weights_outside_of_runs_belong_to_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_of(Path("model.safetensors")) is None


def test_a_run_that_has_lost_its_weights_says_how_to_get_them_back(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    with pytest.raises(RunError, match="no weights in it"):
        find_weights(tmp_path)
    (tmp_path / "checkpoints" / "epoch-00001-step-00000009").mkdir(parents=True)
    with pytest.raises(RunError, match=f"writes last/ again: --out {tmp_path} --resume"):
        find_weights(tmp_path)


def test_last_is_not_taken_for_a_best_that_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("last", "disk"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").touch()
    last = tmp_path / "last" / "model.safetensors"
    assert find_weights(tmp_path) == last
    best = tmp_path / "best"
    best.symlink_to(tmp_path / "disk")
    assert find_weights(tmp_path) == best / "model.safetensors"
    (tmp_path / "disk").rename(tmp_path / "away")
    with pytest.raises(RunError, match=f"best: is a link to {tmp_path / 'disk'}, which is gone"):
        find_weights(tmp_path)
    best.unlink()
    best.symlink_to("best")
    with pytest.raises(RunError, match="best: is a link to best, which is gone"):
        find_weights(tmp_path)
    best.unlink()
    best.mkdir()
    assert find_weights(tmp_path) == last
    look = os.stat

    def closed(path: Path, *given: object, **named: object) -> os.stat_result:
        if Path(path).parent == best:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return look(path, *given, **named)

    monkeypatch.setattr(os, "stat", closed)
    with pytest.raises(RunError, match=r"model.safetensors: cannot be accessed \(Permission den"):
        find_weights(tmp_path)


def test_a_name_that_no_file_can_have_is_not_there() -> None:
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(RunError, match="no such file or folder"):
            find_weights(name)


def test_an_artifact_in_place_of_weights_is_called_so(tmp_path: Path) -> None:
    artifact = tmp_path / "artifacts" / "a b"
    artifact.mkdir(parents=True)
    with pytest.raises(RunError, match="no weights in it"):
        find_weights(artifact)
    (artifact / "model.onnx").touch()
    with pytest.raises(RunError, match=r"has model.onnx, but no artifact.json.*whole folder"):
        find_weights(artifact)
    with pytest.raises(RunError, match="no weights in it"):
        find_weights(artifact.parent)
    (artifact / "artifact.json").touch()
    with pytest.raises(RunError, match="is an artifact, whose weights cannot be read. Give the"):
        find_weights(artifact)
    with pytest.raises(RunError, match=f"holds artifacts. Give one of them, such as '{artifact}'"):
        find_weights(artifact.parent)
    (artifact / "model.safetensors").touch()
    assert find_weights(artifact) == artifact / "model.safetensors"


def test_the_files_of_all_formats_are_known() -> None:
    assert set(PROGRAMS) == {each.file for each in ARTIFACT_FORMATS.values()}
