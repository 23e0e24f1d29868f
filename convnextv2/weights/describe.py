"""What weights say of their model: by the shapes of their tensors, the config beside them, and the habits of the format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import SIZES
from convnextv2.weights.containers import Container
from convnextv2.weights.files import Description, check_preprocessing
from convnextv2.weights.names import FORMATS

NOTICE = (
    "Meta's released ConvNeXt V2 weights are CC-BY-NC 4.0 (no commercial use), in every format; if these come from them, that "
    "holds for what is made of them too."
)

_GELU = {"gelu": "exact"} | dict.fromkeys(("gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_tanh"), "tanh")
"""What transformers and timm call the two forms that ConvNeXt V2 has here."""

RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "area": 4}
"""Pillow's numbers, which transformers writes."""

TIMM_NAMES = {"nearest": "nearest", "lanczos": "lanczos", "bilinear": "bilinear", "bicubic": "bicubic", "area": "box"}
"""Our kinds of interpolation, as timm calls them."""


def describe(
    tensors: Mapping[str, Tensor], decoder: Mapping[str, Tensor], key: str, depths: tuple[int, ...], container: Container
) -> tuple[Description, list[str]]:
    """What the tensors (by canonical name), and a config beside them, say about the model, and lines for people about what in it
    has no counterpart here. Shapes are not trusted yet."""

    def sides(name: str, dims: int) -> tuple[int, ...]:
        shape = tuple(tensors[name].shape) if name in tensors else ()
        return shape if len(shape) == dims else (0,) * dims

    dims = tuple(sides(f"stages.{i}.0.norm.weight", 1)[0] for i in range(4))
    _, channels, stem_stride, _ = sides("downsample_layers.0.0.weight", 4)
    has_norm, has_head = "norm.weight" in tensors, "head.weight" in tensors
    num_classes = sides("head.weight", 2)[0] if has_head else 0 if has_norm else None
    config = container.config
    arguments: dict[str, Any] = {
        "depths": list(depths),
        "dims": list(dims),
        "in_channels": channels,
        "num_classes": None if decoder else num_classes,
        "stem_stride": stem_stride,
        "gelu": _gelu(key, container),
        "grn_scope": "image",
        "norm_eps": _norm_eps(key, container),
    }
    fcmae = {}
    if decoder:
        blocks = {name.split(".")[1] for name in decoder if name.startswith("decoder.")}
        fcmae = {
            "tile": 8 * stem_stride,
            "norm_target": True,
            "decoder_dim": decoder["mask_token"].numel() if "mask_token" in decoder else 0,
            "decoder_depth": len(blocks),
        }
    preprocessing, notes = _preprocessing(key, channels, container)
    provenance = {"format": key} | container.provenance | {"notice": notice_of(key, container)}
    if container.licence:
        provenance["licence"] = container.licence
    description = Description(
        kind="fcmae" if decoder else "classifier" if num_classes else "encoder",
        model=size_name(depths, dims),
        arguments=arguments,
        fcmae=fcmae,
        class_names=_class_names(config, num_classes or 0),
        preprocessing=preprocessing,
        provenance=provenance,
    )
    return description, notes


def notice_of(key: str, container: Container) -> str:
    """What the licence of weights asks for, as far as their format, model card and our own earlier conversion tell."""
    told = container.provenance.get("notice")
    if container.licence and container.licence not in (told or ""):
        return f"its model card says {container.licence}. {NOTICE}"
    if told is not None:
        return told
    return "" if key == "mindcv" else NOTICE  # Meta released none in that format


def _gelu(key: str, container: Container) -> str:
    told = {"timm": _timm_arguments(container).get("act_layer"), "transformers": container.config.get("hidden_act")}
    name = told.get(key)
    if not name:
        return "tanh" if FORMATS[key].tanh_gelu else "exact"
    if not isinstance(name, str) or name not in _GELU:
        raise CheckpointError(
            f"{_config_of(container)}: its activation is {ascii(name)[:60]}, expected one of {', '.join(_GELU)}. Other networks "
            "cannot be built here."
        )
    return _GELU[name]


