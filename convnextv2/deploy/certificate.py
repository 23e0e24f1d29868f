"""The certificate: how an artifact compares with the PyTorch model that it was made from.

They are compared on real images, and on unusual ones, some of which are adversarial.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convnextv2.deploy.formats.artifact_format import Runner
from convnextv2.deploy.graph import Graph, has_classes
from convnextv2.deploy.unusual_images import adversarial_images, resized_by, stress_images
from convnextv2.errors import ArtifactError
from convnextv2.evaluation.multi_label_metrics import label_figures
from convnextv2.evaluation.thresholds import DEFAULT
from convnextv2.evaluation.timing import take_turns

TITLES = {"real": "real", "adversarial": "unusual", "other_size": "other size"}
"""The names of the groups of images in messages. Only some unusual images are adversarial."""

TOLERANCE = {"float32": 1e-3, "float16": 3e-2, "bfloat16": 1.5e-1}
"""The largest difference of an output that is accepted, as a share of the range of the output.

The range of an output is the `scale` of `agreement`. Artifacts in int8 are judged by
MIN_AGREEMENT and MAX_ACCURACY_LOSS instead."""

MIN_AGREEMENT = 0.97
"""The share of real images for which the most probable class must be the same.

One image may always differ. If images may have several labels, this is the F1 of the artifact's
labels, with those of the model as the truth."""

MAX_ACCURACY_LOSS = 0.01
"""The top-1 accuracy, or F1 of all labels, that an artifact in int8 may lose at most."""


_ADVERSARIAL_IMAGES = 8

Pairs = Mapping[str, tuple[Tensor, Tensor]]
"""The outputs by name: that of the model and that of the artifact, flattened to (N, D)."""


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
    thresholds: Sequence[float] = (),
    other_size: bool = False,
) -> dict[str, Any]:
    """Compare an artifact with the model that it was made from.

    Args:
        reference: The graph that the artifact was made from, in float32, in PyTorch.
        runner: The opened artifact.
        precision: The artifact's precision.
        pixels: Real images at the model's size, uint8 (N, C, H, W).
        targets: The images' classes, int64 (N,), -1 where the class is unknown; or their labels,
            int64 (N, K); None if none is known.
        normalise: Turns pixels into images.
        batch_size: The batch size of the comparison of speeds.
        seconds: The duration of the comparison of speeds.
        thresholds: For several labels: a threshold for each class; empty for 0.5.
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
        certificate[group] = _compare(reference, precision, group, outputs, thresholds)
        first = outputs[reference.output_names[0]]
        if group != "real" or targets is None:
            continue
        if reference.outputs == "classifier":
            certificate["accuracy"] = _accuracy(*first, targets)
        elif reference.outputs == "multi_label":
            expected, found = (_probabilities(reference, output) for output in first)
            certificate["labels"] = _label_accuracy(expected, found, targets, thresholds)
    batch = pixels[torch.arange(batch_size) % len(pixels)]
    timed = input_of(reference.input, batch, normalise)
    certificate["speed"] = _speed(reference, runner, timed, seconds)
    return certificate


def input_of(input: str, pixels: Tensor, normalise: Callable[[Tensor], Tensor]) -> Tensor:
    """Turn pixels into the input of a graph.

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
    """Return the images of each comparison, uint8 (N, C, H, W)."""
    unusual = [stress_images(pixels)]
    if has_classes(reference.outputs):
        unusual.append(adversarial_images(reference, pixels[:_ADVERSARIAL_IMAGES], normalise))
    groups = {"real": pixels, "adversarial": torch.cat(unusual)}
    if other_size:
        groups["other_size"] = resized_by(pixels[:batch_size], reference.model.total_stride)
    return groups


def _outputs(reference: Graph, runner: Runner, inputs: Iterable[Tensor]) -> Pairs:
    """Compute the outputs of the model and of the artifact for the same batches."""
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
    """Compute the top-1 accuracy of both, on the images whose class is known."""
    known = targets >= 0
    pytorch, artifact = (
        float((output.argmax(-1) == targets)[known].double().mean()) for output in (expected, found)
    )
    return {"images": int(known.sum()), "pytorch_top1": pytorch, "artifact_top1": artifact}


def _label_accuracy(
    expected: Tensor, found: Tensor, targets: Tensor, thresholds: Sequence[float]
) -> dict[str, Any]:
    """Compute the F1 of all labels of both, on the labels that are known."""
    labels = targets.numpy()
    pytorch, artifact = (
        label_figures(_labels(probs, thresholds).numpy(), labels) for probs in (expected, found)
    )
    return {
        "images": len(targets),
        "known": int((targets >= 0).sum()),
        "pytorch_f1_micro": pytorch.f1_micro,
        "artifact_f1_micro": artifact.f1_micro,
    }


def _probabilities(reference: Graph, output: Tensor) -> Tensor:
    """Return the probabilities of a model with classes, whose first output may be logits."""
    return output if reference.input == "pixels" else reference.probabilities(output)


def _logits(reference: Graph, output: Tensor) -> Tensor:
    """Return the logits of a model of several labels, whose first output may be probabilities."""
    if reference.input == "images":
        return output
    return reference.temperature * output.double().logit(eps=1e-12)


def _labels(probs: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Return which labels count as present, bool (N, K)."""
    return probs >= torch.tensor(thresholds or [DEFAULT] * probs.shape[1], dtype=torch.float64)


