"""Writes weights for another library, with the names, shapes and configuration that it expects.

A model whose GRN is zero can also be written as a ConvNeXt of the first version.

A library may be unable to express a part of the model, such as the form of GELU or an epsilon. What
that changes in the logits is measured, and such weights are written only if the caller allows it.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.files import replacing, write_json, write_text
from convnextv2.model.convnext import SIZES, ConvNeXtV2
from convnextv2.model.detector import Detector
from convnextv2.model.fcmae import FCMAE
from convnextv2.model.pyramid import name_in_encoder
from convnextv2.model.upernet import Segmentor
from convnextv2.preprocessing import WARPS_FROM_PX, Preprocessing
from convnextv2.text import brief
from convnextv2.weights.build import build_model
from convnextv2.weights.describe import TIMM_NAMES, distinct, size_name, timm_eps
from convnextv2.weights.description import Description
from convnextv2.weights.mindspore import write_ckpt
from convnextv2.weights.names import FORMATS, VERSION_1, library_of, name_table, to_foreign
from convnextv2.weights.opened import HEAD, OURS, Weights
from convnextv2.weights.processor import RESAMPLE
from convnextv2.weights.restore import restore
from convnextv2.weights.safetensors import (
    WEIGHTS,
    save_weights,
    save_weights_file,
    write_tensors,
)
from convnextv2.weights.version_1 import fit_block, is_version_1, to_version_1

_LIBRARIES = ("official", "timm", "transformers", "mmpretrain", "mindcv")
_FIRST = (*_LIBRARIES, "torchvision", "dinov3")
TARGETS = (*_LIBRARIES, OURS, *(f"{library}{VERSION_1}" for library in _FIRST))
"""What can be written. Names that end in "-v1" mean a ConvNeXt of the first version."""

_FIXED: dict[str, dict[str, Any]] = {
    "official": {"gelu": "exact", "norm_eps": 1e-6, "inner_eps": 1e-6},
    "timm": {},
    "transformers": {"inner_eps": 1e-6},
    "mmpretrain": {"gelu": "exact", "norm_eps": 1e-6, "inner_eps": 1e-6},
    "mindcv": {"gelu": "tanh", "norm_eps": 1e-6, "inner_eps": 1e-6},
    "torchvision": {"gelu": "exact", "norm_eps": 1e-6, "inner_eps": 1e-6},
    "dinov3": {},
}
"""Arguments that a library fixes, since its checkpoints have no place for another value."""
_ONE_EPS = ("timm", "dinov3")
"""Libraries whose configuration has one epsilon for all norms."""

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
"""A path with any other ending means a folder."""

_FILES_ONLY = ("mindcv", "torchvision")
"""Libraries that read files, not folders."""
_TIMM_FIRST = ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge")
"""The sizes that timm has of the first ConvNeXt."""

_IMAGENET = {
    name: value
    for name, value in Preprocessing((224, 224)).to_json().items()
    if name not in ("channels", "antialias")
}
"""How images are prepared according to a folder whose weights do not say it."""


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
        allow_drift: Whether to write weights that give other logits in the target.

    Returns:
        Lines for people about what was left out or changed.

    Raises:
        CheckpointError: The target cannot hold the model, its logits would differ without
            `allow_drift`, or `out` cannot be written.
    """
    _check_place(target, out)
    try:
        if out.exists() and (out.is_file() or any(out.iterdir())):
            raise CheckpointError(
                f"out = {out}: exists already. Choose another name, or delete it."
            )
        lines = _convert(weights, target, out, allow_drift)
    except OSError as error:
        raise CheckpointError(
            f"out = {out}: cannot be written ({error.strerror}). Choose another place."
        ) from error
    if weights.left_out:
        lines.insert(0, f"Left out: {brief([name for name, _ in weights.left_out])}.")
    if any(tensor.dtype == torch.float64 for tensor in weights.tensors.values()) and target != OURS:
        lines.append("Its float64 tensors are rounded to float32.")
    return [*lines, f"Written: {out}"]