def _norm_eps(key: str, container: Container) -> float:
    """The epsilon of the final norm; everywhere else it is 1e-6."""
    if key == "transformers":  # whose configuration applies to the final norm only, with a default that nobody else has
        eps = container.config.get("layer_norm_eps", 1e-12)
        if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < 1:
            raise CheckpointError(f"{_config_of(container)}: layer_norm_eps = {ascii(eps)[:60]}, expected a number from 0 to 1.")
        return float(eps)
    if key == "timm":  # whose arguments apply to every norm
        for name, usual in (("norm_eps", 1e-6), ("output_stride", 32)):
            value = _timm_arguments(container).get(name)
            if value is not None and value != usual:
                raise CheckpointError(f"{_config_of(container)}: {name} = {ascii(value)[:60]}, only {usual} can be built here.")
    return 1e-6


def _timm_arguments(container: Container) -> Mapping[str, Any]:
    arguments = container.config.get("model_args")
    return arguments if isinstance(arguments, dict) else {}


def _config_of(container: Container) -> Path:
    return container.files[0].parent / "config.json"


def _class_names(config: Mapping[str, Any], num_classes: int) -> list[str]:
    names = config.get("id2label") or config.get("label_names") or config.get("labels")
    if isinstance(names, dict):
        names = [names.get(str(i)) for i in range(num_classes)]
    if not isinstance(names, list) or len(names) != num_classes or not all(isinstance(name, str) for name in names):
        return []
    # What transformers writes where nobody gave names.
    return [] if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def distinct(names: list[str]) -> list[str]:
    """The names, those that occur more than once (ImageNet has two cranes) with their index."""
    return [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def warps(preprocessing: Mapping[str, Any]) -> bool:
    """Whether the evaluation transform resizes the whole image, and does not crop."""
    return preprocessing["eval_preset"] == "official" and not 32 < max(preprocessing["image_size"]) < 384


def _preprocessing(key: str, channels: int, container: Container) -> tuple[dict[str, Any], list[str]]:
    """Arguments of the evaluation transform: what the folder's configuration says, else what the format's weights were published
    with. And lines about what these cannot express."""
    found: dict[str, Any] = {
        "image_size": [224, 224],
        "channels": channels,
        "eval_preset": "mindcv" if key == "mindcv" else "official",
        "interpolation": "bicubic",
        "crop_pct": 0.95 if key == "mindcv" else 0.875,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    notes: list[str] = []
    timm, processor, own = container.config.get("pretrained_cfg"), container.processor, container.config.get("preprocessing")
    try:
        if isinstance(timm, dict) and key == "timm":
            mode = timm.get("crop_mode") or "center"
            named = {theirs: name for name, theirs in TIMM_NAMES.items()}
            found |= {"image_size": [int(side) for side in timm["input_size"][1:]], "crop_pct": float(timm["crop_pct"])}
            found |= {"interpolation": named[timm["interpolation"]], "mean": timm["mean"], "std": timm["std"]}
            if mode != "squash" or not warps(found) or found["crop_pct"] != 1:
                found["eval_preset"] = "timm"
                if mode != "center":
                    size = " x ".join(map(str, found["image_size"]))
                    notes.append(f"timm's crop_mode {ascii(mode)[:60]} at {size} px is not known here: images are cropped.")
        elif processor and key == "transformers":
            side = int(processor["size"]["shortest_edge"])
            numbered = {number: name for name, number in RESAMPLE.items()}
            found |= {"image_size": [side, side], "crop_pct": float(processor.get("crop_pct") or 0.875)}
            found |= {"interpolation": numbered[processor.get("resample", 3)], "eval_preset": "official" if side > 32 else "timm"}
            found |= {"mean": processor["image_mean"], "std": processor["image_std"]}
        elif isinstance(own, dict):
            found |= {name: value for name, value in own.items() if name != "channels"}
        average = [sum(found[name]) / len(found[name]) for name in ("mean", "std")]
        if len(found["mean"]) != channels:
            found |= {"mean": [average[0]] * channels, "std": [average[1]] * channels}
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise CheckpointError(
            f"{container.files[0].parent}: the preprocessing beside the weights cannot be understood ({ascii(error)[:100]})."
        ) from error
    check_preprocessing(found | {"channels": max(channels, 1)}, container.files[0].parent)
    return found, notes


def size_name(depths: tuple[int, ...], dims: tuple[int, ...]) -> str:
    """The name of a size, or "custom"."""
    names: dict[tuple[tuple[int, ...], tuple[int, ...]], str] = {size: name for name, size in SIZES.items()}
    return names.get((depths, dims), "custom")
