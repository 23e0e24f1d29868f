"""The loss of a segmentor with its gradient: the kernel beside PyTorch's operations.

    python benchmarks/peers/dense_loss.py [--threads 1]

Both heads are counted. The two ways take turns, and times are medians of CPU seconds for the images
of a step.
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from convnextv2.kernels.choice import choose
from convnextv2.model.upernet import segmentation_loss

ROUNDS = 7
STRIDES = (4, 16)
"""Pixels to a position of the two heads' logits, along each side."""


class Step(NamedTuple):
    """The images of a training step."""

    classes: int
    images: int
    size: int


STEPS = (Step(59, 8, 192), Step(150, 2, 512), Step(20, 4, 320), Step(8, 4, 320))


def seconds(kernels: Literal["native", "plain"], logits: list[Tensor], targets: Tensor) -> float:
    """Measure the CPU time of one loss and its gradient."""
    choose(kernels)
    began = time.process_time()
    torch.autograd.grad(segmentation_loss(logits[0], logits[1], targets), logits)
    return time.process_time() - began


def measure(step: Step) -> dict[str, object]:
    """Measure both ways in turns."""
    torch.manual_seed(0)
    sides = [step.size // stride for stride in STRIDES]
    logits = [
        torch.randn(step.images, step.classes, side, side, requires_grad=True) for side in sides
    ]
    targets = torch.randint(step.classes, (step.images, step.size, step.size))
    taken: dict[str, list[float]] = {"native": [], "plain": []}
    for number in range(ROUNDS + 1):
        for kernels in ("native", "plain"):
            found = seconds(kernels, logits, targets)
            if number:  # the first round builds kernels and takes memory
                taken[kernels].append(found)
    ratio = median(b / a for a, b in zip(taken["native"], taken["plain"], strict=True))
    times = {name: round(median(each), 3) for name, each in taken.items()}
    return {**step._asdict(), **times, "ratio": round(ratio, 2)}


def main() -> None:
    """Measure, and print a record for each step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    for step in STEPS:
        print(json.dumps(measure(step)), flush=True)


if __name__ == "__main__":
    main()
