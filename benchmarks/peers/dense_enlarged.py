"""Compare the kernels that compute for every pixel of a segmentor with PyTorch's operations.

    python benchmarks/peers/dense_enlarged.py [--threads 1]

"loss" is the loss of both heads with its gradient, for the images of a training step. "classes" is
the class of every pixel of one image. The two implementations take turns, and times are medians of
CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Literal, NamedTuple

import torch

from convnextv2.inference.pixel_classifier import LogitMap, classes_of
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


STEPS = (Step(59, 8, 192), Step(150, 2, 512), Step(20, 4, 320))


def works(step: Step) -> dict[str, Callable[[], object]]:
    """Return what is measured, as calls."""
    torch.manual_seed(0)
    sides = [step.size // stride for stride in STRIDES]
    logits = [
        torch.randn(step.images, step.classes, side, side, requires_grad=True) for side in sides
    ]
    targets = torch.randint(step.classes, (step.images, step.size, step.size))
    found = LogitMap(logits[0][0].detach(), (sides[0], sides[0]))
    return {
        "loss": lambda: torch.autograd.grad(
            segmentation_loss(logits[0], logits[1], targets), logits
        ),
        "classes": lambda: classes_of([found], (step.size, step.size)),
    }


def seconds(kernels: Literal["native", "plain"], work: Callable[[], object]) -> float:
    """Measure the CPU time of a call."""
    choose(kernels)
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(work: Callable[[], object]) -> dict[str, float]:
    """Measure both implementations in turns."""
    taken: dict[str, list[float]] = {"native": [], "plain": []}
    for number in range(ROUNDS + 1):
        for kernels in ("native", "plain"):
            found = seconds(kernels, work)
            if number:  # the first round builds kernels and takes memory
                taken[kernels].append(found)
    ratio = median(b / a for a, b in zip(taken["native"], taken["plain"], strict=True))
    return {name: round(median(each), 4) for name, each in taken.items()} | {
        "ratio": round(ratio, 1)
    }


def main() -> None:
    """Measure, and print a record for each work of each step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    for step in STEPS:
        for name, work in works(step).items():
            print(json.dumps({"work": name, **step._asdict(), **measure(work)}), flush=True)


if __name__ == "__main__":
    main()
