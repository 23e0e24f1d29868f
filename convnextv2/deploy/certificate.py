"""The certificate: an artifact beside the PyTorch model it was made from, on real and on adversarial inputs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
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
"""The largest difference of an output that an artifact may have, as a share of how far the outputs reach (`agreement`). For int8
the bounds are LEAST_AGREEMENT and LARGEST_LOSS."""

LEAST_AGREEMENT = 0.97
"""Of the most probable class, on real images; one may always differ."""

LARGEST_LOSS = 0.01
"""Of top-1 accuracy."""

_EPSILON = 4  # of the adversarial images: levels of 255


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
    """Compare an artifact with the model; returns the certificate. Raises ArtifactError where the artifact returns what is no
    number, or differs by more than its precision explains.

    reference: the same graph in float32, in PyTorch. pixels: uint8 (N, C, H, W), real images at the model's size. targets: int64
    (N,), classes, -1 where not known; None where there are none. normalise: pixels to images. batch_size: of the comparison of
    speeds, which takes about `seconds`. other_size: compare at another image size, too."""

    def prepare(pixels: Tensor) -> Tensor:
        return (
            pixels.permute(0, 2, 3, 1).contiguous()
            if reference.input == "pixels"
            else normalise(pixels).contiguous()
        )

    def outputs(pixels: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Of the model and the artifact: each output, flattened to (N, D)."""
        parts = []
        for part in pixels.split(batch_size):
            x = prepare(part)
            with torch.inference_mode():
                expected = reference(x)
            parts.append(
                (expected, [torch.from_numpy(np.asarray(output)) for output in runner(x.numpy())])
            )
        return {
            name: (
                torch.cat([e[i].flatten(1) for e, _ in parts]),
                torch.cat([f[i].flatten(1) for _, f in parts]),
            )
            for i, name in enumerate(reference.output_names)
        }

    certificate: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "output": reference.output_names[0],
    }
    groups = {
        "real": pixels,
        "adversarial": torch.cat(
            [stress_images(pixels), *_adversarial(reference, pixels, normalise)]
        ),
    }
    if other_size:
        groups["other_size"] = resized_by(pixels[:batch_size], reference.model.total_stride)
    for group, some in groups.items():
        found = outputs(some)
        certificate[group] = _compare(reference, precision, group, found)
        if group == "real" and targets is not None and reference.outputs == "classifier":
            known = targets >= 0
            hits = [
                float((of.argmax(-1) == targets)[known].double().mean())
                for of in found[reference.output_names[0]]
            ]
            certificate["accuracy"] = {
                "images": int(known.sum()),
                "pytorch_top1": hits[0],
                "artifact_top1": hits[1],
            }

    x = prepare(pixels[torch.arange(batch_size) % len(pixels)])
    array = x.numpy()

    def in_pytorch() -> None:
        with torch.inference_mode():
            reference(x)

    timings = take_turns(
        {"pytorch": in_pytorch, "artifact": lambda: runner(array)}, seconds=seconds
    )
    certificate["speed"] = {
        "batch": batch_size,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "pytorch_images_per_second": batch_size / timings["pytorch"].median,
        "artifact_images_per_second": batch_size / timings["artifact"].median,
        "ratio": timings["pytorch"].median / timings["artifact"].median,
    }
    return certificate


