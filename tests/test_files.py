import os
import stat
from pathlib import Path

import pytest
import torch

from convnextv2.files import write_text
from convnextv2.weights.mindspore import write_ckpt
from convnextv2.weights.safetensors import write_tensors


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077, 0o027])
def test_files_have_the_permissions_of_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2)})
        write_text(tmp_path / "b.txt", "b")
        write_ckpt(tmp_path / "c.ckpt", {"x": torch.ones(2)})
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~umask}
