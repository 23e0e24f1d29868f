"""Build the optimizer, with weight decay and a learning-rate factor for each parameter."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from convnextv2.errors import MissingPackageError
from convnextv2.model.pyramid import name_in_encoder
from convnextv2.recipe.knobs import Recipe


def is_exempt_from_decay(name: str, parameter: nn.Parameter, rule: str = "norm_and_bias") -> bool:
    """Return whether a parameter is exempt from weight decay.

    Args:
        name: The parameter's name in ConvNeXtV2.
        parameter: The parameter.
        rule: "norm_and_bias" exempts norms, biases, GRN and the mask token, which is everything
            that is not a matrix or a kernel. "auto" is MindSpore's rule: it exempts norms (called
            gamma and beta there) and GRN, but not the biases of other layers. "disable" exempts
            nothing.
    """
    is_norm = (
        re.search(
            r"(^|\.)(norm|norms\.\d|downsample_layers\.0\.1|downsample_layers\.[123]\.0|grn)\.",
            name,
        )
        is not None
    )
    return {"norm_and_bias": parameter.dim() < 2, "auto": is_norm, "disable": False}[rule]


def layer_scale(name: str, depths: Sequence[int], decay: float, form: str = "single") -> float:
    """Return the learning-rate factor of a parameter for layer decay.

    Args:
        name: The parameter's name in ConvNeXtV2, or in a network around one.
        depths: Blocks in each stage.
        decay: The factor from one layer to the next.
        form: With "single", each block is a layer, and a downsampling layer belongs to the first
            block after it. With "group", the stem and stages 1, 2 and 4 are one layer each, and
            stage 3 is cut into groups of three blocks. Source: optim_factory.py of the official
            code, which fixes depths 3, 3, 27, 3; here the groups follow from the depths.
            With "stage", there are as many layers as in "group", but the stem and all downsampling
            layers are layer 0, and the four stages are layers 1 to 4, so that the whole encoder
            learns slowly. Source: "stage_wise" of layer_decay_optimizer_constructor.py in the
            official code for segmentation.

    Returns:
        1 for the final norm, the norms of a pyramid and the head. The nearer a layer is to the
        stem, the smaller is its factor.
    """
    assert form in ("single", "group", "stage"), form
    name = name_in_encoder(name)
    if form == "single":
        last = sum(depths) + 1
        layer = _single_layer(name, depths, last)
    else:
        groups = math.ceil(depths[2] / 3)
        last = groups + 4
        layer = _group_layer(name, groups, last) if form == "group" else _stage_layer(name, last)
    return float(decay ** (last - layer))


def _single_layer(name: str, depths: Sequence[int], last: int) -> int:
    if match := re.match(r"downsample_layers\.(\d)\.", name):
        return sum(depths[: int(match[1])]) + 1
    if match := re.match(r"stages\.(\d)\.(\d+)\.", name):
        return sum(depths[: int(match[1])]) + int(match[2]) + 1
    return last


def _group_layer(name: str, groups: int, last: int) -> int:
    if match := re.match(r"downsample_layers\.(\d)\.", name):
        return (0, 2, 3, groups + 3)[int(match[1])]
    if match := re.match(r"stages\.(\d)\.(\d+)\.", name):
        stage, block = int(match[1]), int(match[2])
        return (1, 2, 3 + block // 3, groups + 3)[stage]
    return last


def _stage_layer(name: str, last: int) -> int:
    if name.startswith("downsample_layers."):
        return 0
    return int(match[1]) + 1 if (match := re.match(r"stages\.(\d)\.", name)) else last


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    weight_decay_filter: str = "norm_and_bias",
    depths: Sequence[int] = (),
    layer_decay: float | None = None,
    layer_decay_form: str = "single",
) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning-rate factor (`lr_scale`) and weight decay.

    Args:
        model: The model.
        weight_decay: The weight decay of the parameters that are not exempt.
        weight_decay_filter: The rule of `is_exempt_from_decay`.
        depths: Blocks in each stage, for layer decay.
        layer_decay: The factor from one layer to the next; None for no layer decay.
        layer_decay_form: The form of `layer_scale`.

    Returns:
        Parameter groups as torch.optim takes them.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = layer_scale(name, depths, layer_decay, layer_decay_form) if layer_decay else 1.0
        decay = 0.0 if is_exempt_from_decay(name, parameter, weight_decay_filter) else weight_decay
        groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]


def build_optimizer(
    recipe: Recipe, model: nn.Module, depths: Sequence[int] = ()
) -> torch.optim.Optimizer:
    """Build the recipe's optimizer.

    Args:
        recipe: The recipe, which names the optimizer and its arguments.
        model: The model that is trained.
        depths: Blocks in each stage, for layer decay; empty in pre-training, which has none.
    """
    groups = parameter_groups(
        model,
        weight_decay=recipe.weight_decay,
        weight_decay_filter=recipe.weight_decay_filter,
        depths=depths,
        layer_decay=recipe.layer_decay if depths else None,
        layer_decay_form=recipe.layer_decay_form,
    )
    name, lr, eps = recipe.optimizer, recipe.lr, recipe.eps
    betas: dict[str, Any] = {"betas": recipe.betas} if recipe.betas else {}
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    # 0.9 and 0.1 are MindSpore's values. No knob sets them.
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr, alpha=0.9, eps=eps, momentum=recipe.momentum)
    if name == "adagrad":
        return torch.optim.Adagrad(groups, lr=lr, eps=eps, initial_accumulator_value=0.1)
    # PyTorch chooses a multi-tensor implementation by itself on accelerators, not on the CPU.
    on_cpu = all(p.device.type == "cpu" for group in groups for p in group["params"])
    fused: dict[str, Any] = {"fused": True} if on_cpu else {}
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, eps=eps, **betas, **fused)
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, eps=eps, **betas, **fused)
    if name == "nadam":  # has no fused implementation
        return torch.optim.NAdam(groups, lr=lr, eps=eps, **betas)
    return _from_library(name, groups, lr=lr, **betas, **({} if name == "lion" else {"eps": eps}))


def _from_library(
    name: str, groups: list[dict[str, Any]], **arguments: Any
) -> torch.optim.Optimizer:
    """Build Lion, LAMB or Adan, which PyTorch does not have.

    Raises:
        MissingPackageError: pytorch-optimizer is not installed.
    """
    try:
        import pytorch_optimizer
    except ImportError:
        raise MissingPackageError("pytorch-optimizer", "optimizers") from None
    build: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "lion": pytorch_optimizer.Lion,
        "lamb": pytorch_optimizer.Lamb,
        "adan": pytorch_optimizer.Adan,
    }
    return build[name](groups, weight_decouple=True, **arguments)


def freeze_grn(model: nn.Module) -> None:
    """Freeze the parameters of GRN.

    Weights of a ConvNeXt of the first version then stay equivalent to one, because GRN stays zero.

    Args:
        model: A classifier, or an encoder with its decoder.
    """
    for name, parameter in model.named_parameters():
        if ".grn." in name:
            parameter.requires_grad_(False)


def freeze(model: nn.Module, what: str, *, grn: bool = False) -> None:
    """Freeze a part of the model.

    Args:
        model: A classifier, or a network around an encoder.
        what: "none"; "stem"; "stages1" to "stages3" for the stem and the first 1 to 3 stages;
            "encoder" for everything except the final norm, the norms of a pyramid and the head.
        grn: Whether to freeze GRN too; see `freeze_grn`.
    """
    deepest = {"none": -1, "stem": 0, "stages1": 1, "stages2": 2, "stages3": 3, "encoder": 4}[what]
    for name, parameter in model.named_parameters():
        if match := re.match(r"(downsample_layers|stages)\.(\d)\.", name_in_encoder(name)):
            depth = 0 if match[0] == "downsample_layers.0." else int(match[2]) + 1
            parameter.requires_grad_(depth > deepest)
    if grn:
        freeze_grn(model)
