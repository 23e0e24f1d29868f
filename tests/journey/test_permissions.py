"""The files of runs, artifacts and conversions have the permissions that the umask gives."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from runs import SMALL
from trees import network, save

from convnextv2.cli import main


@pytest.fixture
def umask() -> Iterator[int]:
    """A umask that lets the group read, and nobody else."""
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def written(root: Path) -> dict[str, int]:
    """Permissions of every file and folder below a folder."""
    return {
        str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")
    }


@pytest.mark.parametrize("format", ["onnx", "torch", "openvino"])
def test_artifacts_can_be_read_by_whom_the_umask_lets(
    format: str, umask: int, tmp_path: Path
) -> None:
    weights, out = save(network(), tmp_path / "weights"), tmp_path / "artifact"
    argv = [
        "export",
        str(weights),
        "--format",
        format,
        "--out",
        str(out),
        "--images",
        "4",
        "--seconds",
        "0",
        "--workers",
        "0",
    ]
    assert main(argv) == 0
    check(out, umask)
    if format != "torch":
        layout = "triton" if format == "onnx" else "ovms"
        assert (
            main(
                [
                    "export",
                    str(out),
                    "--layout",
                    layout,
                    "--name",
                    "shoes",
                    "--out",
                    str(tmp_path / "repository"),
                ]
            )
            == 0
        )
        check(tmp_path / "repository", umask)


def check(root: Path, umask: int) -> None:
    found = written(root)
    assert found
    for name, mode in found.items():
        usual = 0o777 if (root / name).is_dir() else 0o666
        assert mode == usual & ~umask, f"{name} has {mode:o}"


def test_what_a_run_and_convert_write_can_be_read_by_whom_the_umask_lets(
    photos: Path, umask: int, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    argv = [
        "train",
        *SMALL,
        "--data_dir",
        str(photos),
        "--epochs",
        "1",
        "--ema",
        "--mindcv_files",
        "True",
    ]
    assert main([*argv, "--out", str(run)]) == 0
    assert {"recipe.yaml", "metrics.jsonl", "report.html", "best/model.safetensors"} < written(
        run
    ).keys()
    check(run, umask)
    outs = {
        "timm": ["t.safetensors", "t.pth", "t"],
        "official": ["o.pt"],
        "transformers": ["h"],
        "mindcv": ["c.ckpt"],
    }
    for target, names in (outs | {"convnextv2": ["ours.safetensors", "ours"]}).items():
        for name in names:
            out = str(tmp_path / "converted" / name)
            assert main(["convert", str(run), "--to", target, "--out", out, "--allow-drift"]) == 0
    check(tmp_path / "converted", umask)
    assert len(torch.load(tmp_path / "converted" / "o.pt", weights_only=True)["model"]) > 20
