"""The run that weights belong to is found from any working folder."""

from pathlib import Path

import pytest

from convnextv2.find import run_of


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
