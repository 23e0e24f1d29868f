from pathlib import Path

import pytest

from convnextv2.errors import CheckpointError
from convnextv2.weights.opened import open_weights
from convnextv2.weights.safetensors import save_weights

from .networks import describe, network


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    model = network(num_classes=3)
    save_weights(tmp_path, model.state_dict(), describe(model))
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for content in (b"", b"not a checkpoint", whole[: len(whole) // 2], b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            open_weights(path)
    with pytest.raises(CheckpointError, match="no such file"):
        open_weights(tmp_path / "missing.safetensors")