def _compare(
    reference: Graph, precision: str, group: str, outputs: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, Any]:
    """Agreement of the first output, and under "others" of the rest."""
    found: dict[str, Any] = {}
    best = [of.argmax(-1) for of in next(iter(outputs.values()))]
    for name, (expected, output) in outputs.items():
        if not output.isfinite().all():
            raise ArtifactError(
                f"precision = {precision}: on {group} inputs the artifact's {name} holds NaN or infinity; the model's does not. "
                "Use float32."
            )
        if (
            name == "explanation"
        ):  # it explains the most probable class: comparable where that is the same
            same = best[0] == best[1]
            expected, output = expected[same], output[same]
        found[name] = agreement(expected, output)
        difference = found[name]["max_difference"] / max(found[name]["scale"], 1e-12)
        if (
            precision in TOLERANCE
            and name != "explanation"
            and not difference <= TOLERANCE[precision]
        ):
            raise ArtifactError(
                f"precision = {precision}: on {group} inputs the artifact's {name} differs from the model's by {difference:.2g} "
                f"of its reach, more than {TOLERANCE[precision]:g}. Use a finer precision."
            )
    first, *others = found
    summary: dict[str, Any] = found[first] | {"others": {name: found[name] for name in others}}
    if reference.outputs == "classifier":
        same = best[0] == best[1]
        summary["top1_agreement"] = float(same.double().mean())
        if (
            precision in TOLERANCE
            and group == "real"
            and int((~same).sum()) > max(1, (1 - LEAST_AGREEMENT) * len(same))
        ):
            raise ArtifactError(
                f"precision = {precision}: the artifact agrees with the model on the class of {summary['top1_agreement']:.1%} "
                f"of {len(same)} images (at least {LEAST_AGREEMENT:.0%} asked). Use a finer precision."
            )
    return summary


def agreement(expected: Tensor, found: Tensor) -> dict[str, Any]:
    """How far two sets of outputs (N, D) are apart. scale: the largest distance of an expected value from the mean of its row, as
    what all classes have in common decides nothing."""
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
    """The same images (N, C, H, W), one stride higher and two wider, mirrored at the edges."""
    height, width = pixels.shape[2] + stride, pixels.shape[3] + 2 * stride
    rows, columns = (
        torch.cat([torch.arange(size), torch.arange(size).flip(0)]).repeat(wanted // size + 1)[
            :wanted
        ]
        for size, wanted in ((pixels.shape[2], height), (pixels.shape[3], width))
    )
    return pixels[:, :, rows][..., columns]


def check_int8(certificate: dict[str, Any], float32_ratio: float) -> None:
    """Raises ArtifactError where an int8 artifact is not accurate enough, or no faster than the same format in float32.

    float32_ratio: the speed of that against PyTorch."""
    real, accuracy, ratio = (
        certificate["real"],
        certificate.get("accuracy"),
        certificate["speed"]["ratio"],
    )
    lost = (
        round(accuracy["pytorch_top1"] - accuracy["artifact_top1"], 6) if accuracy else 0.0
    )  # 0.63 - 0.62 is more than 0.01
    if real["top1_agreement"] < LEAST_AGREEMENT or lost > LARGEST_LOSS:
        raise ArtifactError(
            f"precision = int8: not accurate enough, so nothing is kept: agrees with the model on {real['top1_agreement']:.1%} "
            f"of {real['images']} images (at least {LEAST_AGREEMENT:.0%} asked), top-1 falls by {100 * lost:.1f} points (at most "
            f"{100 * LARGEST_LOSS:.0f}). Use float32."
        )
    if ratio <= float32_ratio:
        raise ArtifactError(
            f"precision = int8: no faster than float32 here, so nothing is kept: {ratio:.2f} times PyTorch's pace, float32 "
            f"{float32_ratio:.2f} times. Use float32."
        )


def stress_images(like: Tensor) -> Tensor:
    """uint8 images of the shape of `like` (N, C, H, W) that photographs never are: black, white, noise, checkerboards and stripes
    of full contrast, one white pixel, one channel alone."""
    channels, height, width = like.shape[1:]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    plain = torch.zeros(height, width)
    planes = [
        plain,
        plain + 1,
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


def _adversarial(
    reference: Graph, pixels: Tensor, normalise: Callable[[Tensor], Tensor], count: int = 8
) -> Iterator[Tensor]:
    """Real images moved a little to where the model is least sure (Goodfellow et al. 2015): there small differences show."""
    if reference.outputs != "classifier":
        return
    model = reference.model
    start = normalise(pixels[:count]).clone().requires_grad_()
    with torch.enable_grad():
        best = model(start).topk(min(2, model.num_classes or 1), dim=-1).values
        (gradient,) = torch.autograd.grad((best[:, 0] - best[:, -1]).sum(), start)
    yield (
        (pixels[:count].float() - _EPSILON * gradient.sign()).round().clamp(0, 255).to(torch.uint8)
    )


def processor() -> str:
    """What this machine computes with, in words."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
