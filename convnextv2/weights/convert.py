"""Write weights for someone else's library: names, shapes, container and configuration as that library expects them.

What the target cannot express (a form of GELU, an epsilon) is measured as the largest difference of the logits, and written only
where the caller allows it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import SIZES, ConvNeXtV2
from convnextv2.model.fcmae import FCMAE
from convnextv2.weights.files import WEIGHTS, Description, save_weights, write_json, write_tensors
from convnextv2.weights.load import OURS, Weights, build_model, restore
from convnextv2.weights.mindspore import write_ckpt
from convnextv2.weights.names import FORMATS, name_table, to_foreign

TARGETS = ("official", "timm", "transformers", "mmpretrain", "mindcv", OURS)

_FIXED: dict[str, dict[str, Any]] = {
    "official": {"gelu": "exact", "norm_eps": 1e-6, "grn_scope": "image"},
    "timm": {"norm_eps": 1e-6, "grn_scope": "image"},
    "transformers": {"grn_scope": "image"},
    "mmpretrain": {"gelu": "exact", "norm_eps": 1e-6, "grn_scope": "image"},
    "mindcv": {"gelu": "tanh", "norm_eps": 1e-6, "grn_scope": "image"},
}
"""What a target computes whatever is asked for; a checkpoint has no place to say otherwise."""

_SUFFIXES = {
    "official": (".pt", ".pth", ".safetensors"),
    "timm": (".safetensors", ".pth", ".pt"),
    "transformers": (".safetensors", ".pt", ".pth", ".bin"),
    "mmpretrain": (".pth", ".pt", ".safetensors"),
    "mindcv": (".ckpt", ".safetensors"),
    OURS: (".safetensors",),
}
_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "area": 4}


def convert_weights(weights: Weights, target: str, out: Path, *, allow_drift: bool = False) -> list[str]:
    """Write `weights` for `target` (one of `TARGETS`) to `out`: a file where it has a suffix, else a folder in the layout of the
    Hugging Face Hub. FCMAE's encoder is written without its decoder, except in our own format.

    Returns lines for people. Raises CheckpointError where the target cannot hold the model, or drift is not allowed."""
    if target not in TARGETS:
        raise CheckpointError(f"to = {target!r}: expected one of {', '.join(TARGETS)}.")
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise CheckpointError(f"out = {out}: exists already. Choose another name, or delete it.")
    if out.suffix and out.suffix not in _SUFFIXES[target]:
        raise CheckpointError(
            f"out = {out}: expected a folder, or a file ending in {', '.join(_SUFFIXES[target])}, for {target}."
        )
    if not out.suffix and target == "mindcv":
        raise CheckpointError(f"out = {out}: MindCV reads files. Name one ending in .ckpt.")
    description, lines = weights.description, []
    if target == OURS:
        _write_ours(weights, out)
    else:
        model = restore(weights)
        if isinstance(model, FCMAE):
            left_out = [name for name in weights.tensors if not name.startswith("encoder.")]
            lines.append(f"FCMAE's decoder is not part of this format: {len(left_out)} tensors are left out.")
            model = model.encoder
        lines += _check_target(description, target)
        drift = measure_drift(model, _FIXED[target])
        if drift is not None:
            changed = _changed(model.arguments, _FIXED[target])
            line = f"{FORMATS[target].title} has {changed}: logits differ by up to {drift:.1e}"
            if not allow_drift:
                raise CheckpointError(f"{line}. Give --allow-drift to write it all the same.")
            lines.append(f"{line} (measured on random images in float64).")
        _write(model, description, target, out)
    lines.append(f"Written: {out}")
    return lines + [f"Licence: {weights.origin.notice}"] * bool(weights.origin.notice)


def foreign_tensors(model: ConvNeXtV2, target: str, name: str) -> dict[str, Tensor]:
    """The model's tensors by the target's names and in its shapes. name: of the model."""
    table = name_table(target, model.depths, None if model.head is not None or target != "transformers" else "")
    return {
        table[canonical]: to_foreign(target, canonical, tensor, model=name) for canonical, tensor in model.state_dict().items()
    }


def measure_drift(model: ConvNeXtV2, fixed: Mapping[str, Any]) -> float | None:
    """Largest difference of the outputs when `fixed` arguments take the place of the model's, on random images in float64; None
    where they are the model's own."""
    if not _changed(model.arguments, fixed):
        return None
    other = ConvNeXtV2(**{**model.arguments, **fixed})
    other.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    side = 4 * model.total_stride
    images = torch.randn(4, model.in_channels, side, side, dtype=torch.float64, generator=generator)
    with torch.inference_mode():
        ours, theirs = (network.double().eval()(images) for network in (copy.deepcopy(model), other))
    return float((ours - theirs).abs().max())


def _changed(arguments: Mapping[str, Any], fixed: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}, not {arguments[name]}" for name, value in fixed.items() if arguments[name] != value)


