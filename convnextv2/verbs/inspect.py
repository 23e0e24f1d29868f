"""Describe a run or weights on one screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convnextv2.console import print_json
from convnextv2.evaluation.prior import meaning
from convnextv2.find import find_weights
from convnextv2.recipe.options import takes
from convnextv2.text import brief, counted, plain
from convnextv2.verbs.options.weights import InspectOptions
from convnextv2.weights.description import Description
from convnextv2.weights.dtypes import is_finite
from convnextv2.weights.names import FORMATS
from convnextv2.weights.opened import OURS, Weights, open_weights


@takes(InspectOptions)
def inspect(options: InspectOptions) -> Weights:
    """Print a description of weights in any known format.

    The lines describe the file, the network, the preprocessing of images, further content and the
    licence.

    Returns:
        The opened weights.
    """
    path = find_weights(options.weights)
    opened = open_weights(path)
    for name, value in _rows(path, opened):
        print(f"{name:<14}{plain(value)}")
    print_json(_answer(path, opened))
    return opened


def _rows(path: Path, opened: Weights) -> list[tuple[str, str]]:
    """Describe weights in rows of a name and a value."""
    licence = opened.origin.notice or "unknown; ask the author of the weights"
    return [
        *_network_rows(path, opened),
        *_image_rows(opened.description),
        *_state_rows(opened),
        *_origin_rows(opened),
        ("licence", licence),
    ]


def _network_rows(path: Path, opened: Weights) -> list[tuple[str, str]]:
    """Describe the file and the network in it."""
    description, origin = opened.description, opened.origin
    arguments = description.arguments
    parameters = sum(tensor.numel() for tensor in opened.tensors.values())
    dtypes = ", ".join(
        sorted({str(tensor.dtype).removeprefix("torch.") for tensor in opened.tensors.values()})
    )
    classes = counted(arguments["num_classes"] or 0, "class(es)")
    kind = {
        "classifier": f"classifier, {classes}",
        "multi_label": f"any number of labels for each image, {classes}",
        "encoder": "encoder without a classifier",
        "detection": f"boxes{' and masks' * bool(description.head.get('masks'))} of objects, "
        + classes,
        "segmentation": f"a class for each pixel, {classes} ({description.head})",
    }
    form = "convnextv2" if origin.format == OURS else FORMATS[origin.format].title
    network = [
        f"{name} {arguments[name]}"
        for name in ("in_channels", "stem_stride", "block", "gelu", "norm_eps")
        if name in arguments
    ]
    return [
        ("file", f"{path}, {origin.nbytes / 1e6:.1f} MB"),
        ("sha256", origin.sha256),
        ("format", f"{form} ({origin.container})"),
        ("kind", kind.get(description.kind, f"FCMAE, encoder and decoder ({description.fcmae})")),
        (
            "model",
            f"{description.model}: depths {arguments['depths']}, channels {arguments['dims']}",
        ),
        ("tensors", f"{len(opened.tensors)}, {parameters:,} parameters, {dtypes}"),
        ("network", ", ".join(network)),
    ]


def _image_rows(description: Description) -> list[tuple[str, str]]:
    """Describe how images are prepared, if that is known."""
    how = description.preprocessing
    if not how:
        return []
    size = " x ".join(map(str, how["image_size"]))
    way = f"{how['eval_preset']} preset, {how['interpolation']}, crop {how['crop_pct']:g}"
    fit = {"segmentation": "cover", "detection": "lie inside"}.get(description.kind)
    if fit is not None:  # whole images are resized, and padded in the network's batch
        way = f"{how['interpolation']}, resized to {fit} that"
    rows = [("images", f"{size} px, {way}")]
    if how.get("value_range"):
        low, high = how["value_range"]
        stretched = f"{low:g} to {high:g} become black to white in files of more than 8 bits"
        rows.append(("value range", stretched))
    return rows


def _state_rows(opened: Weights) -> list[tuple[str, str]]:
    """Describe what is known about the values of the weights, the classes and the training."""
    description = opened.description
    rows = [("note", note) for note in opened.notes]
    if broken := [name for name, tensor in opened.tensors.items() if not is_finite(tensor)]:
        rows.append(("values", f"{brief(broken)}: NaN or infinite"))
    if opened.has_average:
        rows.append(("average", "yes (convert --ema)"))
    if description.class_names:
        rows.append(("classes", brief(description.class_names)))
    if description.thresholds:
        low, high = min(description.thresholds), max(description.thresholds)
        rows.append(("thresholds", f"{low:.4g} to {high:.4g}"))
    if description.training:
        figures = [f"{name} {_short(value)}" for name, value in description.training.items()]
        rows.append(("training", ", ".join(figures)))
    if balance := description.balance:
        counts = [count for count in balance["class_counts"] if count]
        done = balance["done"] or "nothing"
        rows.append(
            (
                "balance",
                f"{min(counts):,} to {max(counts):,} training images of a class; countermeasure: "
                f"{done}. {meaning(balance)}",
            )
        )
    return rows


def _origin_rows(opened: Weights) -> list[tuple[str, str]]:
    """Describe what was left out, and where the weights come from."""
    groups: dict[str, list[str]] = {}
    for name, why in opened.left_out:
        groups.setdefault(why, []).append(name)
    rows = [("left out", f"{brief(names)}: {why}") for why, names in groups.items()]
    stated, prefix = opened.description.provenance, ""
    if opened.origin.format != OURS:
        prefix = "source_"
    if f"{prefix}format" in stated:
        sha256 = stated.get(f"{prefix}sha256", "unknown")
        rows.append(("made from", f"{stated[f'{prefix}format']}, sha256 {sha256}"))
    for label, key, named in (
        ("started from", "init", "format"),
        ("learned from", "teacher", "model"),
    ):
        if other := stated.get(key):
            who = other.get(named, "unknown"), other.get("sha256", "unknown")
            rows.append((label, f"{who[0]}, sha256 {who[1]}"))
    return rows


def _answer(path: Path, opened: Weights) -> dict[str, Any]:
    """Return the answer as `verbs.answers.weights.Inspected` describes it."""
    description, origin, tensors = opened.description, opened.origin, opened.tensors
    return {
        "path": str(path),
        "bytes": origin.nbytes,
        "sha256": origin.sha256,
        "format": origin.format,
        "container": origin.container,
        "kind": description.kind,
        "model": description.model,
        "arguments": description.arguments,
        "fcmae": description.fcmae,
        "head": description.head,
        "tensors": len(tensors),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "dtypes": sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()}),
        "preprocessing": description.preprocessing,
        "class_names": description.class_names,
        "training": description.training,
        "provenance": description.provenance,
        "licence": origin.notice,
        "has_average": opened.has_average,
        "not_finite": [name for name, tensor in tensors.items() if not is_finite(tensor)],
        "left_out": [{"name": name, "reason": why} for name, why in opened.left_out],
        "notes": opened.notes,
    }


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
