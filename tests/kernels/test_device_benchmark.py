"""The script that checks and measures the kernels on a GPU, as far as it runs without one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "device"


@pytest.fixture(scope="module")
def device() -> ModuleType:
    before = list(sys.path)
    sys.path.insert(0, str(SCRIPT))  # as Python does for a folder that it runs
    spec = importlib.util.spec_from_file_location("device_benchmark", SCRIPT / "__main__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_refuses_in_one_line(
    device: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        device.main(["--out", str(tmp_path)])
    assert stopped.value.code == 2 and not list(tmp_path.iterdir())
    assert "error: this machine has no CUDA device. Use one" in capsys.readouterr().err


def test_an_unknown_section_is_named(
    device: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        device.main(["--out", "x", "--only", "copy,speed"])
    assert "--only speed: expected some of copy, correctness," in capsys.readouterr().err


def test_tables_have_all_columns_and_say_what_is_wrong(device: ModuleType) -> None:
    page = sys.modules["page"]
    rows = [{"a": 1234.5, "right": True}, {"a": 2.3e-7, "b": "x|y", "right": False}]
    assert page.table(rows).splitlines() == [
        "| a | right | b |",
        "| --- | --- | --- |",
        "| 1,234 | yes |  |",
        "| 2.3e-07 | NO | x\\|y |",
    ]
    found = {
        "machine": {"device": "none"},
        "sections": {
            "copy": {"rows": rows[:1], "seconds": 1.0},
            "kernels": {"rows": rows, "seconds": 1.0},
            "graphs": {"failure": "left out: 3 s left, 120 needed"},
        },
    }
    assert page.wrong(found) == ["kernels", "graphs"]
    assert "## graphs\n\nleft out: 3 s left, 120 needed" in page.report(found)


def test_the_sections_of_the_script_run_on_a_cpu(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    sections = ["copy", "correctness", "agreement", "fcmae"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--interpret", "--out", str(tmp_path)]
        + ["--only", ",".join(sections)],
        env=os.environ | {"TRITON_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "device.json").read_text())["sections"]
    assert list(found) == sections and len(found["correctness"]["rows"]) == 3
    assert len(found["fcmae"]["rows"]) == 8
    assert (tmp_path / "device.md").read_text().count("\n## ") == len(sections)
