"""The options of a small run, images for it, and functions that read it."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from convnextv2.weights.safetensors import read_tensors

SMALL = (
    "--model custom --depths 1,1,1,1 --dims 8,16,24,32 --image_size 64 --batch_size 4 --workers 0 "
    "--precision float32 --device cpu --log_every_steps 2 --tensorboard False"
).split()


def draw(path: Path, colour: int, seed: int, size: tuple[int, int] = (80, 70)) -> None:
    """Write a noisy picture whose colour tells its class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 80, (*size, 3))
    pixels[..., colour] += 150
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def metrics(run: Path) -> list[dict]:
    """Read the log of a run."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Read the last weights of a run."""
    return read_tensors(run / "last" / "model.safetensors")[0]
