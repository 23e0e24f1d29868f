"""A small classifier of four kinds of trees, and pictures for it."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.weights.description import Description
from convnextv2.weights.safetensors import save_weights

PREPROCESSING = {
    "image_size": [64, 64],
    "channels": 3,
    "eval_preset": "timm",
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.25, 0.3],
}
CLASSES = ["ash", "birch", "cedar", "dogwood"]


def network(*, seed: int = 0, scale: float = 0.1, **arguments) -> ConvNeXtV2:
    """Make a small model in evaluation mode with every parameter random.

    GRN starts at zero, which would hide its effect.
    """
    torch.manual_seed(seed)
    model = ConvNeXtV2((1, 1, 1, 1), (16, 24, 32, 48), **{"num_classes": len(CLASSES)} | arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape))
    return model.eval()


def save(model: ConvNeXtV2, folder: Path, *, kind: str = "classifier", **description) -> Path:
    """Write weights with their preprocessing and class names, and return the file."""
    content = {"class_names": CLASSES, "preprocessing": PREPROCESSING} | description
    save_weights(
        folder, model.state_dict(), Description(kind, "custom", model.arguments, **content)
    )
    return folder / "model.safetensors"


def photograph(seed: int, width: int = 90, height: int = 75) -> np.ndarray:
    """Draw smooth colours with noise, uint8 (H, W, 3)."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 75
    waves = [
        np.sin(draw.uniform(1, 9) * x + draw.uniform(1, 9) * y + draw.uniform(0, 6))
        for _ in range(3)
    ]
    return (
        (110 + 90 * np.stack(waves, -1) + draw.normal(0, 10, (height, width, 3)))
        .clip(0, 255)
        .astype(np.uint8)
    )


def photographs(count: int, size: int = 64) -> Tensor:
    """Draw square photographs, uint8 (N, 3, size, size)."""
    return torch.stack(
        [torch.from_numpy(photograph(500 + i, size, size)).permute(2, 0, 1) for i in range(count)]
    )


def normalised(images: Tensor) -> Tensor:
    """Normalise pixels, uint8 (N, 3, H, W), as PREPROCESSING says; float64."""
    mean, std = (
        torch.tensor(PREPROCESSING[key], dtype=torch.float64)[:, None, None]
        for key in ("mean", "std")
    )
    return (images.double() / 255 - mean) / std


def in_float64(images: Tensor) -> tuple[Tensor, Tensor]:
    """Compute logits (N, 4) and pooled features (N, 48) of pixels by the model's forward pass."""
    model = network().double()
    with torch.no_grad():
        return model(normalised(images)), model.norm(model.encode(normalised(images)).mean((1, 2)))
