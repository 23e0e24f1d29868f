"""Infers the description of other libraries' weights.

It follows from the shapes of the tensors, the configuration beside them, and the conventions of the
format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import SIZES
from convnextv2.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from convnextv2.weights.class_names import class_names
from convnextv2.weights.containers import Container
from convnextv2.weights.description import Description, check_preprocessing
from convnextv2.weights.names import FORMATS, library_of
from convnextv2.weights.notices import notice_of
from convnextv2.weights.processor import crop_share, read_processor
from convnextv2.weights.timm_config import (
    architecture,
    check_timm_arguments,
    timm_arguments,
    timm_eps,
    timm_notes,
    timm_preprocessing,
    timm_pretrained_cfg,
)
from convnextv2.weights.transformers_config import SEVERAL_LABELS, transformers_notes

_TIMM_TANH = ("test_convnext", "test_convnext2")

_CLIP = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "image_size": [256, 256],
    "crop_pct": 1.0,
}
"""The default preprocessing of evaluation images for open_clip's ConvNeXt towers."""
_TORCHVISION_RESIZE = {96: {9: 236, 27: 230}}
"""The resized side in torchvision's weights by width and depth: tiny 236, small 230, others 232."""

_GELU = {"gelu": "exact"} | dict.fromkeys(
    ("gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_tanh"), "tanh"
)
"""The two forms of GELU, by the names that transformers and timm use."""


def describe(
    tensors: Mapping[str, Tensor],
    decoder: Mapping[str, Tensor],
    key: str,
    depths: tuple[int, ...],
    container: Container,
    theirs: Mapping[str, Tensor],
) -> tuple[Description, list[str]]:
    """Describe the network that weights of another library belong to.

    The shapes of the tensors have not been checked yet: a tensor with the wrong number of
    dimensions is treated as one with sides of 0.

    Args:
        tensors: The encoder, its norm and its head by canonical name.
        decoder: The other tensors of FCMAE by canonical name; empty for other models.
        key: The format, a key of `FORMATS`.
        depths: The number of blocks in each stage.
        container: The file with the configuration beside it.
        theirs: All tensors under the names of their format.

    Returns:
        The description, and a line to print about each part of the configuration that has no
        counterpart here.

    Raises:
        CheckpointError: The configuration cannot be understood, or asks for a network that cannot
            be built here.
    """
    dims = tuple(_sides(tensors, f"stages.{i}.0.norm.weight", 1)[0] for i in range(4))
    _, channels, stem_stride, _ = _sides(tensors, "downsample_layers.0.0.weight", 4)
    num_classes = _num_classes(tensors)
    norm_eps, inner_eps = _epsilons(key, depths, container)
    arguments: dict[str, Any] = {
        "depths": list(depths),
        "dims": list(dims),
        "in_channels": channels,
        "num_classes": None if decoder else num_classes,
        "stem_stride": stem_stride,
        "gelu": _gelu(key, container),
        "grn_scope": "image",
        "norm_eps": norm_eps,
    }
    if inner_eps != 1e-6:
        arguments["inner_eps"] = inner_eps
    notes = _network_notes(key, depths, dims, container)
    usual = _usual(key, depths, dims, _is_clip(theirs))
    preprocessing, more = _preprocessing(key, channels, container, usual)
    description = Description(
        kind=_kind(bool(decoder), num_classes, key, container),
        model=size_name(depths, dims),
        arguments=arguments,
        fcmae=_fcmae_arguments(decoder, stem_stride) if decoder else {},
        class_names=class_names(container.config, num_classes or 0),
        preprocessing=preprocessing,
        provenance=_provenance(key, container, theirs),
    )
    return description, notes + more


def _network_notes(
    key: str, depths: tuple[int, ...], dims: tuple[int, ...], container: Container
) -> list[str]:
    """Return a line about each part of the network's configuration with no counterpart here."""
    library = library_of(key)
    if library == "timm":
        return timm_notes(container)
    if library in ("transformers", "dinov3"):
        return transformers_notes(key, depths, dims, container)
    return []