def _speed(reference: Graph, runner: Runner, x: Tensor, seconds: float) -> dict[str, Any]:
    """Measure the speeds of the model and of the artifact on one batch."""
    array = x.numpy()

    def in_pytorch() -> None:
        with torch.inference_mode():
            reference(x)

    return compare_speeds(in_pytorch, lambda: runner(array), len(x), seconds)


def compare_speeds(
    in_pytorch: Callable[[], object], in_artifact: Callable[[], object], images: int, seconds: float
) -> dict[str, Any]:
    """Measure the speeds of the model and of the artifact, in turns.

    Args:
        in_pytorch: Runs the model.
        in_artifact: Runs the artifact on the same images.
        images: The number of these images.
        seconds: The duration of the comparison.
    """
    timings = take_turns({"pytorch": in_pytorch, "artifact": in_artifact}, seconds=seconds)
    pytorch, artifact = timings["pytorch"].median, timings["artifact"].median
    return {
        "batch": images,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "pytorch_images_per_second": images / pytorch,
        "artifact_images_per_second": images / artifact,
        "ratio": pytorch / artifact,
    }


def _compare(
    reference: Graph, precision: str, group: str, outputs: Pairs, thresholds: Sequence[float]
) -> dict[str, Any]:
    """Compare the outputs for one group of images.

    Returns:
        The agreement of the first output, and under "others" that of the rest.
    """
    found: dict[str, Any] = {}
    best = [output.argmax(-1) for output in next(iter(outputs.values()))]
    if reference.outputs == "multi_label":
        best = [
            reference.explained(_logits(reference, each)) for each in next(iter(outputs.values()))
        ]
    same = best[0] == best[1]
    for name, (expected, output) in outputs.items():
        if not output.isfinite().all():
            raise ArtifactError(
                f"precision = {precision}: on {TITLES[group]} inputs the artifact's {name} holds "
                "NaN or infinity; the model's does not. Use float32."
            )
        if name == "explanation":  # maps of different classes cannot be compared
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
    elif reference.outputs == "multi_label":
        expected, output = (_probabilities(reference, each) for each in outputs[first])
        summary |= _compare_labels(expected, output, precision, group, thresholds)
    return summary


def _compare_labels(
    expected: Tensor, found: Tensor, precision: str, group: str, thresholds: Sequence[float]
) -> dict[str, Any]:
    """Compare the probabilities of several labels, and the labels that count as present.

    Args:
        expected: The model's probabilities (N, K).
        found: The artifact's probabilities (N, K).
        precision: The artifact's precision.
        group: The group of images.
        thresholds: A threshold for each class; empty for 0.5.

    Returns:
        The agreement of the probabilities; the F1 of the artifact's labels, with those of the model
        as the truth; and the share of images with the same labels.
    """
    probs = agreement(expected, found) | {"scale": 1.0}
    if group == "real":
        _check_difference(probs, precision, group, "probabilities")
    wanted, given = _labels(expected, thresholds), _labels(found, thresholds)
    named = int(wanted.sum() + given.sum())
    agrees = 2 * int((wanted & given).sum()) / named if named else 1.0
    differs = int((wanted != given).sum())
    if group == "real" and precision in TOLERANCE and agrees < MIN_AGREEMENT and differs > 1:
        raise ArtifactError(
            f"precision = {precision}: the artifact's labels agree with the model's to "
            f"{agrees:.1%} (F1) on {len(wanted)} images (at least {MIN_AGREEMENT:.0%} required). "
            "Use a finer precision."
        )
    return {
        "probs": probs,
        "labels_agreement": agrees,
        "same_labels": float((wanted == given).all(dim=1).double().mean()),
    }


