"""Describe a checkpoint on one screen."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from convnextv2.find import find_weights
from convnextv2.recipe.options import takes
from convnextv2.text import brief, plain
from convnextv2.verbs.options import InspectOptions
from convnextv2.weights.names import FORMATS
from convnextv2.weights.opened import OURS, Weights, open_weights


@takes(InspectOptions)
def inspect(options: InspectOptions) -> Weights:
    """Print a description of weights of any known format.

    The lines name the file, its size, the network, the preparation of images, further content and
    the licence.

    Returns:
        The opened weights.
    """
    path = find_weights(options.weights)
    opened = open_weights(path)
    for name, value in _rows(path, opened):
        print(f"{name:<14}{plain(value)}")
    return opened


def _rows(path: Path, opened: Weights) -> list[tuple[str, str]]:
    description, origin = opened.description, opened.origin
    arguments, how = description.arguments, description.preprocessing
    parameters = sum(tensor.numel() for tensor in opened.tensors.values())
    dtypes = ", ".join(
        sorted({str(tensor.dtype).removeprefix("torch.") for tensor in opened.tensors.values()})
    )
    kind = {
        "classifier": f"classifier, {arguments['num_classes']} classes",
        "encoder": "encoder without a classifier",
    }
    rows = [
        ("file", f"{path}, {origin.nbytes / 1e6:.1f} MB"),
        ("sha256", origin.sha256),
        (
            "format",
            f"{'convnextv2' if origin.format == OURS else FORMATS[origin.format].title} "
            f"({origin.container})",
        ),
        ("kind", kind.get(description.kind, f"FCMAE, encoder and decoder ({description.fcmae})")),
        (
            "model",
            f"{description.model}: depths {arguments['depths']}, channels {arguments['dims']}",
        ),
        ("tensors", f"{len(opened.tensors)}, {parameters:,} parameters, {dtypes}"),
        (
            "network",
            ", ".join(
                f"{name} {arguments[name]}"
                for name in ("in_channels", "stem_stride", "gelu", "norm_eps")
            ),
        ),
    ]
    if how:
        size = " x ".join(map(str, how["image_size"]))
        rows.append(
            (
                "images",
                f"{size} px, {how['eval_preset']} preset, {how['interpolation']}, crop "
                f"{how['crop_pct']:g}",
            )
        )
        if how.get("value_range"):
            low, high = how["value_range"]
            rows.append(
                (
                    "value range",
                    f"{low:g} to {high:g} become black to white in files of more than 8 bits",
                )
            )
    rows += [("note", note) for note in opened.notes]
    if broken := [name for name, tensor in opened.tensors.items() if not _is_finite(tensor)]:
        rows.append(("values", f"{brief(broken)}: NaN or infinite"))
    if opened.has_average:
        rows.append(("average", "yes (convert --ema)"))
    if description.class_names:
        rows.append(("classes", brief(description.class_names)))
    if description.training:
        rows.append(
            (
                "training",
                ", ".join(
                    f"{name} {_short(value)}" for name, value in description.training.items()
                ),
            )
        )
    groups: dict[str, list[str]] = {}
    for name, why in opened.left_out:
        groups.setdefault(why, []).append(name)
    rows += [("left out", f"{brief(names)}: {why}") for why, names in groups.items()]
    told = description.provenance
    if origin.format != OURS and "source_format" in told:
        rows.append(
            ("made from", f"{told['source_format']}, sha256 {told.get('source_sha256', 'unknown')}")
        )
    elif origin.format == OURS and "format" in told:
        rows.append(("made from", f"{told['format']}, sha256 {told.get('sha256', 'unknown')}"))
    if init := told.get("init"):
        rows.append(
            (
                "started from",
                f"{init.get('format', 'unknown')}, sha256 {init.get('sha256', 'unknown')}",
            )
        )
    return rows + [("licence", origin.notice or "nothing known; ask whoever made them")]


def _is_finite(tensor: Tensor) -> bool:
    """Return whether all values are finite. 8-bit types have no such test and are converted."""
    return bool((tensor.float() if tensor.element_size() == 1 else tensor).isfinite().all())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
