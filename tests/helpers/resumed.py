"""A small training that is resumed, and a comparison of its weights."""

from pathlib import Path

import torch
from runs import SMALL, weights

from convnextv2.cli import main

FIXED = [*SMALL, "--lr", "0.01", "--ema", "--epochs"]


def train(photos: Path, out: Path, *more: str, epochs: int = 3) -> int:
    """Train on photographs, and return the exit code."""
    return main(["train", "--data_dir", str(photos), "--out", str(out), *FIXED, str(epochs), *more])


def equal(a: Path, b: Path) -> bool:
    """Return whether the last weights of two runs are the same."""
    one, other = weights(a), weights(b)
    return all(torch.equal(one[name], other[name]) for name in one)
