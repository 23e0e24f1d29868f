"""The certificate: how an artifact compares with the PyTorch model that it was made from.

They are compared on real images, and on adversarial and other unusual ones.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convnextv2.deploy.formats.artifact_format import Runner
from convnextv2.deploy.graph import Graph
from convnextv2.errors import ArtifactError
from convnextv2.evaluation.timing import take_turns

TOLERANCE = {"float32": 1e-3, "float16": 3e-2, "bfloat16": 1.5e-1}
"""The largest difference of an output that an artifact may have, as a share of its reach.

The reach of an output is the `scale` of `agreement`. Artifacts in int8 are judged by
LEAST_AGREEMENT and LARGEST_LOSS instead."""

LEAST_AGREEMENT = 0.97
"""The share of real images for which the most probable class must be the same.

One image may always differ."""

LARGEST_LOSS = 0.01
"""How much top-1 accuracy an artifact in int8 may lose."""

_EPSILON = 4
"""How far a pixel of an adversarial image is moved, in levels of 255."""

_ADVERSARIAL_IMAGES = 8

Pairs = Mapping[str, tuple[Tensor, Tensor]]
"""Each output by name: of the model and of the artifact, flattened to (N, D)."""


def certify(
    reference: Graph,
    runner: Runner,
    precision: str,
    pixels: Tensor,
    targets: Tensor | None,
    *,
    normalise: Callable[[Tensor], Tensor],
    batch_size: int,
    seconds: float,
    other_size: bool = False,
) -> dict[str, Any]:
    """Compare an artifact with the model that it was made from.

    Args:
        reference: The graph that the artifact was made from, in float32, in PyTorch.
        runner: The opened artifact.
        precision: The artifact's precision.
        pixels: Real images at the model's size, uint8 (N, C, H, W).
        targets: The images' classes, int64 (N,), -1 for those that are not known; None if none is.
        normalise: Turns pixels into images.
        batch_size: The batch size of the comparison of speeds.
        seconds: How long the comparison of speeds takes, in seconds.
        other_size: Whether to compare at another image size too.

    Returns:
        The certificate.

    Raises:
        ArtifactError: The artifact returns NaN or infinity, or differs by more than its precision
            explains.
    """
    certificate: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "output": reference.output_names[0],
    }
    for group, some in _groups(reference, pixels, normalise, batch_size, other_size).items():
        inputs = (input_of(reference.input, part, normalise) for part in some.split(batch_size))
        outputs = _outputs(reference, runner, inputs)
        certificate[group] = _compare(reference, precision, group, outputs)
        if group == "real" and targets is not None and reference.outputs == "classifier":
            certificate["accuracy"] = _accuracy(*outputs[reference.output_names[0]], targets)
    batch = pixels[torch.arange(batch_size) % len(pixels)]
    timed = input_of(reference.input, batch, normalise)
    certificate["speed"] = _speed(reference, runner, timed, seconds)
    return certificate


def input_of(input: str, pixels: Tensor, normalise: Callable[[Tensor], Tensor]) -> Tensor:
    """Turn pixels into what a graph takes.

    Args:
        input: The graph's input, "images" or "pixels".
        pixels: uint8 (N, C, H, W).
        normalise: Turns pixels into images.

    Returns:
        Images, float32 (N, C, H, W); or the pixels, uint8 (N, H, W, C).
    """
    given = pixels.permute(0, 2, 3, 1) if input == "pixels" else normalise(pixels)
    return given.contiguous()


def _groups(
    reference: Graph,
    pixels: Tensor,
    normalise: Callable[[Tensor], Tensor],
    batch_size: int,
    other_size: bool,
) -> dict[str, Tensor]:
    """The images of each comparison, uint8 (N, C, H, W)."""
    unusual = [stress_images(pixels)]
    if reference.outputs == "classifier":
        unusual.append(_adversarial(reference, pixels[:_ADVERSARIAL_IMAGES], normalise))
    groups = {"real": pixels, "adversarial": torch.cat(unusual)}
    if other_size:
        groups["other_size"] = resized_by(pixels[:batch_size], reference.model.total_stride)
    return groups


def _outputs(reference: Graph, runner: Runner, inputs: Iterable[Tensor]) -> Pairs:
    """The outputs of the model and of the artifact for the same batches."""
    parts = []
    for x in inputs:
        with torch.inference_mode():
            expected = reference(x)
        found = [torch.from_numpy(np.asarray(output)) for output in runner(x.numpy())]
        parts.append((expected, found))
    return {
        name: (
            torch.cat([expected[i].flatten(1) for expected, _ in parts]),
            torch.cat([found[i].flatten(1) for _, found in parts]),
        )
        for i, name in enumerate(reference.output_names)
    }


def _accuracy(expected: Tensor, found: Tensor, targets: Tensor) -> dict[str, Any]:
    """Top-1 accuracy of the model and of the artifact, on the images whose class is known."""
    known = targets >= 0
    pytorch, artifact = (
        float((output.argmax(-1) == targets)[known].double().mean()) for output in (expected, found)
    )
    return {"images": int(known.sum()), "pytorch_top1": pytorch, "artifact_top1": artifact}


def _speed(reference: Graph, runner: Runner, x: Tensor, seconds: float) -> dict[str, Any]:
    """The speeds of the model and of the artifact, measured in turns on one batch."""
    array, batch_size = x.numpy(), len(x)

    def in_pytorch() -> None:
        with torch.inference_mode():
            reference(x)

    timings = take_turns(
        {"pytorch": in_pytorch, "artifact": lambda: runner(array)}, seconds=seconds
    )
    pytorch, artifact = timings["pytorch"].median, timings["artifact"].median
    return {
        "batch": batch_size,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "pytorch_images_per_second": batch_size / pytorch,
        "artifact_images_per_second": batch_size / artifact,
        "ratio": pytorch / artifact,
    }


def _compare(reference: Graph, precision: str, group: str, outputs: Pairs) -> dict[str, Any]:
    """Compare the outputs for one group of images.

    Returns:
        The agreement of the first output, and under "others" that of the rest.
    """
    found: dict[str, Any] = {}
    best = [output.argmax(-1) for output in next(iter(outputs.values()))]
    same = best[0] == best[1]
    for name, (expected, output) in outputs.items():
        if not output.isfinite().all():
            raise ArtifactError(
                f"precision = {precision}: on {group} inputs the artifact's {name} holds NaN or "
                "infinity; the model's does not. Use float32."
            )
        if name == "explanation":  # it explains the most probable class, which must be the same
            found[name] = agreement(expected[same], output[same])
        else:
            found[name] = agreement(expected, output)
            _check_difference(found[name], precision, group, name)
    first, *others = found
    summary: dict[str, Any] = found[first] | {"others": {name: found[name] for name in others}}
    if reference.outputs == "classifier":
        summary["top1_agreement"] = float(same.double().mean())
        if group == "real" and precision in TOLERANCE:
            _check_classes(same, precision)
    return summary


def _check_difference(found: Mapping[str, Any], precision: str, group: str, name: str) -> None:
    """Raise ArtifactError if an output differs by more than its precision explains."""
    difference = found["max_difference"] / max(found["scale"], 1e-12)
    if precision in TOLERANCE and not difference <= TOLERANCE[precision]:
        raise ArtifactError(
            f"precision = {precision}: on {group} inputs the artifact's {name} differs from the "
            f"model's by {difference:.2g} of its reach, more than {TOLERANCE[precision]:g}. Use a "
            "finer precision."
        )


def _check_classes(same: Tensor, precision: str) -> None:
    """Raise ArtifactError if too many real images get another class.

    Args:
        same: Whether the most probable class of each image is the same, bool (N,).
        precision: The artifact's precision.
    """
    if int((~same).sum()) > max(1, (1 - LEAST_AGREEMENT) * len(same)):
        raise ArtifactError(
            f"precision = {precision}: the artifact agrees with the model on the class of "
            f"{float(same.double().mean()):.1%} of {len(same)} images (at least "
            f"{LEAST_AGREEMENT:.0%} asked). Use a finer precision."
        )


def agreement(expected: Tensor, found: Tensor) -> dict[str, Any]:
    """Measure how far two sets of outputs are apart.

    Args:
        expected: The model's, (N, D).
        found: The artifact's, (N, D).

    Returns:
        The number of images, the largest and the mean difference, and the scale: the largest
        distance of an expected value from the mean of its row. What all classes have in common
        decides nothing, so it does not count.
    """
    if not expected.numel():
        return {"images": 0, "max_difference": 0.0, "mean_difference": 0.0, "scale": 0.0}
    difference = (found.double() - expected.double()).abs()
    return {
        "images": len(expected),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "scale": float((expected - expected.mean(-1, keepdim=True)).abs().max()),
    }


def resized_by(pixels: Tensor, stride: int) -> Tensor:
    """Make images larger by mirroring them at their edges.

    Args:
        pixels: The images (N, C, H, W).
        stride: How much to add, in px.

    Returns:
        The images, one stride higher and two strides wider.
    """
    height, width = pixels.shape[2] + stride, pixels.shape[3] + 2 * stride
    rows, columns = (
        torch.cat([torch.arange(size), torch.arange(size).flip(0)]).repeat(wanted // size + 1)[
            :wanted
        ]
        for size, wanted in ((pixels.shape[2], height), (pixels.shape[3], width))
    )
    return pixels[:, :, rows][..., columns]


def check_int8(certificate: Mapping[str, Any], float32_ratio: float) -> None:
    """Check that an artifact in int8 is worth having.

    Args:
        certificate: Its certificate.
        float32_ratio: The speed of the same format in float32, as a multiple of PyTorch's.

    Raises:
        ArtifactError: It is not accurate enough, or no faster than in float32.
    """
    real, accuracy = certificate["real"], certificate.get("accuracy")
    ratio = certificate["speed"]["ratio"]
    lost = accuracy["pytorch_top1"] - accuracy["artifact_top1"] if accuracy else 0.0
    lost = round(lost, 6)  # in floats, 0.63 - 0.62 is more than 0.01
    if real["top1_agreement"] < LEAST_AGREEMENT or lost > LARGEST_LOSS:
        raise ArtifactError(
            "precision = int8: not accurate enough, so nothing is kept: agrees with the model on "
            f"{real['top1_agreement']:.1%} of {real['images']} images (at least "
            f"{LEAST_AGREEMENT:.0%} asked), top-1 falls by {100 * lost:.1f} points (at most "
            f"{100 * LARGEST_LOSS:.0f}). Use float32."
        )
    if ratio <= float32_ratio:
        raise ArtifactError(
            "precision = int8: no faster than float32 here, so nothing is kept: "
            f"{ratio:.2f} times PyTorch's pace, float32 {float32_ratio:.2f} times. Use float32."
        )


def stress_images(like: Tensor) -> Tensor:
    """Make images that photographs never are.

    They are black, white, noise, checkerboards and stripes of full contrast, one white pixel, and
    one channel alone.

    Args:
        like: Images of the wanted shape (N, C, H, W).

    Returns:
        The images, uint8 (M, C, H, W).
    """
    channels, height, width = like.shape[1:]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    black = torch.zeros(height, width)
    planes = [
        black,
        black + 1,
        ((rows + columns) % 2).float(),
        ((rows // 4 + columns // 4) % 2).float(),
        (rows % 2 + 0 * columns).float(),
        ((rows == height // 2) & (columns == width // 2)).float(),
    ]
    images = torch.stack(planes)[:, None].repeat(1, channels, 1, 1) * 255
    noise = torch.randint(
        0, 256, (2, channels, height, width), generator=torch.Generator().manual_seed(0)
    )
    alone = torch.zeros(channels, channels, height, width)
    alone[range(channels), range(channels)] = 255
    return torch.cat([images, noise.float(), alone]).to(torch.uint8)


def _adversarial(reference: Graph, pixels: Tensor, normalise: Callable[[Tensor], Tensor]) -> Tensor:
    """Move images a little to where the model is least sure (Goodfellow et al. 2015).

    Small differences between the model and the artifact show there.

    Args:
        reference: A classifier.
        pixels: Real images, uint8 (N, C, H, W).
        normalise: Turns pixels into images.

    Returns:
        The moved images, uint8 (N, C, H, W).
    """
    model = reference.model
    start = normalise(pixels).clone().requires_grad_()
    with torch.enable_grad():
        best = model(start).topk(min(2, model.num_classes or 1), dim=-1).values
        (gradient,) = torch.autograd.grad((best[:, 0] - best[:, -1]).sum(), start)
    return (pixels.float() - _EPSILON * gradient.sign()).round().clamp(0, 255).to(torch.uint8)


def processor() -> str:
    """Name this machine's processor and the number of its cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