def _check_place(target: str, out: Path) -> None:
    """Raise CheckpointError if the target is unknown or does not read what `out` names."""
    if target not in TARGETS:
        raise CheckpointError(f"to = {target!r}: expected one of {', '.join(TARGETS)}.")
    is_file, suffixes = out.suffix in FILE_SUFFIXES, _SUFFIXES[library_of(target)]
    if is_file and out.suffix not in suffixes:
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
    """Write weights in the place that `convert_weights` has checked; return lines for people."""
    if target == OURS:
        _write_ours(weights, out)
        return []
    description, lines = weights.description, []
    model = restore(weights)
    if isinstance(model, FCMAE | Segmentor | Detector):
        left_out = [name for name in weights.tensors if name_in_encoder(name) == name]
        what = {"fcmae": "FCMAE's decoder", "segmentation": "The head of a segmentor"}.get(
            description.kind, "The head of a detector"
        )
        lines.append(f"{what} is not part of this format: {len(left_out)} tensors are left out.")
        if not isinstance(model, FCMAE):  # the classes are those of pixels or objects
            description = replace(description, kind="encoder", class_names=[])
        model = model.encoder
    fixed = _fixed(model, target, is_file=out.suffix in FILE_SUFFIXES)
    if model.norm is None:  # a model without a final norm does not use its epsilon
        fixed.pop("norm_eps", None)
    preparation: dict[str, Any] = _IMAGENET | description.preprocessing
    lines += _check_target(model, preparation, target, out)
    if preparation.get("value_range") and library_of(target) in ("timm", "transformers"):
        low, high = preparation["value_range"]
        lines.append(
            f"{FORMATS[target].title} has no range of values: {low:g} to {high:g} must be made 0 "
            "to 255 before."
        )
    lines += _check_drift(model, fixed, target, allow_drift) + _block_lines(model, target)
    name = description.model if description.model in SIZES else size_name(model.depths, model.dims)
    try:
        tensors = foreign_tensors(model, target, name)
    except CheckpointError as error:
        raise CheckpointError(f"to = {target}: {error}") from error
    if target == "dinov3-v1" and model.head is not None:
        lines.append("DINOv3's networks have no classifier: the head is left out.")
    (out.parent if out.suffix in FILE_SUFFIXES else out).mkdir(parents=True, exist_ok=True)
    if out.suffix in FILE_SUFFIXES:
        _write_file(out, tensors, target, _provenance(weights))
        if description.class_names or description.preprocessing:
            lines.append(
                "Class names and the preparation of images are not part of this file; a folder has "
                "them."
            )
    else:
        labels = description.class_names
        if description.kind == "multi_label":
            lines.append(_several_labels_line(target))
        if library_of(target) == "transformers" and distinct(labels) != labels:
            lines.append(
                "Classes of the same name get their number behind it, since label2id tells them "
                "apart by name."
            )
        _write_folder(
            out,
            model,
            replace(description, model=name, preprocessing=preparation),
            tensors,
            target,
            weights,
        )
    return lines


def _fixed(model: ConvNeXtV2, target: str, *, is_file: bool) -> dict[str, Any]:
    """Return the arguments that the target fixes, whatever the model has."""
    fixed = dict(_FIXED[library_of(target)])
    if model.block == "v2" and not is_version_1(target):
        fixed["grn_scope"] = "image"
    if library_of(target) in _ONE_EPS and model.norm is not None:
        # A file has no configuration, so the network has its usual epsilon.
        eps = timm_eps(model.depths) if is_file else model.arguments["norm_eps"]
        fixed |= {"norm_eps": eps, "inner_eps": eps}
    return fixed


def _block_lines(model: ConvNeXtV2, target: str) -> list[str]:
    """Say how the form of the blocks changes, which no output does."""
    if is_version_1(target):
        return ["GRN is left out, and the layer scale is 1."] if model.block != "v1" else []
    lines = {
        "v1": "The layer scale is multiplied into the second linear layer of each block, and GRN "
        "is written as zero.",
        "v2_without_grn": "GRN is written as zero, since the model has none.",
    }
    return [f"{lines[model.block]} No output changes by it."] if model.block in lines else []


