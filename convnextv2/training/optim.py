"""The optimizer: which parameters have weight decay, and how fast each layer learns."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from convnextv2.errors import MissingPackageError
from convnextv2.recipe.knobs import Recipe


def spared_from_decay(name: str, parameter: nn.Parameter, rule: str = "norm_and_bias") -> bool:
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
        re.search(r"(^|\.)(norm|downsample_layers\.0\.1|downsample_layers\.[123]\.0|grn)\.", name)
        is not None
    )
    return {"norm_and_bias": parameter.dim() < 2, "auto": is_norm, "disable": False}[rule]


def layer_scale(name: str, depths: Sequence[int], decay: float, form: str = "single") -> float:
    """Return the learning-rate factor of a parameter for layer decay.

    Args:
        name: The parameter's name in ConvNeXtV2.
        depths: Blocks in each stage.
        decay: The factor from one layer to the next.
        form: With "single", each block is a layer, and a downsampling layer belongs to the first
            block after it. With "group", the stem and stages 1, 2 and 4 are one layer each, and
            stage 3 is cut into groups of three blocks. Source: optim_factory.py of the official
            code, which fixes depths 3, 3, 27, 3; here the groups follow from the depths.

    Returns:
        1 for the final norm and the head, and less the nearer a layer is to the stem.
    """
    assert form in ("single", "group"), form
    if form == "single":
        last = sum(depths) + 1
        layer = _single_layer(name, depths, last)
    else:
        thirds = math.ceil(depths[2] / 3)
        last = thirds + 4
        layer = _group_layer(name, thirds, last)
    return float(decay ** (last - layer))


def _single_layer(name: str, depths: Sequence[int], last: int) -> int:
    if match := re.match(r"downsample_layers\.(\d)\.", name):
        return sum(depths[: int(match[1])]) + 1
    if match := re.match(r"stages\.(\d)\.(\d+)\.", name):
        return sum(depths[: int(match[1])]) + int(match[2]) + 1
    return last


def _group_layer(name: str, thirds: int, last: int) -> int:
    if match := re.match(r"downsample_layers\.(\d)\.", name):
        return (0, 2, 3, thirds + 3)[int(match[1])]
    if match := re.match(r"stages\.(\d)\.(\d+)\.", name):
        stage, block = int(match[1]), int(match[2])
        return (1, 2, 3 + block // 3, thirds + 3)[stage]
    return last


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
        weight_decay_filter: The rule of `spared_from_decay`.
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
        decay = 0.0 if spared_from_decay(name, parameter, weight_decay_filter) else weight_decay
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
    betas = {"betas": recipe.betas} if recipe.betas else {}
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    if name == "rmsprop":
        return torch.optim.RMSprop(
            groups, lr=lr, alpha=0.9, eps=eps, momentum=recipe.momentum
        )  # 0.9 is MindSpore's decay
    if name == "adagrad":
        return torch.optim.Adagrad(
            groups, lr=lr, eps=eps, initial_accumulator_value=0.1
        )  # MindSpore's accum
    if name in ("adamw", "adam", "nadam"):
        of = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "nadam": torch.optim.NAdam}[
            name
        ]
        # PyTorch chooses a multi-tensor implementation by itself on accelerators, not on the CPU.
        on_cpu = all(
            parameter.device.type == "cpu" for group in groups for parameter in group["params"]
        )
        fused = {"fused": True} if on_cpu and name != "nadam" else {}
        optimizer: torch.optim.Optimizer = of(groups, lr=lr, eps=eps, **betas, **fused)
        return optimizer
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
    of = {
        "lion": pytorch_optimizer.Lion,
        "lamb": pytorch_optimizer.Lamb,
        "adan": pytorch_optimizer.Adan,
    }[name]
    optimizer: torch.optim.Optimizer = of(groups, weight_decouple=True, **arguments)
    return optimizer


def freeze(model: nn.Module, what: str) -> None:
    """Stop training a part of the model.

    Args:
        model: A classifier.
        what: "none"; "stem"; "stages1" to "stages3" for the stem and the first 1 to 3 stages;
            "encoder" for everything except the final norm and the head.
    """
    deepest = {"none": -1, "stem": 0, "stages1": 1, "stages2": 2, "stages3": 3, "encoder": 4}[what]
    for name, parameter in model.named_parameters():
        if match := re.match(r"(downsample_layers|stages)\.(\d)\.", name):
            depth = 0 if name.startswith("downsample_layers.0.") else int(match[2]) + 1
            parameter.requires_grad_(depth > deepest)
