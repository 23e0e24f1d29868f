"""Writes weights for another library, with the names, shapes and configuration that it expects.

A model whose GRN is zero can also be written as a ConvNeXt of the first version.

A library may be unable to express a part of the model, such as the form of GELU or an epsilon. The
change that this causes in the logits is measured. If it exceeds the rounding error of float32, the
weights are written only if the caller allows it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.files import reason_of, sync_folder
from convnextv2.lock import building
from convnextv2.model.convnext import SIZES, ConvNeXtV2
from convnextv2.model.fcmae import FCMAE
from convnextv2.model.pyramid import name_in_encoder
from convnextv2.preprocessing import WARPS_FROM_PX, Preprocessing
from convnextv2.text import brief
from convnextv2.weights.build import check_complete
from convnextv2.weights.class_names import distinct
from convnextv2.weights.describe import size_name
from convnextv2.weights.description import Description
from convnextv2.weights.drift import fixed_by, measure_drift, what_changes
from convnextv2.weights.foreign_files import write_foreign_file, write_foreign_folder
from convnextv2.weights.names import (
    FORMATS,
    VERSION_1,
    is_version_1,
    library_of,
    name_table,
    to_foreign,
)
from convnextv2.weights.opened import OURS, Weights
from convnextv2.weights.renaming import HEAD
from convnextv2.weights.restore import restore
from convnextv2.weights.safetensors import save_weights, save_weights_file
from convnextv2.weights.version_1 import fit_block, to_version_1

_LIBRARIES = ("official", "timm", "transformers", "mmpretrain", "mindcv")
_FIRST = (*_LIBRARIES, "torchvision", "dinov3")
TARGETS = (*_LIBRARIES, OURS, *(f"{library}{VERSION_1}" for library in _FIRST))
"""The formats that can be written. Names ending in "-v1" mean the first version of ConvNeXt."""


_SUFFIXES = {
    "official": (".pt", ".pth", ".safetensors"),
    "timm": (".safetensors", ".pth", ".pt"),
    "transformers": (".safetensors", ".pt", ".pth", ".bin"),
    "mmpretrain": (".pth", ".pt", ".safetensors"),
    "mindcv": (".ckpt", ".safetensors"),
    "torchvision": (".pth", ".pt", ".safetensors"),
    "dinov3": (".safetensors", ".pt", ".pth", ".bin"),
    OURS: (".safetensors",),
}
FILE_SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
"""The suffixes of files, in lower case. A path with any other suffix denotes a folder."""

_FILES_ONLY = ("mindcv", "torchvision")
"""Libraries that read files, not folders."""

_IMAGENET = {
    name: value
    for name, value in Preprocessing((224, 224)).to_json().items()
    if name not in ("channels", "antialias")
}
"""The preprocessing of images that a folder states if the weights do not state any."""


def convert_weights(
    weights: Weights, target: str, out: Path, *, allow_drift: bool = False
) -> list[str]:
    """Write weights for another library, or for this one.

    FCMAE's encoder is written without its decoder, except in the format of this package.

    Args:
        weights: The weights.
        target: One of `TARGETS`.
        out: A file if it ends in one of `FILE_SUFFIXES`, else a folder in the layout of the Hugging
            Face Hub. It must not exist yet, unless it is an empty folder.
        allow_drift: Whether to write weights whose logits differ in the target.

    Returns:
        Lines to print about what was left out or changed.

    Raises:
        RunError: Another process is writing `out`.
        CheckpointError: The target cannot hold the model, its logits would differ without
            `allow_drift`, or `out` cannot be written.
    """
    _check_place(target, out)
    try:
        if out.exists() and (out.is_file() or any(out.iterdir())):
            raise CheckpointError(
                f"out = {out}: already exists. Choose another name, or delete it."
            )
        with building(out) as folder:
            made = folder / out.absolute().name
            lines = _convert(weights, target, made, allow_drift)
            _appear(made, out)
    except OSError as error:
        raise CheckpointError(
            f"out = {out}: cannot be written ({reason_of(error)}). Choose another place."
        ) from error
    if weights.left_out:
        lines.insert(0, f"Left out: {brief([name for name, _ in weights.left_out])}.")
    if any(tensor.dtype == torch.float64 for tensor in weights.tensors.values()) and target != OURS:
        lines.append("Its float64 tensors are rounded to float32.")
    return [*lines, f"Written: {out}"]


def _is_file(out: Path) -> bool:
    return out.suffix.lower() in FILE_SUFFIXES


def _appear(made: Path, out: Path) -> None:
    """Move the finished file or folder to its final name, or fill an empty folder (a mount)."""
    if out.exists():
        if out.is_file() or any(out.iterdir()):
            raise CheckpointError(
                f"out = {out}: another process has written it in the meantime. Choose another name."
            )
        for file in sorted(made.iterdir()):
            shutil.move(file, out / file.name)
    else:
        made.rename(out)
        sync_folder(out.parent)


def _check_place(target: str, out: Path) -> None:
    """Raise CheckpointError if the target is unknown, or cannot read a path such as `out`."""
    if target not in TARGETS:
        raise CheckpointError(f"to = {target!r}: expected one of {', '.join(TARGETS)}.")
    is_file, suffixes = _is_file(out), _SUFFIXES[library_of(target)]
    if is_file and out.suffix.lower() not in suffixes:
        raise CheckpointError(
            f"out = {out}: expected a folder, or a file ending in {', '.join(suffixes)}, for "
            f"{target}."
        )
    if not is_file and library_of(target) in _FILES_ONLY:
        title = FORMATS[target].title.partition(",")[0]
        raise CheckpointError(
            f"out = {out}: {title} reads files. Name one ending in {suffixes[0]}."
        )


def _convert(weights: Weights, target: str, out: Path, allow_drift: bool) -> list[str]:
    """Write weights to a place that `convert_weights` has checked; return lines to print."""
    if target == OURS:
        _write_ours(weights, out)
        return []
    model, description, lines = _encoder_of(weights)
    is_file = _is_file(out)
    _check_stem(model.stem_stride, target)
    fixed = fixed_by(model, target, is_file=is_file)
    if model.norm is None:  # a model without a final norm does not use its epsilon
        fixed.pop("norm_eps", None)
    preprocessing: dict[str, Any] = _IMAGENET | description.preprocessing
    lines += _preprocessing_lines(preprocessing, target, is_file=is_file)
    lines += _check_drift(model, fixed, target, allow_drift) + _block_lines(model, target)
    name = description.model if description.model in SIZES else size_name(model.depths, model.dims)
    try:
        tensors = foreign_tensors(model, target, name)
    except CheckpointError as error:
        raise CheckpointError(f"to = {target}: {error}") from error
    if target == "dinov3-v1" and model.head is not None:
        lines.append("DINOv3's networks have no classifier: the head is left out.")
    (out.parent if is_file else out).mkdir(parents=True, exist_ok=True)
    if is_file:
        write_foreign_file(out, tensors, target, _provenance(weights))
        if description.class_names or description.preprocessing:
            lines.append(
                "Class names and the preprocessing of images are not part of this file; convert to "
                "a folder to keep them."
            )
        return lines
    written = replace(description, model=name, preprocessing=preprocessing)
    write_foreign_folder(out, model, written, tensors, target, _provenance(weights))
    return lines + _label_lines(description, target)


def _encoder_of(weights: Weights) -> tuple[ConvNeXtV2, Description, list[str]]:
    """Build the part of a network that other libraries have: a classifier or an encoder.

    Returns:
        The part, its description, and lines about what is left out.
    """
    model, description = restore(weights), weights.description
    if isinstance(model, ConvNeXtV2):
        return model, description, []
    left_out = [name for name in weights.tensors if name_in_encoder(name) == name]
    what = {"fcmae": "FCMAE's decoder", "segmentation": "The head of a segmentor"}.get(
        description.kind, "The head of a detector"
    )
    line = f"{what} is not part of this format: {len(left_out)} tensors are left out."
    if not isinstance(model, FCMAE):  # its classes are those of pixels or objects
        description = replace(description, kind="encoder", class_names=[])
    return model.encoder, description, [line]


def _label_lines(description: Description, target: str) -> list[str]:
    """Return lines about what a folder of the target drops or changes about the classes."""
    labels, lines = description.class_names, []
    if description.kind == "multi_label":
        lines.append(_several_labels_line(target))
    if library_of(target) == "transformers" and distinct(labels) != labels:
        lines.append(
            "Classes that share a name get their index appended to it, since label2id identifies "
            "classes by name."
        )
    return lines


def _block_lines(model: ConvNeXtV2, target: str) -> list[str]:
    """Return a line about a change in the form of the blocks, which changes no output."""
    if is_version_1(target):
        return ["GRN is left out, and the layer scale is 1."] if model.block != "v1" else []
    lines = {
        "v1": "The layer scale is multiplied into the second linear layer of each block, and GRN "
        "is written as zero.",
        "v2_without_grn": "GRN is written as zero, since the model has none.",
    }
    return [f"{lines[model.block]} This changes no output."] if model.block in lines else []


def _several_labels_line(target: str) -> str:
    """Return a line about the parts of a multi-label model that a target keeps."""
    if library_of(target) == "transformers":
        return (
            "problem_type multi_label_classification is written; the thresholds are not, since "
            "transformers has none."
        )
    return (
        f"{FORMATS[target].title} does not say that an image may have several labels: use the "
        "sigmoid of the logits there, not the softmax. The thresholds are not written."
    )


def _check_drift(
    model: ConvNeXtV2, fixed: Mapping[str, Any], target: str, allow_drift: bool
) -> list[str]:
    """Return a line about the change in the logits; raise CheckpointError if it is not allowed."""
    drift = measure_drift(model, fixed)
    if drift is None:
        return []
    line = (
        f"{FORMATS[target].title} has {what_changes(model.arguments, fixed)}: logits differ by up "
        f"to {drift.largest:.1e}"
    )
    if drift.largest <= drift.rounding:
        return [f"{line}, no more than by float32's rounding ({drift.rounding:.1e})."]
    if not allow_drift:
        raise CheckpointError(f"{line}. Pass --allow-drift to write the weights anyway.")
    return [f"{line} (measured on random images in float64)."]


def foreign_tensors(model: ConvNeXtV2, target: str, size: str) -> dict[str, Tensor]:
    """Give the tensors of a model the names and the shapes of another library.

    Args:
        model: The model.
        target: A key of `FORMATS`.
        size: The name of the model's size, which decides the kind of MLP in timm.

    Returns:
        The tensors by the library's names.

    Raises:
        CheckpointError: The target is of the first ConvNeXt, and GRN is not zero.
    """
    is_bare = model.head is None and library_of(target) == "transformers"
    table = name_table(target, model.depths, "" if is_bare else None)
    tensors = model.state_dict()
    if is_version_1(target):
        tensors = to_version_1(tensors)
    else:
        tensors = fit_block(tensors, "v2", model.depths, Path("the model")).tensors
    if target == "dinov3-v1":
        tensors = {name: tensor for name, tensor in tensors.items() if name not in HEAD}
    return {
        table[name]: to_foreign(target, name, tensor, size=size) for name, tensor in tensors.items()
    }


def _check_stem(stride: int, target: str) -> None:
    """Raise CheckpointError if the target cannot build a stem of this stride."""
    # With patch_size 2, timm's first stage downsamples once more.
    only_4 = dict.fromkeys(("official", "mindcv", "torchvision", "dinov3"), (4,))
    builds: dict[str, tuple[int, ...]] = {**only_4, "timm": (1, 4)}
    if stride not in builds.get(library_of(target), (stride,)):
        remedy = "transformers" if stride == 2 else "timm or transformers"
        raise CheckpointError(
            f"stem_stride = {stride}: {FORMATS[target].title} cannot build it. Convert to {remedy}."
        )


def _preprocessing_lines(
    preprocessing: Mapping[str, Any], target: str, *, is_file: bool
) -> list[str]:
    """Return lines about the ways in which the target prepares images differently."""
    library, lines = library_of(target), []
    if library not in ("timm", "transformers"):
        return []
    if preprocessing.get("value_range"):
        low, high = preprocessing["value_range"]
        lines.append(
            f"{FORMATS[target].title} has no range of values: map {low:g} to {high:g} onto 0 to "
            "255 beforehand."
        )
    if is_file:  # a file does not state how images are prepared
        return lines
    how = Preprocessing.read(preprocessing)
    size = how.image_size
    if library == "transformers":
        if size[0] != size[1]:
            lines.append(
                f"Its image processor supports square images only: {size[0]} px is written, but "
                f"the model was evaluated at {size}."
            )
        if (size[0] >= WARPS_FROM_PX) != how.warps:
            theirs, ours = ("crops", "warps") if how.warps else ("warps", "crops")
            lines.append(f"Its image processor {theirs} images of {size[0]} px; ours {ours} them.")
    if not how.averages:
        lines.append(
            "It antialiases images when it shrinks them; the model was evaluated without that."
        )
    return lines


def _write_ours(weights: Weights, out: Path) -> None:
    """Write weights in the format of this package."""
    description = replace(weights.description, provenance=weights.provenance())
    check_complete(weights.tensors, description, weights.path)
    save = save_weights_file if _is_file(out) else save_weights
    save(out, weights.tensors, description)


def _provenance(weights: Weights) -> dict[str, str]:
    """Collect what a file of another format states about its origin; see `containers.PROVENANCE`.

    After several conversions, the origin is the first file.
    """
    known = weights.provenance()
    told = {
        "notice": weights.origin.notice,
        "licence": known.get("licence", ""),
        "source_format": known.get("source_format", known["format"]),
        "source_sha256": known.get("source_sha256", known["sha256"]),
    }
    return {name: text for name, text in told.items() if text or name == "notice"}
