"""The run that weights belong to is found from any working folder."""

from pathlib import Path

import pytest

from convnextv2.errors import RunError
from convnextv2.find import find_weights, run_of


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