def _check_target(description: Description, target: str) -> list[str]:
    """Refuse what the target cannot build; say what its users must set by hand."""
    arguments = description.arguments
    stride = arguments["stem_stride"]
    if stride != 4 and target in ("official", "mindcv"):
        raise CheckpointError(f"stem_stride = {stride}: {FORMATS[target].title} has 4 only. Convert to timm or transformers.")
    size = description.preprocessing.get("image_size", [224, 224])
    if size[0] != size[1] and target == "transformers":
        return [f"Its image processor knows squares only: {size[0]} px is written, the model was evaluated at {tuple(size)}."]
    return []


def _write(model: ConvNeXtV2, description: Description, target: str, out: Path) -> None:
    tensors = foreign_tensors(model, target, description.model)
    tensors = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    if not out.suffix:
        out.mkdir(parents=True, exist_ok=True)
        write_tensors(out / WEIGHTS, tensors)
        for name, content in _configuration(model, description, target).items():
            write_json(out / name, content)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".ckpt":
        write_ckpt(out, {name: tensor.float() for name, tensor in tensors.items()})
    elif out.suffix == ".safetensors" and target == "mindcv":
        save_file(tensors, out, metadata={"format": "ms"})
    elif out.suffix == ".safetensors":
        write_tensors(out, tensors)
    else:
        key = {"official": "model", "mmpretrain": "state_dict"}.get(target)
        torch.save({key: tensors} if key else tensors, out)


def _write_ours(weights: Weights, out: Path) -> None:
    description = Description(**{**vars(weights.description), "provenance": _provenance(weights)})
    build_model(description)
    if out.suffix:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = out.with_name(out.name + ".tmp.d")
        save_weights(folder, weights.tensors, description)
        (folder / WEIGHTS).replace(out)
        (folder / "model.json").unlink()
        folder.rmdir()
    else:
        save_weights(out, weights.tensors, description)


def _provenance(weights: Weights) -> dict[str, Any]:
    known = {name: value for name, value in weights.description.provenance.items() if value}
    return {"format": weights.origin.format, "sha256": weights.origin.sha256, "notice": weights.origin.notice} | known


def _configuration(model: ConvNeXtV2, description: Description, target: str) -> dict[str, dict[str, Any]]:
    """The JSON files beside model.safetensors in a Hub folder."""
    names = description.class_names or [f"LABEL_{i}" for i in range(model.num_classes or 0)]
    preparation = {"image_size": [224, 224], "interpolation": "bicubic", "crop_pct": 0.875, "eval_preset": "timm"}
    preparation |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]} | description.preprocessing
    if target == "transformers":
        return _transformers_configuration(model, names, preparation)
    if target == "timm":
        return {"config.json": _timm_configuration(model, description.model, description.class_names, preparation)}
    # The official code and mmpretrain take these as arguments of their classes.
    arguments = {"depths": list(model.depths), "dims": list(model.dims), "in_chans": model.in_channels}
    return {"config.json": {"model": description.model, **arguments, "num_classes": model.num_classes or 0, "labels": names}}


def _transformers_configuration(model: ConvNeXtV2, names: list[str], preparation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    config = {
        "architectures": ["ConvNextV2ForImageClassification" if model.head is not None else "ConvNextV2Model"],
        "model_type": "convnextv2",
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
    processor = {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": preparation["image_size"][0]},
        "crop_pct": preparation["crop_pct"],
        "resample": _RESAMPLE[preparation["interpolation"]],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": preparation["mean"],
        "image_std": preparation["std"],
    }
    return {"config.json": config, "preprocessor_config.json": processor}


def _timm_configuration(model: ConvNeXtV2, name: str, labels: list[str], preparation: dict[str, Any]) -> dict[str, Any]:
    height, width = preparation["image_size"]
    warped = preparation["eval_preset"] == "official" and not 32 < max(height, width) < 384
    arguments: dict[str, Any] = {}
    if name not in SIZES or SIZES[name] != (model.depths, model.dims):
        arguments |= {"depths": list(model.depths), "dims": list(model.dims)}
    if model.arguments["gelu"] == "tanh":
        arguments["act_layer"] = "gelu_tanh"
    if model.stem_stride != 4:
        arguments["patch_size"] = model.stem_stride
    config: dict[str, Any] = {
        "architecture": name if name in SIZES else "convnextv2_tiny",
        "num_classes": model.num_classes or 0,
        "num_features": model.dims[-1],
        "model_args": arguments | ({"in_chans": model.in_channels} if model.in_channels != 3 else {}),
        "pretrained_cfg": {
            "tag": "convnextv2",
            "custom_load": False,
            "input_size": [model.in_channels, height, width],
            "fixed_input_size": False,
            "interpolation": preparation["interpolation"],
            "crop_pct": 1.0 if warped else preparation["crop_pct"],
            "crop_mode": "squash" if warped else "center",
            "mean": preparation["mean"],
            "std": preparation["std"],
            "num_classes": model.num_classes or 0,
            "pool_size": [height // model.total_stride, width // model.total_stride],
            "first_conv": "stem.0",
            "classifier": "head.fc",
        },
    }
    return config | ({"label_names": labels} if labels else {})
