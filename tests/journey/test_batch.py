"""Runs that find out how many images they can take at once."""

from pathlib import Path

import pytest
from processes import run_ranks
from runs import SMALL, metrics

from convnextv2.cli import main
from convnextv2.run import open_run
from convnextv2.training import memory


def arguments(photos: Path, out: Path) -> list[str]:
    small = [*SMALL]
    small[small.index("--batch_size") + 1] = "auto"
    return ["--data_dir", str(photos), "--out", str(out), "--epochs", "1", *small]


@pytest.mark.parametrize("verb", ["train", "pretrain"])
def test_a_run_says_and_keeps_what_was_found(
    verb: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(memory, "estimate", lambda *args, **kwargs: memory.Need(0, 2**20))
    monkeypatch.setattr(memory, "available_memory", lambda device: 12 * 2**20)
    assert main([verb, *arguments(photos, tmp_path / "run"), "--global_batch", "8"]) == 0
    # 90 % of 12 MiB, of which each image takes 2.2 MiB and its pixels in the loader 12 KiB.
    assert "batch_size auto: 4, and accumulate 2, on 1 rank: 8 images" in capsys.readouterr().out
    recipe = open_run(tmp_path / "run").recipe
    assert (recipe.batch_size, recipe.accumulate, recipe.global_batch) == (4, 2, 8)
    if verb == "train":  # other verbs look for nothing
        auto, image = ["--batch_size", "auto"], next((photos / "val" / "red").iterdir())
        assert main(["validate", str(tmp_path / "run"), *auto]) == 0
        said = capsys.readouterr().out
        assert "batch_size auto: the default is used" in said and said.count("batch_size auto") == 1
        assert main(["predict", str(tmp_path / "run"), str(image), *auto, "--workers", "0"]) == 0
        assert "batch_size auto: the default is used" in capsys.readouterr().err


def test_two_ranks_agree_and_evaluate_each_image_once(photos: Path, tmp_path: Path) -> None:
    own = arguments(photos, tmp_path / "run")
    printed = run_ranks(2, "train", *own, "--global_batch", 8)
    assert "batch_size auto: 4, and accumulate 1, on 2 ranks: 8 images in a step." in printed
    assert open_run(tmp_path / "run").recipe.batch_size == 4
    (record,) = (record for record in metrics(tmp_path / "run") if record["kind"] == "eval")
    # Measured by both ranks in training, and by one for the report.
    (shown,) = (line for line in printed.splitlines() if line.startswith("top-1"))
    assert f"{record['top1']:.2%}" in shown