def _provenance(key: str, container: Container, theirs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what a file says about its origin; see `Description.provenance`."""
    provenance = {
        "format": key,
        **container.provenance,
        "notice": notice_of(key, container, theirs),
    }
    return provenance | ({"licence": container.licence} if container.licence else {})


def _kind(has_decoder: bool, num_classes: int | None, key: str, container: Container) -> str:
    """Return the kind of a description; see `Description.kind`."""
    if has_decoder:
        return "fcmae"
    if not num_classes:
        return "encoder"
    is_theirs = library_of(key) == "transformers"
    several = is_theirs and container.config.get("problem_type") == SEVERAL_LABELS
    return "multi_label" if several else "classifier"


def _sides(tensors: Mapping[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    """Return the shape of a tensor; zeros if it is missing or has another number of dimensions."""
    shape = tuple(tensors[name].shape) if name in tensors else ()
    return shape if len(shape) == dims else (0,) * dims


def _num_classes(tensors: Mapping[str, Tensor]) -> int | None:
    """Count the classes: 0 without a head, None if the final norm is missing too."""
    if "head.weight" in tensors:
        return _sides(tensors, "head.weight", 2)[0]
    return 0 if "norm.weight" in tensors else None


def _fcmae_arguments(decoder: Mapping[str, Tensor], stem_stride: int) -> dict[str, Any]:
    """Infer the arguments of FCMAE from the tensors of its decoder."""
    blocks = {name.split(".")[1] for name in decoder if name.startswith("decoder.")}
    return {
        "tile": 8 * stem_stride,
        "norm_target": True,
        "decoder_dim": decoder["mask_token"].numel() if "mask_token" in decoder else 0,
        "decoder_depth": len(blocks),
    }


def _is_clip(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether weights are those of a whole CLIP model, with towers for images and texts."""
    return any(name.endswith("visual.trunk.stem.0.weight") for name in tensors)


def is_projection(container: Container) -> bool:
    """Return whether the head of timm's weights is CLIP's projection, by the configuration's tag.

    The names and shapes of the tensors do not show it. Fine-tuned towers have a classifier.

    Args:
        container: The folder with its configuration.
    """
    tag = str((timm_pretrained_cfg(container) or {}).get("tag", ""))
    return tag.startswith("clip_") and "_ft_" not in tag


def _gelu(key: str, container: Container) -> str:
    """Return the form of GELU that the configuration names, or else the format's usual one."""
    usual = "gelu_tanh" if architecture(container) in _TIMM_TANH else None
    told = {
        "timm": timm_arguments(container).get("act_layer") or usual,
        "transformers": container.config.get("hidden_act"),
        "dinov3": container.config.get("hidden_act"),
    }
    name = told.get(library_of(key))
    if not name:
        return "tanh" if FORMATS[key].tanh_gelu else "exact"
    if not isinstance(name, str) or name not in _GELU:
        raise CheckpointError(
            f"{container.config_path}: its activation is {ascii(name)[:60]}, expected one of "
            f"{', '.join(_GELU)}. Other networks cannot be built here."
        )
    return _GELU[name]


def _epsilons(key: str, depths: tuple[int, ...], container: Container) -> tuple[float, float]:
    """Return the epsilon of the final norm and that of all other norms."""
    library = library_of(key)
    if library == "timm":
        check_timm_arguments(container)
        usual = timm_eps(depths, architecture(container))
        given = timm_arguments(container).get("norm_eps")
        eps = _epsilon("norm_eps", usual if given is None else given, container)
        return eps, eps
    if library not in ("transformers", "dinov3"):
        return 1e-6, 1e-6
    # The configuration of ConvNext and ConvNextV2 applies to the final norm only, and has a default
    # of its own. DINOv3's applies to all norms.
    is_dinov3 = library == "dinov3"
    usual = 1e-6 if is_dinov3 else 1e-12
    eps = _epsilon("layer_norm_eps", container.config.get("layer_norm_eps", usual), container)
    return eps, eps if is_dinov3 else 1e-6


def _epsilon(name: str, value: object, container: Container) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise CheckpointError(
            f"{container.config_path}: {name} = {ascii(value)[:60]}, expected a number from 0 to 1."
        )
    return float(value)


def _usual(
    key: str, depths: tuple[int, ...], dims: tuple[int, ...], is_clip: bool
) -> dict[str, Any]:
    """Return the preprocessing of images with which a format's published weights are evaluated."""
    library = library_of(key)
    found: dict[str, Any] = {
        "image_size": [224, 224],
        "eval_preset": "mindcv" if library == "mindcv" else "official",
        "interpolation": "bicubic",
        "crop_pct": 0.95 if library == "mindcv" else 0.875,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
    }
    if library == "torchvision":
        side = _TORCHVISION_RESIZE.get(dims[0], {}).get(depths[2], 232)
        found |= {
            "eval_preset": "timm",
            "interpolation": "bilinear",
            "crop_pct": crop_share(224, side),
        }
    if library == "dinov3":
        found |= {"eval_preset": "timm", "interpolation": "bilinear", "crop_pct": 1.0}
    return found | ({"eval_preset": "timm"} | _CLIP if is_clip else {})


def _preprocessing(
    key: str, channels: int, container: Container, usual: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Find the preprocessing of images that belongs to weights.

    The configuration in the folder decides. Values that it leaves out are taken from `usual`, which
    has those of the format's published weights.

    Returns:
        The values of `Description.preprocessing`, and a line to print about each part of the
        configuration that they cannot express.
    """
    folder = container.files[0].parent
    found: dict[str, Any] = {**usual, "channels": channels}
    notes: list[str] = []
    timm, own = timm_pretrained_cfg(container), container.config.get("preprocessing")
    try:
        if isinstance(timm, dict) and library_of(key) == "timm":
            found, notes = timm_preprocessing(timm, found)
        elif container.processor and library_of(key) in ("transformers", "dinov3"):
            prepared = read_processor(container.processor)
            found |= prepared.arguments
            notes = prepared.notes
        elif isinstance(own, dict):
            found |= {name: value for name, value in own.items() if name != "channels"}
        average = [sum(found[name]) / len(found[name]) for name in ("mean", "std")]
        if len(found["mean"]) != channels:
            found |= {"mean": [average[0]] * channels, "std": [average[1]] * channels}
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise CheckpointError(
            f"{folder}: the preprocessing beside the weights cannot be understood "
            f"({ascii(error)[:100]})."
        ) from error
    check_preprocessing(found | {"channels": max(channels, 1)}, folder)
    return found, notes


def size_name(depths: tuple[int, ...], dims: tuple[int, ...]) -> str:
    """Name a size.

    Args:
        depths: The number of blocks in each stage.
        dims: The number of channels in each stage.

    Returns:
        The name, such as "convnextv2_tiny"; "custom" for any other size.
    """
    names: dict[tuple[tuple[int, ...], tuple[int, ...]], str] = {
        size: name for name, size in SIZES.items()
    }
    return names.get((depths, dims), "custom")