def _check_difference(found: Mapping[str, Any], precision: str, group: str, name: str) -> None:
    """Raise ArtifactError if an output differs by more than `TOLERANCE` allows."""
    difference = found["max_difference"] / max(found["scale"], 1e-12)
    if precision in TOLERANCE and not difference <= TOLERANCE[precision]:
        raise ArtifactError(
            f"precision = {precision}: on {TITLES[group]} inputs, the output {name} of the "
            f"artifact differs from the model's by {difference:.2g} of its range, more than "
            f"{TOLERANCE[precision]:g}. Use a finer precision."
        )


def _check_classes(same: Tensor, precision: str) -> None:
    """Raise ArtifactError if too many real images get another class.

    Args:
        same: Whether the most probable class of each image is the same, bool (N,).
        precision: The artifact's precision.
    """
    if int((~same).sum()) > max(1, (1 - MIN_AGREEMENT) * len(same)):
        raise ArtifactError(
            f"precision = {precision}: the artifact agrees with the model on the class of "
            f"{float(same.double().mean()):.1%} of {len(same)} images (at least "
            f"{MIN_AGREEMENT:.0%} required). Use a finer precision."
        )


def agreement(expected: Tensor, found: Tensor) -> dict[str, Any]:
    """Measure the differences between two sets of outputs.

    Args:
        expected: The outputs of the model, (N, D).
        found: The outputs of the artifact, (N, D).

    Returns:
        The number of images, the largest and the mean difference, and the scale. The scale is the
        largest distance of an expected value from the mean of its row, because a number that is
        added to the logits of all classes changes no decision.
    """
    if not expected.numel():
        return {"images": 0, "max_difference": 0.0, "mean_difference": 0.0, "scale": 0.0}
    difference = (found.double() - expected.double()).abs()
    return {
        "images": len(expected),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "scale": float((expected - _common(expected)).abs().max()),
    }


def _common(outputs: Tensor) -> Tensor:
    """Return the mean of each row (N, 1), or 0 if there is only one column."""
    return outputs.mean(-1, keepdim=True) if outputs.shape[1] > 1 else torch.zeros(1)


def check_int8(certificate: Mapping[str, Any], float32_ratio: float) -> None:
    """Check that an artifact in int8 is worth keeping.

    Args:
        certificate: Its certificate.
        float32_ratio: The speed of the same format in float32, as a multiple of PyTorch's speed.

    Raises:
        ArtifactError: It is not accurate enough, or no faster than in float32.
    """
    real, accuracy = certificate["real"], certificate.get("accuracy")
    ratio = certificate["speed"]["ratio"]
    labels = certificate.get("labels")
    lost = accuracy["pytorch_top1"] - accuracy["artifact_top1"] if accuracy else 0.0
    if labels:
        lost = labels["pytorch_f1_micro"] - labels["artifact_f1_micro"]
    lost = round(lost, 6)  # 0.63 - 0.62 > 0.01 in floating point
    agrees = real["labels_agreement"] if "labels_agreement" in real else real["top1_agreement"]
    if agrees < MIN_AGREEMENT or lost > MAX_ACCURACY_LOSS:
        what, figure = ("labels", "F1") if "labels_agreement" in real else ("images", "top-1")
        raise ArtifactError(
            "precision = int8: not accurate enough, so nothing is kept: agrees with the model on "
            f"{agrees:.1%} of {f'the {what} of ' if what == 'labels' else ''}{real['images']} "
            f"images (at least {MIN_AGREEMENT:.0%} required), {figure} falls by {100 * lost:.1f} "
            f"points (at most {100 * MAX_ACCURACY_LOSS:.0f}). Use float32."
        )
    if ratio <= float32_ratio:
        raise ArtifactError(
            "precision = int8: no faster than float32 here, so nothing is kept: "
            f"{ratio:.2f} times PyTorch's pace, float32 {float32_ratio:.2f} times. Use float32."
        )


def processor() -> str:
    """Return the name of this machine's processor and the number of its cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
