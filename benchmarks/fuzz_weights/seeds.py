"""Good files of every kind, from which damaged ones are made."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.fcmae import FCMAE
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.description import Description
from convnextv2.weights.mindspore import read_ckpt
from convnextv2.weights.opened import Weights, open_weights
from convnextv2.weights.safetensors import read_tensors, save_weights

SIZE = (1, 1, 1, 1), (4, 8, 12, 16)
"""The depths and the widths of the network in all files."""
CONVERTED = {
    "official .pt": ("official", "official.pt"),
    "timm safetensors": ("timm", "timm.safetensors"),
    "timm .pth": ("timm", "timm.pth"),
    "timm folder": ("timm", "timm"),
    "official folder": ("official", "official"),
    "transformers folder": ("transformers", "hf"),
    "mmpretrain .pth": ("mmpretrain", "mm.pth"),
    "MindCV .ckpt": ("mindcv", "mindcv.ckpt"),
    "MindSpore safetensors": ("mindcv", "ms.safetensors"),
}
"""The target and the file of each kind that is converted."""


class Payload:
    """An object that leaves a file behind where someone unpickles it.

    Args:
        mark: The file.
    """

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.mark), "w")


def write_seeds(folder: Path, mark: Path) -> dict[str, Path]:
    """Write one good file, or Hub folder, of each kind.

    Args:
        folder: Where they are written.
        mark: The file that payloads would leave behind.

    Returns:
        The name of each kind -> its file or folder.
    """
    weights = _write_ours(folder)
    for target, name in CONVERTED.values():
        convert_weights(weights, target, folder / name, allow_drift=True)
    state = torch.load(folder / "official.pt", weights_only=True)["model"]
    _write_training(folder)
    _write_checked(folder)
    _write_shards(folder)
    _write_others(folder, state, mark)
    for name in ("opcodes.pt", "entries.ckpt"):
        (folder / name).write_bytes(b"x")  # each file of these kinds is made anew
    names = {
        "pickles that allocate": "opcodes.pt",
        ".ckpt of many entries": "entries.ckpt",
        "convnextv2 safetensors": "ours/model.safetensors",
        **{kind: name for kind, (_, name) in CONVERTED.items()},
        "sparse kernels .pth": "sparse.pth",
        "MindCV .ckpt, checksum": "checked.ckpt",
        "transformers shards": "shards",
        "old PyTorch .pth": "legacy.pth",
        "FCMAE training .pth": "training.pth",
        "payload in a zip": "payload.pth",
        "payload in a pickle": "payload.pkl",
        "objects beside .pth": "objects.pth",
        "extras beside .pth": "lit.pth",
    }
    return {kind: folder / name for kind, name in names.items()}


def _write_ours(folder: Path) -> Weights:
    torch.manual_seed(0)
    model = ConvNeXtV2(*SIZE, num_classes=5)
    preprocessing = {
        "image_size": [64, 64],
        "channels": 3,
        "eval_preset": "timm",
        "interpolation": "bicubic",
        "crop_pct": 0.9,
    }
    preprocessing |= {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    names = ["a", "b", "c", "d", "e"]
    description = Description(
        "classifier", "custom", model.arguments, class_names=names, preprocessing=preprocessing
    )
    save_weights(folder / "ours", model.state_dict(), description)
    return open_weights(folder / "ours" / "model.safetensors")


def _write_training(folder: Path) -> None:
    """Write checkpoints of an official pre-training, in the dense and the sparse form."""
    pretrained = FCMAE(ConvNeXtV2(*SIZE, num_classes=None), decoder_dim=8)
    arguments = argparse.Namespace(lr=1.0, model="convnextv2_atto")
    torch.save(
        {"model": pretrained.state_dict(), "args": arguments, "epoch": 3}, folder / "training.pth"
    )
    sparse = {
        name: as_sparse(name, tensor) for name, tensor in pretrained.encoder.state_dict().items()
    }
    torch.save({"model": dict(sparse.values())}, folder / "sparse.pth")


def _write_checked(folder: Path) -> None:
    """Write a .ckpt with a checksum."""
    content = (folder / "mindcv.ckpt").read_bytes()
    checksum = b"crc_num" + zlib.crc32(content).to_bytes(10, "big")
    (folder / "checked.ckpt").write_bytes(content + checksum)
    assert read_ckpt(folder / "checked.ckpt")


def _write_shards(folder: Path) -> None:
    """Write a folder of transformers whose weights lie in two files."""
    shutil.copytree(folder / "hf", folder / "shards")
    (folder / "shards" / "model.safetensors").unlink()
    tensors, _ = read_tensors(folder / "hf" / "model.safetensors")
    parts = {f"model-{i}.safetensors": dict(list(tensors.items())[i::2]) for i in range(2)}
    for name, part in parts.items():
        save_file(part, folder / "shards" / name)
    index = {"weight_map": {tensor: name for name, part in parts.items() for tensor in part}}
    (folder / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_others(folder: Path, state: dict[str, Tensor], mark: Path) -> None:
    """Write files of PyTorch that hold more than tensors, or are of its old form."""
    torch.save({"model": state}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    payload = io.BytesIO()
    torch.save({"model": state, "args": Payload(mark)}, payload)
    (folder / "payload.pth").write_bytes(payload.getvalue())
    (folder / "payload.pkl").write_bytes(pickle.dumps({"model": Payload(mark)}))
    objects = {"state_dict": state, "metric": np.float64(0.5), "where": Path("x")}
    torch.save(objects, folder / "objects.pth")
    prefixed = {f"model.{name}": tensor for name, tensor in state.items()}
    torch.save(prefixed | {"loss.weight": torch.ones(5)}, folder / "lit.pth")


def as_sparse(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Convert a tensor of the encoder to the form in which the official pre-training saves it.

    Its values do not matter here.
    """
    inside, down = (
        name.startswith("stages."),
        name.startswith("downsample_layers.") and not name.startswith("downsample_layers.0."),
    )
    if name.endswith("dwconv.weight") or (down and name.endswith(".1.weight")):
        o, i, k, _ = tensor.shape
        name = name.removesuffix("weight") + "kernel"
        tensor = torch.zeros((k * k, o) if i == 1 else (k * k, i, o))
    elif ".pwconv" in name:
        name = name.replace(".weight", ".linear.weight").replace(".bias", ".linear.bias")
    elif (inside and ".norm." in name) or (down and ".0." in name):
        name = name.replace(".weight", ".ln.weight").replace(".bias", ".ln.bias")
    return f"encoder.{name}", tensor
