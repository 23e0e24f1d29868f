"""Where the time of detectors and segmentors goes: encoder, pyramid and heads.

    python benchmarks/peers/dense_parts.py [--sizes 320 512]

The networks are those of the recipes detect_small_data and segment_small_data, with the atto
encoder. A part's time is that of the network up to its end, less that of the network up to its
begin, each with its backward pass when it trains. Times are CPU seconds of one thread, so other
programs hardly disturb them; they are medians of some rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import torch
from dense import BATCH, CLASSES, classes, objects, our_detector, our_segmentor
from torch import Tensor
from works import random_images

from convnextv2.inference.dense import lay_out
from convnextv2.model.detector import Detector
from convnextv2.model.upernet import Segmentor, segmentation_loss

ROUNDS = 5
CPU = torch.device("cpu")
Stages = dict[str, Callable[[], Any]]


def detector_stages(model: Detector, images: Tensor, *, masks: bool, trains: bool) -> Stages:
    """Return the detector up to the end of each part, as calls."""
    size = images.shape[-1]
    targets = objects(size, CPU, masks=masks)[1] if trains else None
    return {
        "encoder": lambda: model.encoder.features(images),
        "feature pyramid": lambda: model.features(images).values(),
        "proposals and heads": lambda: model(images, [(size, size)] * BATCH, targets),
    }


def segmentor_stages(model: Segmentor, images: Tensor, *, trains: bool) -> Stages:
    """Return the segmentor up to the end of each part, as calls."""
    size = images.shape[-1]
    targets = torch.randint(CLASSES, (BATCH, size, size))

    def whole() -> Tensor:
        if not trains:
            return classes(model, images)
        logits, auxiliary = model(images)
        return segmentation_loss(logits, auxiliary, targets)

    return {"encoder": lambda: model.encoder.features(images), "heads": whole}


def seconds(model: torch.nn.Module, stage: Callable[[], Any], *, trains: bool) -> float:
    """Measure the CPU time of a stage, with its backward pass when it trains."""
    began = time.process_time()
    with torch.set_grad_enabled(trains):
        found = stage()
        if trains:
            total_of(found).backward()
    taken = time.process_time() - began
    model.zero_grad(set_to_none=True)
    return taken


def total_of(found: Tensor | dict[str, Tensor] | Iterable[Tensor]) -> Tensor:
    """Add everything up that a stage computed."""
    parts = found.values() if isinstance(found, dict) else found
    total = found if isinstance(found, Tensor) else sum(each.sum() for each in parts)
    assert isinstance(total, Tensor)
    return total


def measure(model: torch.nn.Module, stages: Stages, *, trains: bool) -> dict[str, float]:
    """Measure the parts of a network in turns.

    Returns:
        Part -> CPU seconds for one image.
    """
    model.train(trains)
    taken: dict[str, list[float]] = {name: [] for name in stages}
    for number in range(ROUNDS + 1):
        for name, stage in stages.items():
            found = seconds(model, stage, trains=trains)
            if number:  # the first round builds kernels and takes memory
                taken[name].append(found)
    until = {name: median(each) / BATCH for name, each in taken.items()}
    before = dict(zip(until, [0.0, *until.values()], strict=False))
    return {name: round(until[name] - before[name], 4) for name in until}


def main() -> None:
    """Measure all networks, and print a record for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=[320, 512], help="image sizes")
    torch.set_num_threads(1)
    for size, trains in itertools.product(parser.parse_args().sizes, (True, False)):
        images = random_images(BATCH, CPU, size)
        for task in ("boxes", "masks"):
            masks = task == "masks"
            detector = our_detector(masks) if trains else lay_out(our_detector(masks), CPU)
            stages = detector_stages(detector, images, masks=masks, trains=trains)
            report(task, size, trains, measure(detector, stages, trains=trains))
        segmentor = our_segmentor() if trains else lay_out(our_segmentor(), CPU)
        stages = segmentor_stages(segmentor, images, trains=trains)
        report("pixels", size, trains, measure(segmentor, stages, trains=trains))


def report(task: str, size: int, trains: bool, parts: dict[str, float]) -> None:
    """Print the parts of a network as one line of JSON."""
    whole = sum(parts.values())
    shares = {name: round(value / whole, 3) for name, value in parts.items()}
    found = {"task": task, "size": size, "trains": trains, "seconds": parts, "shares": shares}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
