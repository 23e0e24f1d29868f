"""A small segmentor and detector with random weights, pictures, and edits of their artifacts."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.detector import Detector
from convnextv2.model.upernet import Segmentor
from convnextv2.weights.description import Description
from convnextv2.weights.safetensors import save_weights

PREPROCESSING = {
    "image_size": [64, 96],
    "channels": 3,
    "eval_preset": "timm",
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.25, 0.3],
}
PLACES = ["sky", "tree, green", "road"]
THINGS = ["cat", "dog"]


def _encoder() -> ConvNeXtV2:
    return ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=None)


def _stirred(model: nn.Module, scale: float = 0.1) -> nn.Module:
    """Make every parameter random; GRN starts at zero, which would hide its effect."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape))
    return model.eval()


def segmentor(seed: int = 0) -> Segmentor:
    """Make a segmentor of `PLACES` whose answer differs from place to place."""
    torch.manual_seed(seed)
    model = _stirred(Segmentor(_encoder(), len(PLACES), channels=16))
    assert isinstance(model, Segmentor)
    with torch.no_grad():
        model.decode_head.conv_seg.weight.mul_(20)
        model.decode_head.conv_seg.bias.zero_()
    return model


def detector(seed: int = 0, *, masks: bool = True, **arguments) -> Detector:
    """Make a detector of `THINGS` that finds something everywhere."""
    torch.manual_seed(seed)
    given = {"fpn_channels": 16, "box_dim": 32, "anchor_scale": 4.0, "score_threshold": 0.0}
    model = _stirred(Detector(_encoder(), len(THINGS), masks=masks, **given | arguments))
    assert isinstance(model, Detector)
    return model


def save_dense(model: Segmentor | Detector, folder: Path, **preprocessing) -> Path:
    """Write weights with their description, and return the file."""
    is_map = isinstance(model, Segmentor)
    description = Description(
        "segmentation" if is_map else "detection",
        "custom",
        model.arguments,
        head=model.head_arguments,
        class_names=PLACES if is_map else THINGS,
        preprocessing=PREPROCESSING | preprocessing,
    )
    save_weights(folder, model.state_dict(), description)
    return folder / "model.safetensors"


def picture(path: Path, seed: int = 0, width: int = 130, height: int = 90) -> Path:
    """Write a picture of smooth colours."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 60
    waves = [np.sin(draw.uniform(2, 9) * x + draw.uniform(2, 9) * y) for _ in range(3)]
    pixels = (120 + 100 * np.stack(waves, -1)).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def edited(artifact: Path, folder: Path, changes: dict[str, Any]) -> Path:
    """Copy an artifact, and edit the artifact.json of the copy, as a user might by hand.

    The keys of the changes are paths, such as "shapes/class_logits". The value None removes one.
    """
    copy = shutil.copytree(artifact, folder)
    card = json.loads((copy / "artifact.json").read_text())
    for path, value in changes.items():
        *outer, name = path.split("/")
        inner = card
        for each in outer:
            inner = inner[each]
        inner.pop(name) if value is None else inner.update({name: value})
    (copy / "artifact.json").write_text(json.dumps(card))
    return copy
