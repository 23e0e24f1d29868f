"""The configurations that other libraries read beside converted weights."""

from __future__ import annotations

from typing import Any

from convnextv2.model.convnext import SIZES, ConvNeXtV2
from convnextv2.preprocessing import Preprocessing
from convnextv2.weights.class_names import distinct
from convnextv2.weights.description import Description
from convnextv2.weights.names import is_version_1, library_of
from convnextv2.weights.processor import RESAMPLE
from convnextv2.weights.timm_config import TIMM_NAMES
from convnextv2.weights.transformers_config import SEVERAL_LABELS

_TIMM_FIRST = ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge")
"""The sizes of the first ConvNeXt that timm has."""


def configuration(
    model: ConvNeXtV2, description: Description, target: str, licence: str
) -> dict[str, dict[str, Any]]:
    """Return the content of each JSON file beside model.safetensors in a Hub folder, by name."""
    preprocessing = description.preprocessing
    library, first = library_of(target), is_version_1(target)
    if library == "timm":
        return {"config.json": _timm_configuration(model, description, licence, first=first)}
    names = description.class_names or [f"LABEL_{i}" for i in range(model.num_classes or 0)]
    if library == "transformers":
        return _transformers_configuration(
            model, distinct(names), preprocessing, description.kind, first=first
        )
    if library == "dinov3":
        return _dinov3_configuration(model, preprocessing)
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
    return {"config.json": content | {"preprocessing": preprocessing}}


def _transformers_configuration(
    model: ConvNeXtV2, names: list[str], preprocessing: dict[str, Any], kind: str, *, first: bool
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
        "image_size": preprocessing["image_size"][0],
        "torch_dtype": "float32",
    }
    if names:
        config |= {"id2label": {str(i): name for i, name in enumerate(names)}}
        config |= {"label2id": {name: i for i, name in enumerate(names)}}
    if kind == "multi_label":
        config["problem_type"] = SEVERAL_LABELS
    processor = {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": preprocessing["image_size"][0]},
        "crop_pct": preprocessing["crop_pct"],
        "resample": RESAMPLE[preprocessing["interpolation"]],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": preprocessing["mean"],
        "image_std": preprocessing["std"],
    }
    return {"config.json": config, "preprocessor_config.json": processor}


def _dinov3_configuration(
    model: ConvNeXtV2, preprocessing: dict[str, Any]
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
        "image_size": preprocessing["image_size"][0],
        "torch_dtype": "float32",
    }
    return {"config.json": config}


def _timm_name(model: ConvNeXtV2, name: str, *, first: bool) -> str:
    """Return timm's name for a size; that of the tiny size if timm does not have the size."""
    size = name.removeprefix("convnextv2_")
    if first:
        return f"convnext_{size if size in _TIMM_FIRST else 'tiny'}"
    return name if name in SIZES and size != "xlarge" else "convnextv2_tiny"


def _timm_configuration(
    model: ConvNeXtV2, description: Description, licence: str, *, first: bool
) -> dict[str, Any]:
    """Return config.json as timm reads it."""
    name, preprocessing = description.model, description.preprocessing
    architecture = _timm_name(model, name, first=first)
    labels = description.class_names
    height, width = preprocessing["image_size"]
    warped = Preprocessing.read(preprocessing).warps
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
            "interpolation": TIMM_NAMES[preprocessing["interpolation"]],
            "crop_pct": 1.0 if warped else preprocessing["crop_pct"],
            "crop_mode": "squash" if warped else "center",
            "mean": preprocessing["mean"],
            "std": preprocessing["std"],
            "num_classes": model.num_classes or 0,
            "pool_size": [height // model.total_stride, width // model.total_stride],
            "first_conv": "stem.0",
            "classifier": "head.fc",
            **({"license": licence} if licence else {}),
        },
    }
    return config | ({"label_names": labels} if labels else {})