def _several_labels_line(target: str) -> str:
    """Say what a target keeps of a model that gives an image any number of labels."""
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
    """Say how much the logits change in the target; raise CheckpointError if they may not."""
    drift = measure_drift(model, fixed)
    if drift is None:
        return []
    line = (
        f"{FORMATS[target].title} has {_changed(model.arguments, fixed)}: logits differ by up to "
        f"{drift.largest:.1e}"
    )
    if drift.largest <= drift.rounding:
        return [f"{line}, less than by float32's rounding ({drift.rounding:.1e})."]
    if not allow_drift:
        raise CheckpointError(f"{line}. Give --allow-drift to write it all the same.")
    return [f"{line} (measured on random images in float64)."]


def foreign_tensors(model: ConvNeXtV2, target: str, name: str) -> dict[str, Tensor]:
    """Give the tensors of a model the names and the shapes of another library.

    Args:
        model: The model.
        target: A key of `FORMATS`.
        name: The name of the model, which decides the kind of MLP in timm.

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
        table[canonical]: to_foreign(target, canonical, tensor, model=name)
        for canonical, tensor in tensors.items()
    }


@dataclass(frozen=True)
class Drift:
    """How much a model's outputs change with other arguments.

    Attributes:
        largest: The largest difference on random images, computed in float64.
        rounding: The largest difference that float32 alone makes on the same images.
    """

    largest: float
    rounding: float


def measure_drift(model: ConvNeXtV2, fixed: Mapping[str, Any]) -> Drift | None:
    """Measure how much a model's outputs change with other arguments.

    Args:
        model: The model; it is left as it is.
        fixed: The arguments of `ConvNeXtV2` that take the place of the model's own.

    Returns:
        The differences; None if the arguments are the model's own.
    """
    if not _changed(model.arguments, fixed):
        return None
    other = ConvNeXtV2(**{**model.arguments, **fixed})
    other.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    side = 4 * model.total_stride
    images = torch.randn(4, model.in_channels, side, side, dtype=torch.float64, generator=generator)
    single = copy.deepcopy(model).float().eval()
    with torch.inference_mode():
        rounded = single(images.float()).double()
        ours, theirs = (
            network.double().eval()(images) for network in (copy.deepcopy(model), other)
        )
    return Drift(float((ours - theirs).abs().max()), float((ours - rounded).abs().max()))


def _changed(arguments: Mapping[str, Any], fixed: Mapping[str, Any]) -> str:
    """Name the arguments that differ; empty if none does."""
    arguments = {"inner_eps": 1e-6, **arguments}
    return ", ".join(
        f"{name} {value}, not {arguments[name]}"
        for name, value in fixed.items()
        if arguments[name] != value
    )


def _check_target(
    model: ConvNeXtV2, preparation: Mapping[str, Any], target: str, out: Path
) -> list[str]:
    """Check that the target can build the model.

    Returns:
        A line for people about each way in which the target prepares images differently.

    Raises:
        CheckpointError: The target cannot build the model.
    """
    stride = model.stem_stride
    # With patch_size 2, timm's first stage downsamples once more.
    only_4 = dict.fromkeys(("official", "mindcv", "torchvision", "dinov3"), (4,))
    builds: dict[str, tuple[int, ...]] = {**only_4, "timm": (1, 4)}
    if stride not in builds.get(library_of(target), (stride,)):
        remedy = "transformers" if stride == 2 else "timm or transformers"
        raise CheckpointError(
            f"stem_stride = {stride}: {FORMATS[target].title} cannot build it. Convert to {remedy}."
        )
    if out.suffix in FILE_SUFFIXES or library_of(target) not in ("timm", "transformers"):
        return []
    how = Preprocessing.read(preparation)
    lines, size = [], how.image_size
    if library_of(target) == "transformers":
        if size[0] != size[1]:
            lines.append(
                f"Its image processor knows squares only: {size[0]} px is written, the model was "
                f"evaluated at {size}."
            )
        if (size[0] >= WARPS_FROM_PX) != how.warps:
            theirs, ours = ("crops", "warps") if how.warps else ("warps", "crops")
            lines.append(f"Its image processor {theirs} images of {size[0]} px, ours {ours} them.")
    if not how.averages:
        lines.append(
            "Its images are antialiased when they are shrunk; the model was evaluated without that."
        )
    return lines


def _write_file(
    out: Path, tensors: Mapping[str, Tensor], target: str, provenance: Mapping[str, str]
) -> None:
    """Write the tensors into one file, whose suffix decides its kind."""
    if out.suffix == ".ckpt":
        write_ckpt(out, {name: tensor.float() for name, tensor in tensors.items()}, provenance)
    elif out.suffix == ".safetensors":
        write_tensors(
            out,
            tensors,
            {"format": "ms" if library_of(target) == "mindcv" else "pt", **provenance},
        )
    else:
        key = {"official": "model", "mmpretrain": "state_dict"}.get(library_of(target))
        content: Any = {key: dict(tensors), "provenance": dict(provenance)}
        if key is None:  # no entry may stand beside the tensors, but the dictionary may have a note
            content = OrderedDict(tensors)
            content.provenance = dict(provenance)
        with replacing(out) as temporary:
            torch.save(content, temporary)


def _write_folder(
    out: Path,
    model: ConvNeXtV2,
    description: Description,
    tensors: Mapping[str, Tensor],
    target: str,
    weights: Weights,
) -> None:
    """Write the tensors, their configuration and a model card into a folder of the Hub's layout."""
    provenance = _provenance(weights)
    write_tensors(out / WEIGHTS, tensors, provenance)
    licence = provenance.get("licence", "other") if provenance["notice"] else ""
    for name, content in _configuration(model, description, target, licence).items():
        write_json(out / name, content)
    if licence:
        write_text(
            out / "README.md",
            f"---\nlicense: {licence}\n---\n\n# {description.model}\n\n{provenance['notice']}\n\n"
            f"Converted from {provenance['source_format']}, sha256 "
            f"{provenance['source_sha256']}.\n",
        )


