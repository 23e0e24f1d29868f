import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from convnextv2.errors import CheckpointError
from convnextv2.weights.opened import open_weights

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 114374272\n"


def complaint(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        open_weights(path)
    message = str(error.value)
    assert message.isprintable() and message.startswith(str(path.parent))
    return message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.safetensors", b"", "is empty"),
        ("x.safetensors", LFS, r"Git LFS pointer.*git lfs pull"),
        ("x.bin", b"\n\n<!DOCTYPE html>\n<html><head>", "web page.*/resolve/"),
        ("x.pth", b"<html lang='en'>", "web page"),
        ("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        ("x.ckpt", b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        ("x.gguf", b"GGUF\x03\0\0\0", "GGUF"),
        ("x.pt.gz", b"\x1f\x8b\x08\0", "gzip"),
        ("x.tflite", b"\x1c\0\0\0TFL3" + bytes(20), "TensorFlow"),
        ("model.ckpt.index", b"\0\0\1\2" * 20, "TensorFlow"),
        ("model.ckpt.data-00000-of-00001", b"\0\0\1\2" * 20, "TensorFlow"),
        ("saved_model.pb", b"\x08\x01\x12\x10", "TensorFlow"),
        ("config.json", b'{\n "a": 1}', "JSON.*Name the folder"),
        ("notes.txt", "\nGewichte für später\n".encode(), "is text.*Gewichte für später"),
        ("x.bin", "ä".encode() * 300, "is text"),
        ("x.png", b"\x89PNG\r\n\x1a\n", "image"),
        ("x.bin", b"\xee" * 64, "is not a weights file"),
        ("x.pkl", b"\x80\x04]\x94.", "is a Python pickle, not a PyTorch checkpoint"),
    ],
)
def test_what_a_file_is_is_said(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    message = complaint(tmp_path / name)
    assert re.search(said, message), message


@pytest.mark.filterwarnings(
    "ignore:`torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning"
)
def test_files_of_other_libraries_are_named_as_they_write_them(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(3))
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    assert "NumPy array" in complaint(tmp_path / "x.npy") and "NumPy archive" in complaint(
        tmp_path / "x.npz"
    )
    scripted = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    scripted.save(tmp_path / "scripted.pt")
    assert "TorchScript" in complaint(tmp_path / "scripted.pt")
    torch.export.save(
        torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), tmp_path / "x.pt2"
    )
    assert "torch.export" in complaint(tmp_path / "x.pt2")
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "g", [], [])
    onnx.save(onnx.helper.make_model(graph, producer_name="pytorch"), tmp_path / "model.bin")
    assert "ONNX" in complaint(tmp_path / "model.bin")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", "b")
    assert "a ZIP archive that torch.save did not write" in complaint(tmp_path / "x.zip")


def test_a_clone_without_git_lfs_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(LFS)
    assert "git lfs pull" in complaint(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    assert "git lfs pull" in complaint(tmp_path)
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "a.safetensors")
    index = {"weight_map": {"stem.0.weight": "a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "git lfs pull" in complaint(tmp_path)


def test_a_folder_for_another_library_names_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tf_model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert "tf_model.h5 is not read" in complaint(tmp_path)


def test_a_download_that_broke_off_is_said_to_be_short(tmp_path: Path) -> None:
    save_file({"stem.0.weight": torch.ones(4)}, tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole[:20])
    assert "is cut short (20 bytes)" in complaint(tmp_path / "x.safetensors")