def _write_ours(weights: Weights, out: Path) -> None:
    """Write weights in the format of this package."""
    description = replace(weights.description, provenance=weights.provenance())
    build_model(description)  # refuses a description of an unknown kind
    save = save_weights_file if out.suffix in FILE_SUFFIXES else save_weights
    save(out, weights.tensors, description)


def _provenance(weights: Weights) -> dict[str, str]:
    """Collect what a file of another format says about its origin, by `containers.PROVENANCE`.

    After a chain of conversions, this is the first file.
    """
    known = weights.provenance()
    told = {
        "notice": weights.origin.notice,
        "licence": known.get("licence", ""),
        "source_format": known.get("source_format", known["format"]),
        "source_sha256": known.get("source_sha256", known["sha256"]),
    }
    return {name: text for name, text in told.items() if text or name == "notice"}


def _configuration(
    model: ConvNeXtV2, description: Description, target: str, licence: str
) -> dict[str, dict[str, Any]]:
    """Return the content of each JSON file beside model.safetensors in a Hub folder, by name."""
    preparation = description.preprocessing
    library, first = library_of(target), is_version_1(target)
    if library == "timm":
        return {"config.json": _timm_configuration(model, description, licence, first=first)}
    names = description.class_names or [f"LABEL_{i}" for i in range(model.num_classes or 0)]
    if library == "transformers":
        return _transformers_configuration(
            model, distinct(names), preparation, description.kind, first=first
        )
    if library == "dinov3":
        return _dinov3_configuration(model, preparation)
    # The official code and mmpretrain take these as arguments of their classes.
    arguments = {
        "depths": list(model.depths),
        "dims": list(model.dims),
        "in_chans": model.in_channels,
    }
    content = {
        "model": description.model,
        **arguments,
        "num_classes": model.num_classes or 0,
        "labels": names,
    }
    return {"config.json": content | {"preprocessing": preparation}}


def _transformers_configuration(
    model: ConvNeXtV2, names: list[str], preparation: dict[str, Any], kind: str, *, first: bool
) -> dict[str, dict[str, Any]]:
    """Return config.json and preprocessor_config.json as transformers reads them."""
    version = "ConvNext" if first else "ConvNextV2"
    config = {
        "architectures": [
            f"{version}ForImageClassification" if model.head is not None else f"{version}Model"
        ],
        "model_type": version.lower(),
        "depths": list(model.depths),
        "hidden_sizes": list(model.dims),
        "num_channels": model.in_channels,
        "patch_size": model.stem_stride,
        "num_stages": 4,
        "hidden_act": "gelu_pytorch_tanh" if model.arguments["gelu"] == "tanh" else "gelu",
        "layer_norm_eps": model.arguments["norm_eps"],
        "initializer_range": 0.02,
        "drop_path_rate": 0.0,
        "image_size": preparation["image_size"][0],
        "torch_dtype": "float32",
    }
    if names:
        config |= {"id2label": {str(i): name for i, name in enumerate(names)}}
        config |= {"label2id": {name: i for i, name in enumerate(names)}}
    if kind == "multi_label":
        config["problem_type"] = "multi_label_classification"
    processor = {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": preparation["image_size"][0]},
        "crop_pct": preparation["crop_pct"],
        "resample": RESAMPLE[preparation["interpolation"]],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": preparation["mean"],
        "image_std": preparation["std"],
    }
    return {"config.json": config, "preprocessor_config.json": processor}


def _dinov3_configuration(
    model: ConvNeXtV2, preparation: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return config.json as transformers reads it for DINOv3's ConvNeXt."""
    config = {
        "architectures": ["DINOv3ConvNextModel"],
        "model_type": "dinov3_convnext",
        "depths": list(model.depths),
        "hidden_sizes": list(model.dims),
        "num_channels": model.in_channels,
        "hidden_act": "gelu_pytorch_tanh" if model.arguments["gelu"] == "tanh" else "gelu",
        "layer_norm_eps": model.arguments["norm_eps"],
        "image_size": preparation["image_size"][0],
        "torch_dtype": "float32",
    }
    return {"config.json": config}


def _timm_name(model: ConvNeXtV2, name: str, *, first: bool) -> str:
    """Return timm's name of a size; the tiny one for a size that timm does not have."""
    size = name.removeprefix("convnextv2_")
    if first:
        return f"convnext_{size if size in _TIMM_FIRST else 'tiny'}"
    return name if name in SIZES and size != "xlarge" else "convnextv2_tiny"


def _timm_configuration(
    model: ConvNeXtV2, description: Description, licence: str, *, first: bool
) -> dict[str, Any]:
    """Return config.json as timm reads it."""
    name, preparation = description.model, description.preprocessing
    architecture = _timm_name(model, name, first=first)
    labels = description.class_names
    height, width = preparation["image_size"]
    warped = Preprocessing.read(preparation).warps
    arguments: dict[str, Any] = {}
    same_size = architecture.partition("_")[2] == name.removeprefix("convnextv2_")
    if not same_size or SIZES[name] != (model.depths, model.dims):
        arguments |= {"depths": list(model.depths), "dims": list(model.dims)}
    if model.arguments["gelu"] == "tanh":
        arguments["act_layer"] = "gelu_tanh"
    if model.norm is not None and model.arguments["norm_eps"] != 1e-6:
        arguments["norm_eps"] = model.arguments["norm_eps"]
    if model.stem_stride != 4:
        arguments["patch_size"] = model.stem_stride
    if model.norm is None:  # timm always builds a norm, which then keeps its initial values
        arguments["pretrained_strict"] = False
    config: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": model.num_classes or 0,
        "num_features": model.dims[-1],
        "model_args": arguments
        | ({"in_chans": model.in_channels} if model.in_channels != 3 else {}),
        "pretrained_cfg": {
            "tag": "convnextv2",
            "custom_load": False,
            "input_size": [model.in_channels, height, width],
            "fixed_input_size": False,
            "interpolation": TIMM_NAMES[preparation["interpolation"]],
            "crop_pct": 1.0 if warped else preparation["crop_pct"],
            "crop_mode": "squash" if warped else "center",
            "mean": preparation["mean"],
            "std": preparation["std"],
            "num_classes": model.num_classes or 0,
            "pool_size": [height // model.total_stride, width // model.total_stride],
            "first_conv": "stem.0",
            "classifier": "head.fc",
            **({"license": licence} if licence else {}),
        },
    }
    return config | ({"label_names": labels} if labels else {})
